"""The layout `hf_audiofolder`: Hugging Face's folders with `metadata.csv` or `metadata.jsonl`.

Each names files relative to itself in the column `file_name`; the text is in the first of TEXTS.
Folders or metadata below the source may be named as parts (train, validation, test).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import folders, layouts, tables
from deepspeech2.corpus.tables import text_of
from deepspeech2.corpus.text import clean, id_of, inside, resolved
from deepspeech2.corpus.utterance import Utterance, part_in

FILE = "file_name"
TEXTS = ("text", "sentence", "normalized_text", "transcript", "transcription")
NAMES = ("metadata.csv", "metadata.jsonl")
IN_PARQUET = "metadata.parquet"


class Layout(layouts.Recordings):
    """See the module. An utterance's id is its path without suffix."""

    may_have_test = True

    @classmethod
    def claims(cls, source: Path) -> str | None:
        found = (str(path) for path in _metadata(source) if _headings(path))
        return next(found, None)

    def utterances(self) -> Iterator[Utterance]:
        found, resolve = _metadata(self.source), functools.lru_cache(resolved)
        if not found:
            raise UserError(
                f"{self.source}: no {' or '.join(NAMES)} in it ({IN_PARQUET} is not read; save it "
                "as one of these)"
            )
        used = set(found)
        for table in found:
            names = (self.source.resolve().name, *table.parent.relative_to(self.source).parts)
            for number, row in self._rows(table):
                where = f"{table}: line {number}"
                name = text_of(row.get(FILE), FILE, where)
                key = next((key for key in TEXTS if key in row), "")
                if not (name and key):
                    raise UserError(f"{where}: needs {FILE} and one of {', '.join(TEXTS)}")
                path = inside(table.parent, name, where, resolve, self.rules.allow_outside)
                used.add(Path(os.path.normpath(path)))
                text, utterance = text_of(row[key], key, where), id_of(path, self.source, resolve)
                part = part_in((*names, *Path(name).parts[:-1]))
                self.official.setdefault(utterance, part)
                yield Utterance(utterance, str(path), clean(text))
        self.pass_over_rest(self.source, used)

    def _rows(self, table: Path) -> Iterator[tuple[int, dict]]:
        csv = table.suffix == ".csv"
        return tables.rows(table, (FILE,), ",", quoted=True) if csv else tables.records(table)

    def files(self) -> list[Path]:
        return [*layouts.regular(_metadata(self.source)), *super().files()]


def _metadata(source: Path) -> list[Path]:
    if not source.is_dir():
        return []
    walked = folders.walk(source)
    return sorted(x.path / name for x in walked for name in x.files if name in NAMES)


def _headings(table: Path) -> bool:
    return tables.has_headings(table, FILE) or tables.has_keys(table, FILE)
