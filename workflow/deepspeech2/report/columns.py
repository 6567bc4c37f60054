"""The columns of tables: one entry says a column's name, source, decimals and label.

A table is a pandas frame of texts, as TSV (every column with a source) or for readers (every column
with a label).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from deepspeech2.cli import printable
from deepspeech2.report.tsv import for_programs

# Underscores inside of words are none of Markdown's business.
MARKDOWN = r"[\\`*~|\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[-#+](?=#* )"


class Column(NamedTuple):
    """A column of a table.

    `source` is where a row has its value, as keys with dots between, or a function of the row.
    Numbers have `decimals` in the TSV and `shown` for readers (None: as many as they need). Readers
    see columns with a `label`. One with `joins`, a format of other columns' texts, is for them
    only, and empty where its first one is. `is_accuracy` columns are empty with random weights.
    """

    name: str
    source: str | Callable[[dict], Any] = ""
    decimals: int | None = None
    label: str = ""
    shown: int | None = None
    joins: str = ""
    is_accuracy: bool = False

    def value(self, row: dict) -> Any:
        """Its value of a row; None where the row has none."""
        if callable(self.source):
            return self.source(row)
        value: Any = row
        for key in (self.source or self.name).split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value


def frame(columns: Sequence[Column], rows: Iterable[dict]) -> pd.DataFrame:
    """The values of all columns with a source."""
    values = [{c.name: c.value(row) for c in columns if not c.joins} for row in rows]
    # With types of its own pandas makes floats of whole numbers beside missing ones.
    return pd.DataFrame(values, columns=[c.name for c in columns if not c.joins], dtype=object)


def _text(value: Any, decimals: int | None) -> str:
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value))
    if pd.isna(value):
        return ""
    if decimals is not None and not isinstance(value, str):
        return f"{value:.{decimals}f}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_text(columns: Sequence[Column], rows: pd.DataFrame, readers: bool = False) -> pd.DataFrame:
    """Every value as text, with its column's decimals; what is missing is empty."""
    texts = {}
    for column in columns:
        places = column.decimals
        if readers and column.shown is not None:
            places = column.shown
        if not column.joins:
            texts[column.name] = [_text(value, places) for value in rows[column.name]]
    table = pd.DataFrame(texts, index=rows.index, dtype=object)
    for column in columns:
        if column.joins and readers:
            first = re.findall(r"{(\w+)}", column.joins)[0]
            table[column.name] = [
                column.joins.format(**row) if row[first] else "" for row in table.to_dict("records")
            ]
    return table


def for_readers(columns: Sequence[Column], texts: pd.DataFrame) -> pd.DataFrame:
    """The columns with a label, under it; those that are empty in every row are left out."""
    table = texts[[c.name for c in columns if c.label]]
    table = table.rename(columns={c.name: c.label for c in columns})
    return table.loc[:, (table != "").any()]


def to_tsv(columns: Sequence[Column], rows: pd.DataFrame) -> str:
    """The table for programs."""
    return for_programs(as_text(columns, rows))


def to_markdown(table: pd.DataFrame, notes: Iterable[str] = ()) -> str:
    """A table of texts as Markdown, with notes under it."""
    text = table.map(escape_markdown).to_markdown(index=False, disable_numparse=True)
    listed = "\n".join(f"- {escape_markdown(line)}" for line in notes)
    return f"{text}\n\n{listed}\n" if listed else f"{text}\n"


def escape_markdown(text: str) -> str:
    """`text` on one line, without anything that Markdown would take for markup."""
    text = re.sub(MARKDOWN, r"\\\g<0>", printable(" ".join(text.split())))
    return html.escape(text, quote=False).replace("://", "&#58;//")  # or it turns into a link
