"""The layouts in which corpora are held, and the registry of them.

A layout is one module with the class `Layout`; a line in LAYOUTS makes it known. It reads all
utterances with their sound, names the files that it reads, and says which parts the corpus has.
What it finds and does not use it counts under a reason, and only the user can allow that.
"""

from __future__ import annotations

import abc
import importlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from deepspeech2.cli import UserError
from deepspeech2.corpus import OTHER, audio, folders
from deepspeech2.corpus.utterance import Utterance, check_id, train_and_val

LAYOUTS = {
    "an4": "deepspeech2.corpus.layouts.an4",
    "folder": "deepspeech2.corpus.layouts.folder",
    "tsv": "deepspeech2.corpus.layouts.tsv",
    "manifest": "deepspeech2.corpus.layouts.manifest",
    "espeak": "deepspeech2.corpus.layouts.espeak",
    "librispeech": "deepspeech2.corpus.layouts.librispeech",
    "commonvoice": "deepspeech2.corpus.layouts.commonvoice",
    "nemo": "deepspeech2.corpus.layouts.nemo",
    "kaldi": "deepspeech2.corpus.layouts.kaldi",
    "ljspeech": "deepspeech2.corpus.layouts.ljspeech",
    "deepspeech_csv": "deepspeech2.corpus.layouts.deepspeech_csv",
    "stm": "deepspeech2.corpus.layouts.stm",
    "lhotse": "deepspeech2.corpus.layouts.lhotse",
    "hf_audiofolder": "deepspeech2.corpus.layouts.hf_audiofolder",
    "parquet": "deepspeech2.corpus.layouts.parquet",
    "table": "deepspeech2.corpus.layouts.table",
}
AUTO = "auto"  # the layout that claims the source
Keep = Callable[[str, audio.Audio], None]  # takes an utterance's id and sound
# Why a file or row is not used, and only left out where the user says so.
REASONS = {
    "no_audio": "a transcript or row without its recording",
    "no_text": "a recording without its transcript",
    "empty_text": "a transcript that is empty",
    "unreadable": "a recording that cannot be used",
    "duplicate": "a second recording or transcript under one name",
    "link": "a link that leads outside the folder, nowhere or in a circle",
    "hidden": "a hidden recording or transcript",
    "unsupported": "what the layout does not support",
}
APART = 0.25  # seconds between what is told of a recording and what it has
# What a column of a table may hold.
COLUMNS = ("path", "transcript", "id", "speaker", "start", "end", "duration", "channel")


class Rules(NamedTuple):
    """What the user allows a layout, and tells it.

    `skip` are the reasons under which files and rows may be left out, `allow_outside` lets paths
    and links lead out of the corpus's folder, `columns` names the table's for some of
    COLUMNS, `empty_references` keeps utterances whose transcript is empty.
    """

    skip: Sequence[str] = ()
    allow_outside: bool = False
    columns: dict[str, str] = {}  # noqa: RUF012  nothing changes it
    empty_references: bool = False


class Layout(abc.ABC):
    """A corpus at `source`: an archive, a folder, a table or a manifest.

    `parts` are those that all its corpora come in; `may_have_test` says that some have a part test,
    `reads_archives` that it reads them without unpacking. `official` has the parts that this corpus
    itself puts utterances in.
    """

    parts: ClassVar[Sequence[str]] = ()
    may_have_test: ClassVar[bool] = False
    reads_archives: ClassVar[bool] = False

    def __init__(self, source: Path, rules: Rules = Rules()):  # noqa: B008  it is immutable
        self.source, self.rules = source, rules
        self.passed_over: dict[str, list[str]] = {}  # files and rows that are not used, by reason
        self.official: dict[str, str] = {}
        self.told: dict[str, float] = {}  # seconds of recordings that are read whole, by id

    @classmethod
    def claims(cls, source: Path) -> str | None:
        """What marks `source` as of this layout, if anything does; only a little of it is read."""
        return None

    def pass_over(self, reason: str, where: Any) -> None:
        """Note that a file or row is not used, for one of REASONS or as OTHER.

        The corpus is refused unless the user allows it (`require_allowed`).
        """
        assert reason in REASONS or reason == OTHER, reason
        self.passed_over.setdefault(reason, []).append(str(where))

    def require_allowed(self) -> None:
        """Refuse the corpus for what was passed over without the user's word."""
        refused = [r for r in REASONS if r in self.passed_over and r not in self.rules.skip]
        if not refused:
            return
        found = [f"{len(self.passed_over[r])} {r} ({REASONS[r]})" for r in refused]
        outside = ", or follow it with allow_outside: true" if "link" in refused else ""
        raise UserError(
            f"{self.source}: {', '.join(found)}; the first is {self.passed_over[refused[0]][0]}; "
            f"correct it, or leave out such with skip: [{', '.join(refused)}]{outside}"
        )

    @abc.abstractmethod
    def read(self, keep: Keep) -> list[Utterance]:
        """All utterances. The sound of each goes to `keep`, in any order.

        Raises `UserError` for what is missing, unreadable or ambiguous.
        """

    def files(self) -> list[Path]:
        """The files that the corpus is made from, for the workflow to watch."""
        return regular([self.source])

    def parts_of(self, utterances: Sequence[Utterance]) -> dict[str, str]:
        """The part (train, val or test) of each utterance by id.

        Those that the corpus puts in none, or in train without a val, are parted by speakers.
        """
        has_val = "val" in self.official.values()
        fixed = {
            u.id: part
            for u in utterances
            if (part := self.official.get(u.id)) and (part != "train" or has_val)
        }
        return {**train_and_val(u for u in utterances if u.id not in fixed), **fixed}


