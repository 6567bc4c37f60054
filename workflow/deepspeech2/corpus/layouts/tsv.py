"""The layout `tsv`: a table with the columns `path` and `transcript`, and `speaker` if known.

Columns are separated by tabs, commas or semicolons (corpus/tables.py). Paths are relative to the
table's folder, outside of which nothing is read unless the user allows it; an utterance's id is its
path without suffix.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.text import clean, id_of, inside, resolved
from deepspeech2.corpus.utterance import Utterance

COLUMNS = ("path", "transcript")


class Layout(layouts.Recordings):
    """See the module."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        return "the columns path and transcript" if tables.has_headings(source, *COLUMNS) else None

    def utterances(self) -> Iterator[Utterance]:
        table, root = self.source, self.source.parent
        resolve = functools.lru_cache(resolved)
        for number, row in tables.rows(table, COLUMNS):
            where = f"{table}: line {number}"
            path = inside(root, row["path"], where, resolve, self.rules.allow_outside)
            text = clean(row["transcript"])
            yield Utterance(id_of(path, root), str(path), text, row.get("speaker", ""))
