"""The layout `kaldi`: a data folder with `wav.scp` and `text`, and `segments` and `utt2spk` if any.

A recording of `wav.scp` is a path, relative to the data folder or absolute (which needs the user's
word). One that ends with `|` is a program, and is never run; archives (`file.ark:9`) are not read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.text import clean, inside, resolved
from deepspeech2.corpus.utterance import Utterance

RECORDINGS, TEXTS, SEGMENTS, SPEAKERS = "wav.scp", "text", "segments", "utt2spk"
REST = -1.0  # an end that is the recording's


class Layout(layouts.Recordings):
    """See the module. The source is the data folder."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        marked = (source / RECORDINGS).is_file() and (source / TEXTS).is_file()
        return f"{RECORDINGS} beside {TEXTS}" if marked else None

    def utterances(self) -> Iterator[Utterance]:
        resolve = functools.lru_cache(resolved)
        sounds = {key: self._sound(*place, resolve) for key, place in self._table(RECORDINGS)}
        segments = dict(self._table(SEGMENTS)) if (self.source / SEGMENTS).exists() else None
        speakers = dict(self._table(SPEAKERS)) if (self.source / SPEAKERS).exists() else {}
        used = set()
        for key, (text, where) in self._table(TEXTS):
            recording, start, end = key, 0.0, None
            if segments is not None:
                if key not in segments:
                    self.pass_over("no_audio", f"{where}: {key!r} has no segment")
                    continue
                recording, start, end = _segment(*segments[key])
            if recording not in sounds:
                self.pass_over("no_audio", f"{where}: {recording!r} is not in {RECORDINGS}")
                continue
            used.add(key)
            speaker = speakers.get(key, ("", ""))[0]
            yield Utterance(key, sounds[recording], clean(text), speaker, start, end)
        heard = {_segment(*row)[0] for row in (segments or {}).values()}
        for key in sorted(sounds.keys() - heard) if segments is not None else ():
            self.pass_over("no_text", f"{self.source / SEGMENTS}: no segment of {key!r}")
        for key in sorted((sounds if segments is None else segments).keys() - used):
            self.pass_over("no_text", f"{self.source / TEXTS}: no text of {key!r}")

    def _table(self, name: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """Key, and the rest with its place, of each line."""
        seen = set()
        for number, line in tables.lines(self.source / name):
            key, *rest = line.split(maxsplit=1)
            where = f"{self.source / name}: line {number}"
            if key in seen:
                self.pass_over("duplicate", f"{where}: {key!r}")
                continue
            seen.add(key)
            yield key, (rest[0].strip() if rest else "", where)

    def _sound(self, place: str, where: str, resolve) -> str:
        if place.endswith("|"):
            raise UserError(f"{where}: a program, which is not run; write its sound into a file")
        if re.search(r"\.ark(:\d+)?$", place):
            raise UserError(f"{where}: an archive, which is not read; copy its sound into files")
        return str(inside(self.source, place, where, resolve, self.rules.allow_outside))

    def files(self) -> list[Path]:
        found = (self.source / name for name in (RECORDINGS, TEXTS, SEGMENTS, SPEAKERS))
        return [*layouts.regular(found), *super().files()]


def _segment(text: str, where: str) -> tuple[str, float, float | None]:
    try:
        recording, start, end = text.split()
        bounds = float(start), float(end)
    except ValueError:
        raise UserError(f"{where}: not utterance, recording, start and end") from None
    return recording, bounds[0], None if bounds[1] == REST else bounds[1]
