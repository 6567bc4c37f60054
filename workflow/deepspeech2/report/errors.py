"""List what went wrong, as tables (TSV): errors, confusions, parts, agreement, engines compared.

Rows whose transcripts are the same are listed once: an error stands there with all the rows that
made it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.files import replacing
from deepspeech2.report import listing
from deepspeech2.report.rows import Row, where
from deepspeech2.report.tsv import for_programs

ROW = "dataset model engine batch_size decoder "
COLUMNS = {
    "errors": "dataset model utterance speaker text seconds errors reference_words reference "
    "hypothesis rows",
    "parts": ROW + "kind name utterances reference_words substitutions deletions insertions wer "
    "wer_low wer_high cer ser",
    "confusions": ROW + "kind reference hypothesis count",
    "agreement": ROW + "identical_transcripts utterances largest_posterior_difference "
    "largest_posterior_difference_in other_lengths",
    "batch_sizes": "dataset model engine decoder utterance batch_sizes hypothesis",
    "engines": ROW + "against wer_difference p_better p_worse differing_transcripts speed_ratio",
    "decoders": ROW + "against wer_difference p_better p_worse differing_transcripts",
}


def table(name: str, rows: Sequence[Row]) -> pd.DataFrame:
    """A table by its name in COLUMNS; one without a line has its columns all the same."""
    lines = getattr(listing, name)(rows)
    if name == "errors":
        lines = [{**line, "rows": where(line["rows"])} for line in lines]
    return pd.DataFrame(lines, columns=COLUMNS[name].split())


def main(
    records: list[Input],
    tables: list[Output],
) -> None:
    """Command line.

    records: the rows' records (JSON)
    tables: tables to write, errors.tsv, parts.tsv and so on (TSV)
    """
    rows = [Row(path) for path in records]
    for path in tables:
        frame = table(path.stem, rows)
        with replacing(path) as temporary:
            temporary.write_text(for_programs(frame), encoding="utf-8")
        log.info("%s: %d lines", path.stem, len(frame))


if __name__ == "__main__":
    cli.run(main)
