"""Pages in one file: nothing is loaded, and no script runs but their own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2
import markupsafe

from deepspeech2.cli import printable

STYLE = "report.css"


def render(template: Path, scripts: Sequence[str], **content) -> str:
    """A page of a template, with the style and the scripts beside it.

    Its policy lets only those run. Text is shown, whatever is in it.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda v: "\n".join(map(printable, v.split("\n"))) if type(v) is str else v,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "".join((template.parent / name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    text = environment.get_template(template.name).render(
        script=markupsafe.Markup(script),
        script_hash=digest,
        style=markupsafe.Markup((template.parent / STYLE).read_text(encoding="utf-8")),
        **content,
    )
    return f"{text}\n"
