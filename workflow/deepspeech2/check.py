"""Check a submission that somebody else made, without their machine, audio or model.

    python -m deepspeech2.check submission.zip

Every figure of its table is computed again from its raw parts (docs/submission.md says how, and
what no check can see). What does not hold is one line each, and the program ends with status 1.
"""

from __future__ import annotations

from pathlib import Path

from deepspeech2 import cli
from deepspeech2.cli import Arguments, UserError
from deepspeech2.report import evidence


def main(*, submissions: Arguments) -> None:
    """Command line.

    submissions: archives that `snakemake submission` made (zip)
    """
    wrong = 0
    for name in submissions:
        with evidence.checked(Path(name)) as submission:
            index = submission.index
        for line in submission.complaints:
            print(cli.printable(f"{name}: {line}"))
        wrong += len(submission.complaints)
        if not submission.complaints:
            print(
                f"{name}: holds: {len(index['rows'])} rows, {len(index['files'])} files, "
                f"{submission.derived} times computed again"
            )
    if wrong:
        raise UserError(f"{wrong} of what was checked does not hold")


if __name__ == "__main__":
    cli.run(main)
