"""Walks through folders, links followed as far as the user allows, and what files look like."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deepspeech2.corpus import audio

TEXT = ".txt"
# What holds sound, whether libsndfile reads it or not.
AUDIO = {
    *audio.SUFFIXES,
    *".3gp .aac .ac3 .aifc .alac .amr .ape .avi .awb .caf .dss .dts .gsm .m4a .m4b .mka".split(),
    *".mkv .mov .mp1 .mp2 .mp4 .mpc .mpeg .mpg .nist .oga .ogx .pcm .ra .raw .rf64 .shn".split(),
    *".snd .spx .tta .voc .vox .wave .weba .webm .wma .wmv .wv".split(),
}
ABOUT = "readme license licence copying copyright notice changelog citation authors".split()


class Folder(NamedTuple):
    """A folder: `path`, the names of its files, and of its links that are not followed."""

    path: Path
    files: list[str]
    refused: list[str]


def walk(root: Path, outside: bool = False) -> Iterator[Folder]:
    """A folder and those below it, in the order of their names.

    Links are followed, those that lead outside `root` only if `outside` allows it; those that lead
    nowhere, to a folder that holds them, or once more to a folder that a link led to already, are
    not: every walk ends.
    """
    base = os.path.realpath(root)
    reached: set[str] = set()  # folders that a link led to
    waiting = [(str(root), base, False)]
    while waiting:
        folder, real, linked = waiting.pop()
        found = Folder(Path(folder), [], [])
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
        below = []
        for entry in children:
            is_link = entry.is_symlink()
            target = os.path.realpath(entry.path) if is_link else os.path.join(real, entry.name)
            inside = outside or _holds(base, target)
            if is_link and not (inside and os.path.exists(target)):
                found.refused.append(entry.name)
            elif not entry.is_dir():
                found.files.append(entry.name)
            elif is_link and _holds(target, real):
                found.refused.append(entry.name)
            elif not (is_link or linked):
                below.append((entry.path, target, False))
            elif target in reached:
                found.refused.append(entry.name)
            else:
                reached.add(target)
                below.append((entry.path, target, True))
        waiting += reversed(below)
        yield found


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def kind(name: str) -> str:
    """What a file looks like by its name: audio, text or other."""
    suffix = os.path.splitext(name)[1].lower()
    return "audio" if suffix in AUDIO else "text" if suffix == TEXT else "other"


def is_about(name: str) -> bool:
    """Whether a text tells of the corpus and is no transcript: README.txt, LICENSE.txt."""
    return os.path.splitext(name)[0].lower() in ABOUT
