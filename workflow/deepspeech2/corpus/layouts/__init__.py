"""The layouts in which corpora are held, and the registry of them.

A layout is one module with the class `Layout`; a line in LAYOUTS makes it known. It reads all
utterances with their sound, names the files that it reads, and says which parts the corpus has.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from deepspeech2.cli import UserError
from deepspeech2.corpus import audio
from deepspeech2.corpus.utterance import Utterance, checked, train_and_val

LAYOUTS = {
    "an4": "deepspeech2.corpus.layouts.an4",
    "folder": "deepspeech2.corpus.layouts.folder",
    "tsv": "deepspeech2.corpus.layouts.tsv",
    "manifest": "deepspeech2.corpus.layouts.manifest",
    "espeak": "deepspeech2.corpus.layouts.espeak",
}
Keep = Callable[[str, audio.Audio], None]  # takes an utterance's id and sound


class Rules(NamedTuple):
    """What the user allows a layout, and tells it.

    `skip` are the reasons under which files and rows may be left out, `allow_outside` lets paths
    and links lead out of the corpus's folder, `columns` names the columns of a table.
    """

    skip: Sequence[str] = ()
    allow_outside: bool = False
    columns: dict[str, str] = {}  # noqa: RUF012  nothing changes it


class Layout(abc.ABC):
    """A corpus at `source`: an archive, a folder, a table or a manifest.

    `parts` are those that the corpus itself comes in; where it has none, `train` and `val` are made
    by speakers.
    """

    parts: ClassVar[Sequence[str]] = ()

    def __init__(self, source: Path, rules: Rules = Rules()):  # noqa: B008  it is immutable
        self.source, self.rules = source, rules
        self.passed_over: dict[str, list[str]] = {}  # files and rows that are not used, by reason

    def pass_over(self, reason: str, where: Any) -> None:
        """Note that a file or row is not used; the corpus is refused unless the user allows it."""
        self.passed_over.setdefault(reason, []).append(str(where))

    @abc.abstractmethod
    def read(self, keep: Keep) -> list[Utterance]:
        """All utterances. The sound of each goes to `keep`, in any order.

        Raises `UserError` for what is missing, unreadable or ambiguous.
        """

    def files(self) -> list[Path]:
        """The files that the corpus is made from, for the workflow to watch."""
        return regular([self.source])

    def parts_of(self, utterances: Sequence[Utterance]) -> dict[str, str]:
        """The part (train, val or test) of each utterance by id."""
        return train_and_val(utterances)


class Recordings(Layout):
    """A layout whose utterances are audio files, each with a text."""

    @abc.abstractmethod
    def utterances(self) -> Iterator[Utterance]:
        """The utterances, in any order. Nothing but texts is read."""

    def read(self, keep: Keep) -> list[Utterance]:
        found = sorted(checked(self.utterances(), self.source))
        by_recording: dict[str, list[Utterance]] = {}
        for utterance in found:
            by_recording.setdefault(utterance.audio, []).append(utterance)
        for recording, utterances in by_recording.items():
            sounds = audio.read_segments(recording, [u[-3:] for u in utterances])
            for utterance, sound in zip(utterances, sounds):
                keep(utterance.id, sound)
        return found

    def files(self) -> list[Path]:
        named = (Path(utterance.audio) for utterance in self.utterances())
        return regular([self.source, *named])


def regular(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths` that can be watched. `read` complains of what else is named.

    A pipe would be waited for, and not every name can be written down.
    """
    return [path for path in paths if path.is_file() and str(path).isprintable()]


def module_of(name: str) -> str:
    """The module of the layout `name`."""
    if name not in LAYOUTS:
        raise UserError(f"unknown layout {name!r}; known are: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def parts(name: str) -> Sequence[str]:
    """The parts that corpora in the layout `name` come in."""
    return importlib.import_module(module_of(name)).Layout.parts


def create(name: str, source: str | Path, rules: Rules = Rules()) -> Layout:  # noqa: B008
    """The corpus at `source` in the layout `name`."""
    return importlib.import_module(module_of(name)).Layout(Path(source), rules)
