"""Gather submissions of several machines into one table, and mark what does not compare.

Each is checked first (report.evidence). Rows stand beside the first submission's: of other data,
another checkpoint or other code they are marked, and so is what is not VALID or does not hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.files import replacing
from deepspeech2.report import evidence, summary
from deepspeech2.report.columns import Column, as_text, for_readers, to_markdown, to_tsv
from deepspeech2.report.html import render
from deepspeech2.report.rows import device_name, node_kind, read_record

TITLE = "DeepSpeech2: submissions side by side"
OWN = (
    Column("board", label="submission"),
    Column("machine", label="machine"),
    Column("marks", label="does not compare"),
)
# What has to be the same for figures to compare: by a name, of rows with the same key. None where a
# row has nothing of the kind.
SAME = {
    "other data": (lambda r: r["dataset"], lambda r: r["hashes"]["dataset"]),
    "another checkpoint": (lambda r: r["model"], lambda r: r["hashes"]["checkpoint"]),
    "other scoring code": (lambda r: "", lambda r: r["accuracy"]["code_sha256"]),
    "other timing code": (
        lambda r: r["configuration"]["engine"]["backend"],
        lambda r: r["hashes"]["timing_code"],
    ),
    "another server rule": (lambda r: "", lambda r: r.get("server", {}).get("rule")),
    "other server code": (
        lambda r: r["configuration"]["engine"]["backend"],
        lambda r: r.get("server", {}).get("code_sha256"),
    ),
}


def marked(records: list[dict], held: list[bool]) -> list[list[str]]:
    """Why each record does not compare with the first of its kind, or with any."""
    firsts: dict[tuple, Any] = {}
    found = []
    for record, holds in zip(records, held):
        marks = [] if holds else ["its submission does not hold"]
        for name, (key, value) in SAME.items():
            its = value(record)
            if its is not None and firsts.setdefault((name, key(record)), its) != its:
                marks.append(name)
        if record["offline"]["verdict"] != "VALID":
            marks.append(record["offline"]["verdict"])
        if record.get("server", {}).get("verdict", "VALID") != "VALID":
            marks.append(f"server {record['server']['verdict']}")
        found.append(marks)
    return found


def main(boards: list[Input], template: Input, tsv: Output, md: Output, page: Output) -> None:
    """Command line.

    boards: submissions, the one to compare with first (zip)
    template: the page's template (Jinja), with its style and script beside it
    tsv: table to write, for programs
    md: table to write, for readers
    page: the same as a page that sorts and filters, to write (HTML)
    """
    records, names, held, notes = [], [], [], []
    for number, path in enumerate(boards, 1):
        name = f"{number} {Path(path).stem}"
        with evidence.checked(Path(path)) as submission:
            rows = submission.index["rows"]
            found = [read_record(submission.folder / row / "record.json") for row in rows]
        wrong = submission.complaints
        notes += [f"{name} does not hold: {line}" for line in wrong[:3]]
        notes += [f"{name}: {len(wrong) - 3} more"] if len(wrong) > 3 else []
        records += found
        names += [name] * len(found)
        held += [not wrong] * len(found)
    places = [" ".join(filter(None, (node_kind(r), device_name(r)))) for r in records]
    own = pd.DataFrame(
        {"board": names, "machine": places, "marks": marked(records, held)}, dtype=object
    )
    columns = (*OWN, *summary.COLUMNS)
    table = pd.concat([own, summary.summarise(records, {})], axis=1)
    order = ["dataset", "model", "utterances_per_s"]
    table = table.sort_values(order, ascending=[True, True, False], kind="stable")
    shown = for_readers(columns, as_text(columns, table, readers=True))
    outputs = {
        tsv: to_tsv(columns, table),
        md: to_markdown(shown, notes),
        page: render(Path(template), ("tables.js",), title=TITLE, shown=shown, notes=notes),
    }
    for path, text in outputs.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    log.info("%d rows of %d submissions", len(table), len(boards))


if __name__ == "__main__":
    cli.run(main)