class Recordings(Layout):
    """A layout whose utterances are audio files, each with a text."""

    @abc.abstractmethod
    def utterances(self) -> Iterator[Utterance]:
        """The utterances, in any order. Nothing but texts is read."""

    def read(self, keep: Keep) -> list[Utterance]:
        self.passed_over.clear()
        by_recording: dict[str, list[Utterance]] = {}
        for utterance in sorted(self._usable()):
            by_recording.setdefault(utterance.audio, []).append(utterance)
        self.require_allowed()
        kept = []
        for utterances in by_recording.values():
            for utterance, sound in self._decoded(sorted(utterances, key=lambda u: u.start)):
                self._require_told(utterance.id, len(sound.samples) / audio.SAMPLE_RATE)
                keep(utterance.id, sound)
                kept.append(utterance)
        if not kept:
            raise UserError(f"{self.source}: no recordings in it")
        return sorted(kept)

    def _require_told(self, key: str, seconds: float) -> None:
        told = self.told.get(key, seconds)
        if abs(told - seconds) > APART:
            raise UserError(
                f"{self.source}: {key!r}: a duration of {told:g} s, but the recording has "
                f"{seconds:.3f} s; correct or remove it, or say where in the recording it starts"
            )

    def pass_over_rest(self, root: Path, used: Collection[Path]) -> None:
        """Note the files below `root` that are not among `used`, and have no text so."""
        for folder, files, refused in folders.walk(root, self.rules.allow_outside):
            for name in refused:
                self.pass_over("link", folder / name)
            for path in (folder / name for name in files):
                if path not in used and path.name not in refused:
                    self.pass_over("no_text" if folders.kind(path.name) == "audio" else OTHER, path)

    def _usable(self) -> Iterator[Utterance]:
        """The utterances with a recording, a text and an id of their own."""
        seen: dict[str, str] = {}
        for utterance in self.utterances():
            check_id(utterance.id, self.source)
            where = f"{utterance.id!r} ({utterance.audio})"
            if utterance.id in seen:
                self.pass_over("duplicate", f"{where}, after {seen[utterance.id]}")
            elif not os.path.lexists(utterance.audio):
                self.pass_over("no_audio", where)
            elif not os.path.isfile(utterance.audio):  # whoever opened a pipe would wait forever
                self.pass_over("unreadable", f"{where}, which is not a file")
            elif not (utterance.text or self.rules.empty_references):
                self.pass_over("empty_text", where)
            else:
                yield utterance
            seen.setdefault(utterance.id, utterance.audio)

    def _decoded(self, waiting: list[Utterance]) -> Iterator[tuple[Utterance, audio.Audio]]:
        """The utterances of one recording with their sound, without those that cannot be used."""
        done = 0
        try:
            sounds = audio.read_segments(waiting[0].audio, [u[-3:] for u in waiting])
            for done, sound in enumerate(sounds, 1):
                if isinstance(sound, UserError):
                    self.pass_over("unreadable", sound)
                else:
                    yield waiting[done - 1], sound
        except UserError as error:
            for _ in waiting[done:] or waiting[-1:]:
                self.pass_over("unreadable", error)
        if "unreadable" in self.passed_over and "unreadable" not in self.rules.skip:
            raise UserError(
                f"{self.passed_over['unreadable'][0]}, or leave it out with skip: [unreadable]"
            )

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


def _class(name: str) -> type[Layout]:
    return importlib.import_module(module_of(name)).Layout


def parts(name: str) -> Sequence[str]:
    """The parts that corpora in the layout `name` come in."""
    return _class(name).parts


def may_have_test(name: str) -> bool:
    """Whether a corpus in the layout `name` may have a part test of its own."""
    return _class(name).may_have_test


def reads_archives(name: str) -> bool:
    """Whether the layout `name` reads archives without unpacking."""
    return _class(name).reads_archives


def create(name: str, source: str | Path, rules: Rules = Rules()) -> Layout:  # noqa: B008
    """The corpus at `source` in the layout `name`."""
    return _class(name)(Path(source), rules)


def watched(name: str, source: str | Path, rules: Rules = Rules()) -> list[Path]:  # noqa: B008
    """The files that a corpus is made from; where its layout finds none, `source` itself."""
    try:
        return create(name, source, rules).files()
    except (UserError, OSError, ValueError):
        return [Path(source)]  # an archive, or the stage says what is wrong with it


def claims(source: str | Path) -> dict[str, str]:
    """The layouts that claim `source`, each with what marks it as their own."""
    found = {name: _class(name).claims(Path(source)) for name in LAYOUTS}
    return {name: mark for name, mark in found.items() if mark}


def find(source: str | Path) -> str:
    """The one layout that claims `source`. Raises `UserError` where none or several do."""
    found = claims(source)
    if len(found) == 1:
        return next(iter(found))
    if found:
        listed = "; ".join(f"{name} by {mark}" for name, mark in found.items())
        raise UserError(f"{source}: several layouts claim it ({listed}); name one as its layout")
    raise UserError(
        f"{source}: no layout claims it (looked for the marks of {', '.join(LAYOUTS)}); name its "
        "layout, or unpack it if it is an archive"
    )


def advice(source: str | Path, name: str) -> str:
    """A hint for who reads `source` as `name` where only other layouts claim it; else nothing."""
    found = claims(source)
    if not found or name in found:
        return ""
    listed = ", ".join(f"{other} (by {mark})" for other, mark in found.items())
    return f"; it looks like the layout {listed}"
