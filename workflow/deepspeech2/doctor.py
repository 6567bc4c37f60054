"""Say what this machine has for every backend, and what is missing.

Run it with the interpreter that is to run an engine: each has its own packages. It needs nothing
but that interpreter, so it runs where everything else is missing. --json is for programs, and
--require ENGINE ends with status 1 and one line where that engine cannot run.
"""

from __future__ import annotations

import platform
import sys
from json import dumps

from deepspeech2 import cli, engines
from deepspeech2.cli import UserError
from deepspeech2.engines import Engine, Finding
from deepspeech2.engines.ascend import COMPATIBLE_VERSIONS


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
    require: list[Engine] = (),
) -> None:
    """Command line.

    json: write the findings as JSON
    require: end with status 1 and one line where one of these engines cannot run, by name of a
        backend or JSON like an entry of the configuration's engines; with --json, write a line for
        each, empty where it can
    """
    if require:
        lacking = [engines.create(one).lacks() for one in require]
        lines = [
            f"backend {one.backend} cannot run: {'; '.join(lacks)}" if lacks else ""
            for one, lacks in zip(require, lacking)
        ]
        if json:
            print(dumps(lines))
        elif any(lines):
            raise UserError(next(filter(None, lines)))
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
