"""The layout `folder`: audio files, each with a text file of the same name beside it.

An utterance's id is its path without suffix: `a/b` for `a/b.wav` and `a/b.txt`. Nothing is read
outside the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import audio, layouts
from deepspeech2.corpus.text import inside, read_text
from deepspeech2.corpus.utterance import Utterance


class Layout(layouts.Recordings):
    """See the module."""

    def utterances(self) -> Iterator[Utterance]:
        root = self.source
        if not root.is_dir():
            raise UserError(f"{root}: no such folder")
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() not in audio.SUFFIXES or path.name.startswith("."):
                continue
            if not (path.is_file() or path.is_symlink()):
                continue
            name = path.relative_to(root).as_posix()
            inside(root, name, root)
            text = inside(root, path.with_suffix(".txt").relative_to(root).as_posix(), root)
            yield Utterance(name[: -len(path.suffix)], str(path), read_text(text))

    def files(self) -> list[Path]:
        wanted = (*audio.SUFFIXES, ".txt")
        found = (path for path in self.source.rglob("*") if path.suffix.lower() in wanted)
        return layouts.regular(found)
