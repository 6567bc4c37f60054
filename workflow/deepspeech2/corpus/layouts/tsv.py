"""The layout `tsv`: a table with the columns `path` and `transcript`, and `speaker` if known.

It is the layout `table` with these names, and known by them.
"""

from __future__ import annotations

from pathlib import Path

from deepspeech2.corpus import tables
from deepspeech2.corpus.layouts import table


class Layout(table.Layout):
    """See the module."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        marked = tables.has_headings(source, *table.NEEDED)
        return "the columns path and transcript" if marked else None
