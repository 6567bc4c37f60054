"""Fail where a comparison with a baseline does, and name the rows that do not pass.

The tables of the comparison are written before, by `compare`, and stay: this only reads its verdict
(JSON) and ends with exit status 0 if every row passes, else with 1 and one line that lists the
rows and what is wrong with them.
"""

from __future__ import annotations

from deepspeech2 import cli
from deepspeech2.cli import Input, UserError, log
from deepspeech2.files import read_sealed


def main(
    comparison: Input,
) -> None:
    """Command line.

    comparison: what compare found (JSON)
    """
    found = read_sealed(comparison)
    try:
        verdict, reasons, rows = found["verdict"], found["reasons"], len(found["rows"])
        listed = "; ".join(reasons)
    except (KeyError, TypeError):
        raise UserError(f"{comparison}: not a comparison; make it anew with compare") from None
    if verdict != "PASS":
        raise UserError(f"{comparison}: {len(reasons)} of {rows} rows do not pass: {listed}")
    log.info("all %d rows pass", rows)


if __name__ == "__main__":
    cli.run(main)
