"""Gather the rows of the selection into one table, as TSV and Markdown.

A row is the `record.json` in `dataset/model/engine/bs<batch size>`. Published figures stand beside
ours where dataset and batch size match, whatever the engine.
"""

from __future__ import annotations

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.files import replacing
from deepspeech2.report import published as published_figures
from deepspeech2.report.columns import to_markdown, to_tsv
from deepspeech2.report.rows import read_record
from deepspeech2.report.summary import COLUMNS, notes, shown, summarise


def main(
    records: list[Input],
    published: dict[str, Input],
    tsv: Output,
    md: Output,
) -> None:
    """Command line.

    records: the rows' records, in the table's order (JSON)
    published: tables of published figures, by dataset (TSV)
    tsv: table to write, for programs
    md: table to write, for readers
    """
    figures, remarks = published_figures.read(published)
    rows = summarise([read_record(path) for path in records], figures)
    outputs = {
        tsv: to_tsv(COLUMNS, rows),
        md: to_markdown(shown(rows), notes(rows, remarks)),
    }
    for path, text in outputs.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    log.info("%d rows", len(rows))


if __name__ == "__main__":
    cli.run(main)
