"""The layout `librispeech`: folders `speaker/chapter/` with one `*.trans.txt` and FLACs beside it.

A line of the texts is an id, a space and the text; the sound is `<id>.flac`. Any folder that holds
such chapters will do: the whole corpus, a subset, a mini set. A subset's name says its part.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import OTHER, folders, layouts, tables
from deepspeech2.corpus.text import clean, inside
from deepspeech2.corpus.utterance import Utterance, part_named

TEXTS, SOUND = ".trans.txt", ".flac"
SUBSET = re.compile(r"(train|dev|test)-(clean|other)")
LOOKED_AT = 100  # folders in which `claims` looks


class Layout(layouts.Recordings):
    """See the module. The speaker is the first number of the id."""

    may_have_test = True

    @classmethod
    def claims(cls, source: Path) -> str | None:
        if source.is_dir():
            for folder in itertools.islice(folders.walk(source), LOOKED_AT):
                found = next((name for name in folder.files if name.endswith(TEXTS)), None)
                if found:
                    return str(folder.path / found)
        return None

    def utterances(self) -> Iterator[Utterance]:
        if not self.source.is_dir():
            raise UserError(f"{self.source}: no such folder, tar or zip")
        for folder, files, refused in folders.walk(self.source, self.rules.allow_outside):
            named, part = set(), part_named(self._subset(folder))
            for name in refused:
                self.pass_over("link", folder / name)
            for table in (folder / name for name in files if name.endswith(TEXTS)):
                named.add(table.name)
                for number, line in tables.lines(table):
                    key, _, text = line.strip().partition(" ")
                    where = f"{table}: line {number}"
                    path = inside(folder, key + SOUND, where, outside=self.rules.allow_outside)
                    named.add(path.name)
                    self.official.setdefault(key, part)
                    yield Utterance(key, str(path), clean(text), key.partition("-")[0])
            for name in sorted(set(files) - named - set(refused)):
                sound = folders.kind(name) == "audio"
                self.pass_over("no_text" if sound else OTHER, folder / name)

    def _subset(self, folder: Path) -> str:
        """The subset that a folder belongs to by its path, if any."""
        names = (*self.source.resolve().parts, *folder.relative_to(self.source).parts)
        return next(filter(SUBSET.match, reversed(names)), "")

    def files(self) -> list[Path]:
        walked = folders.walk(self.source, self.rules.allow_outside)
        found = (folder.path / name for folder in walked for name in folder.files)
        return layouts.regular(path for path in found if path.name.endswith((TEXTS, SOUND)))
