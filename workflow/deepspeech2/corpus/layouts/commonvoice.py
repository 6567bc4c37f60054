"""The layout `commonvoice`: a table of Mozilla Common Voice beside `clips/`, or the folder of both.

Every version's: columns besides `client_id`, `path` and `sentence` differ and are not used. Fields
are never quoted, and hold quotes of their own. A speaker is a `client_id`. Of a folder, the tables
PARTS are read. Clips that no table read names belong to the other tables.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.text import clean, inside, resolved
from deepspeech2.corpus.utterance import Utterance, part_named

COLUMNS = ("path", "sentence")
PARTS = ("train.tsv", "dev.tsv", "test.tsv")
SUFFIX = ".mp3"  # which some versions leave out


class Layout(layouts.Recordings):
    """See the module."""

    may_have_test = True

    @classmethod
    def claims(cls, source: Path) -> str | None:
        marked = [path for path in _tables(source) if tables.has_headings(path, *COLUMNS)]
        return f"the columns path and sentence of {marked[0].name}" if marked else None

    def utterances(self) -> Iterator[Utterance]:
        found, resolve = _tables(self.source), functools.lru_cache(resolved)
        if not found:
            raise UserError(f"{self.source}: none of {', '.join(PARTS)} in it")
        for table in found:
            part = part_named(table.name) if self.source.is_dir() else ""
            for number, row in tables.rows(table, COLUMNS, "\t", quoted=False):
                where, name = f"{table}: line {number}", row["path"]
                if not Path(name).suffix:
                    name += SUFFIX
                clips = table.parent / "clips"
                path = inside(clips, name, where, resolve, self.rules.allow_outside)
                key = str(Path(name).with_suffix(""))
                self.official.setdefault(key, part)
                yield Utterance(key, str(path), clean(row["sentence"]), row.get("client_id", ""))

    def files(self) -> list[Path]:
        return [*layouts.regular(_tables(self.source)), *super().files()]


def _tables(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    return [source / name for name in PARTS if (source / name).is_file()]
