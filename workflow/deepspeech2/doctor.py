"""Say what this machine has for every backend, and what is missing.

Run it with the interpreter that is to run an engine: each has its own packages. It needs nothing
but that interpreter, so it runs where everything else is missing. --json is for programs, and
--require BACKEND ends with status 1 and one line where that backend cannot run (on --device).
"""

from __future__ import annotations

import platform
import sys
from json import dumps
from typing import Literal

from deepspeech2 import cli, engines
from deepspeech2.cli import UserError
from deepspeech2.engines import Finding
from deepspeech2.engines.torch_aie.ascend import COMPATIBLE_VERSIONS


def report(findings: list[Finding]) -> str:
    """The findings for people."""
    lines = [f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}"]
    for one in findings:
        lines += ["", f"{one.backend}: {'cannot run here' if one.missing else 'can run here'}"]
        lines += [f"  has      {name} {version}" for name, version in one.found.items()]
        lines += [f"  missing  {text}" for text in one.missing]
        lines += [f"  doubtful {text}" for text in one.doubts]
    lines += ["", "Ascend: these versions are known to go together."]
    lines += [f"  {', '.join(row)}" for row in COMPATIBLE_VERSIONS]
    return "\n".join(lines)


def main(
    *,
    json: bool = False,
    require: Literal[tuple(engines.BACKENDS)] | None = None,
    device: str | None = None,
) -> None:
    """Command line.

    json: write the findings as JSON
    require: end with status 1 and one line where this backend cannot run
    device: of an engine, for --require
    """
    if require:
        missing = engines.backend_class(require).examine(device).missing
        if missing:
            raise UserError(f"backend {require} cannot run: {'; '.join(missing)}")
        return
    findings = [engines.backend_class(name).examine() for name in engines.BACKENDS]
    if json:
        data = {
            "python": platform.python_version(),
            "interpreter": sys.executable,
            "platform": platform.platform(),
            "backends": [one._asdict() for one in findings],
            "known_together": [list(row) for row in COMPATIBLE_VERSIONS],
        }
        print(dumps(data, indent=1))
    else:
        print(report(findings))


if __name__ == "__main__":
    cli.run(main)
