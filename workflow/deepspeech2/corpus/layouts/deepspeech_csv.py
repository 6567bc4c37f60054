"""The layout `deepspeech_csv`: Mozilla DeepSpeech's table, `wav_filename,wav_filesize,transcript`.

Paths are relative to the table's folder; absolute ones need the user's word.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.text import clean, id_of, inside, resolved
from deepspeech2.corpus.utterance import Utterance

COLUMNS = ("wav_filename", "transcript")


class Layout(layouts.Recordings):
    """See the module."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        return "the column wav_filename" if tables.has_headings(source, *COLUMNS) else None

    def utterances(self) -> Iterator[Utterance]:
        root, resolve = self.source.parent, functools.lru_cache(resolved)
        for number, row in tables.rows(self.source, COLUMNS):
            where = f"{self.source}: line {number}"
            path = inside(root, row["wav_filename"], where, resolve, self.rules.allow_outside)
            yield Utterance(id_of(path, root, resolve), str(path), clean(row["transcript"]))
