"""Pack a table's rows with all that their figures can be computed from again, as one zip file.

Others check it with `python -m deepspeech2.check` (docs/submission.md). Names in it are those of
`results/`; texts that were given to the scoring have their SHA-256 for a name. The same files make
the same bytes. `submission.json` in it lists the rows, and the hash of every file.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from deepspeech2 import cli, machine
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import SEAL, replacing, seal, sha256
from deepspeech2.report.rows import read_record

FORMAT = 1
INDEX = "submission.json"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the date of every file in it


def add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Add a file under a name, without its date and rights."""
    about = zipfile.ZipInfo(name, LONG_AGO)
    about.compress_type, about.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    with open(path, "rb") as file, archive.open(about, "w", force_zip64=True) as target:
        while chunk := file.read(1 << 20):
            target.write(chunk)


def main(
    records: list[Input],
    files: list[Input],
    texts: list[Input],
    published: dict[str, Input],
    archive: Output,
) -> None:
    """Command line.

    records: the rows' records, in the table's order (JSON)
    files: what else of the results belongs to them
    texts: texts and times that were given to the scoring
    published: tables of published figures, by dataset (TSV)
    archive: archive to write (zip)
    """
    rows = [read_record(path)["row"] for path in records]
    root = Path(records[0]).absolute().parents[5]
    members = {}
    for path in dict.fromkeys([*records, *files]):
        if not Path(path).absolute().is_relative_to(root):
            raise UserError(f"{path}: not one of the results in {root}")
        members[Path(path).absolute().relative_to(root).as_posix()] = Path(path)
    members |= {f"texts/{sha256(path)}": Path(path) for path in texts}
    members |= {f"published/{dataset}.tsv": Path(path) for dataset, path in published.items()}
    content = {
        "format": FORMAT,
        "rows": rows,
        "published": sorted(published),
        "git_revision": machine.git_revision(),
        "files": {name: sha256(path) for name, path in sorted(members.items())},
    }
    text = json.dumps({**content, SEAL: seal(content)}, ensure_ascii=False, indent=1)
    with replacing(archive) as temporary:
        with zipfile.ZipFile(temporary, "w") as packed:
            about = zipfile.ZipInfo(INDEX, LONG_AGO)
            about.compress_type, about.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            packed.writestr(about, text + "\n")
            for name, path in sorted(members.items()):
                add(packed, name, path)
        size = temporary.stat().st_size
    log.info("%d rows, %d files, %.1f MB", len(rows), len(members), size / 1e6)


if __name__ == "__main__":
    cli.run(main)
