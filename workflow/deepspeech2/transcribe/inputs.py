"""The recordings that a command line names: files, folders of them, and standard input."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from deepspeech2.cli import UserError
from deepspeech2.corpus import audio

STANDARD = "-"


class Recording(NamedTuple):
    """A file or STANDARD, its name for people, and where below --output its text belongs."""

    path: str
    name: str
    place: Path
    in_folder: bool = False


def recordings(arguments: Iterable[str]) -> list[Recording]:
    """The recordings that files, folders and - stand for, each once."""
    found: list[Recording] = []
    for argument in arguments:
        if argument == STANDARD:
            found.append(Recording(STANDARD, "standard input", Path("stdin")))
        elif os.path.isdir(argument):
            inside = list(_inside(argument))
            if not inside:
                raise UserError(
                    f"{argument}: no recordings in this folder ({', '.join(audio.SUFFIXES)})"
                )
            found += inside
        else:
            found.append(Recording(argument, argument, Path(os.path.basename(argument))))
    return list({recording.path: recording for recording in found}.values())


def _inside(folder: str) -> Iterator[Recording]:
    """The recordings in a folder; links to other folders are not followed."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(audio.SUFFIXES) and not name.startswith("."):
                path = os.path.join(place, name)
                yield Recording(path, path, Path(os.path.relpath(path, folder)), True)


@contextlib.contextmanager
def blocks(recording: Recording) -> Iterator[Iterator[np.ndarray]]:
    """A recording's sound as `corpus.audio.blocks` has it. Standard input becomes a file first."""
    if recording.path != STANDARD:
        yield audio.blocks(recording.path)
        return
    require_piped()
    with tempfile.NamedTemporaryFile(prefix="deepspeech2-") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        try:
            yield audio.blocks(file.name)
        except UserError as error:
            said = str(error).replace(file.name, "standard input")
            raise UserError(f"{said} (raw PCM needs --stream)") from None


def hinted_seconds(path: str) -> int | None:
    """How long a recording is by its header, for the progress bar."""
    with contextlib.suppress(RuntimeError, ValueError):  # a name that is not UTF-8
        seconds = soundfile.info(path).duration if os.path.isfile(path) else audio.MAX_TIME
        return round(seconds) if seconds < audio.MAX_TIME else None
    return None


def require_piped() -> None:
    """Refuse to wait for sound that somebody would have to type."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("-: standard input is a terminal; pipe a recording into it")
