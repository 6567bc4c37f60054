"""One utterance of a corpus, as all stages know it, and the parts that utterances belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from deepspeech2.cli import UserError

PARTS = r"(train|test|dev|val|eval)(?:ing|elopment|id|idation|uation)?(?![a-z])"
VAL_EVERY = 10  # every tenth speaker is held out for validation


class Utterance(NamedTuple):
    """An utterance: what is said, by whom, and where its sound is.

    `audio` is the path of a recording, or its name in an archive. `start` and `end` are seconds in
    it, None the recording's own end; `channel` counts from 0, None is the mean of all.
    """

    id: str
    audio: str
    text: str = ""
    speaker: str = ""
    start: float = 0.0
    end: float | None = None
    channel: int | None = None


def check_id(name: str, where: str | Path) -> None:
    """Refuse an id that is not a plain relative path: corpora are written under these names."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or len(part.encode(errors="replace")) > 200 for part in parts):
        raise UserError(f"{where}: {name!r:.100}: invalid utterance ID; rename it")
    if not name.isprintable():
        raise UserError(f"{where}: {name!r:.100} has unprintable characters; rename it")


def held_out(speakers: Iterable[str]) -> set[str]:
    """The speakers whose utterances are kept from training: every tenth by name, if not alone."""
    names = sorted(set(speakers))
    return set(names[::VAL_EVERY]) if len(names) > 1 else set()


def part_named(name: str) -> str:
    """The part that a corpus's own name of it stands for, if any: dev-clean is val."""
    found = re.match(PARTS, name.lower())
    return {"dev": "val", "eval": "test"}.get(found[1], found[1]) if found else ""


def part_in(names: Iterable[str]) -> str:
    """The part that the last of a path's names says, if any does."""
    return next(filter(None, map(part_named, reversed([*names]))), "")


def train_and_val(utterances: Iterable[Utterance]) -> dict[str, str]:
    """The part of each utterance by id: val is every tenth speaker."""
    speakers = {utterance.id: utterance.speaker or utterance.id for utterance in utterances}
    val = held_out(speakers.values())
    return {name: "val" if speaker in val else "train" for name, speaker in speakers.items()}
