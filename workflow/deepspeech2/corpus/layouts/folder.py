"""The layout `folder`: audio files, each with a text file of the same name beside it.

An utterance's id is its path without suffix: `a/b` for `a/b.wav` and `a/b.txt`. Suffixes may be in
any case. Texts may also be in a folder `txt` beside the recordings' `wav`, as deepspeech.pytorch's
own scripts put them.
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import OTHER, audio, folders, layouts
from deepspeech2.corpus.text import read_text
from deepspeech2.corpus.utterance import Utterance

SOUNDS, TEXTS = "wav", "txt"
LOOKED_AT = 100  # folders in which `claims` looks


class Layout(layouts.Recordings):
    """See the module. Everything that the folder holds is used or counted."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        if not source.is_dir():
            return None
        for folder in _paired(itertools.islice(folders.walk(source), LOOKED_AT)):
            kinds = _by_name(folder.files).values()
            count = sum({"audio", "text"} <= found.keys() for found in kinds)
            if count:
                return f"{count} *.txt beside audio in {folder.path}"
        return None

    def utterances(self) -> Iterator[Utterance]:
        if not self.source.is_dir():
            raise UserError(f"{self.source}: no such folder, tar or zip")
        walked = folders.walk(self.source, self.rules.allow_outside)
        for folder, files, refused in _paired(walked):
            hidden = any(part.startswith(".") for part in folder.relative_to(self.source).parts)
            links = {_stem(name): name for name in reversed(refused)}
            for name in links.values():
                self.pass_over("link", folder / name)
            for stem, kinds in _by_name(files).items():
                for name in kinds.pop("other", ()):
                    self.pass_over(OTHER, folder / name)
                if stem in links or not kinds:
                    continue  # counted
                if hidden or stem.startswith("."):
                    self.pass_over("hidden", folder / next(iter(kinds.values()))[0])
                    continue
                yield from self._pair(folder, kinds.get("audio", []), kinds.get("text", []))

    def _pair(self, folder: Path, sounds: list[str], texts: list[str]) -> Iterator[Utterance]:
        """The utterance of the files of one name, if they make one."""
        sounds.sort(key=lambda name: not _is_readable(folder / name))  # those first
        if not sounds:
            about = folders.is_about(texts[0])
            self.pass_over(OTHER if about else "no_audio", folder / texts[0])
        elif not _is_readable(folder / sounds[0]):
            self.pass_over("unreadable", f"{folder / sounds[0]}, of a format that is not read")
        elif not texts:
            self.pass_over("no_text", folder / sounds[0])
        else:
            path = folder / sounds[0]
            name = path.relative_to(self.source).as_posix()[: -len(path.suffix)]
            yield Utterance(name, str(path), read_text(folder / texts[0]))
        for name in (*sounds[1:], *texts[1:]):
            self.pass_over("duplicate", f"{folder / name}, after {(sounds or texts)[0]}")

    def files(self) -> list[Path]:
        walked = folders.walk(self.source, self.rules.allow_outside)
        found = (folder.path / name for folder in walked for name in folder.files)
        return layouts.regular(path for path in found if folders.kind(path.name) != "other")


def _paired(walked: Iterable[folders.Folder]) -> list[folders.Folder]:
    """Folders, in which those of recordings also have the texts from the one of texts beside."""
    found = {folder.path: folder for folder in walked}
    for folder in found.values():
        texts = found.get(folder.path.parent / TEXTS)
        if folder.path.name == SOUNDS and texts:
            stems = {_stem(name) for name in folder.files}
            moved = [x for x in texts.files if folders.kind(x) == "text" and _stem(x) in stems]
            texts.files[:] = [name for name in texts.files if name not in set(moved)]
            folder.files.extend(f"../{TEXTS}/{name}" for name in moved)
    return list(found.values())


def _by_name(files: list[str]) -> dict[str, dict[str, list[str]]]:
    """Files by their name without suffix and by kind."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in files:
        kinds = found.setdefault(_stem(os.path.basename(name)), {})
        kinds.setdefault(folders.kind(name), []).append(name)
    return found


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])  # as some systems write it


def _is_readable(path: Path) -> bool:
    return path.suffix.lower() in audio.SUFFIXES and path.is_file()
