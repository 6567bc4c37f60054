"""The layout `manifest`: one of deepspeech.pytorch, JSON with `root_path` and `samples`, or CSV.

V1 and V2 have the CSV: a recording and its transcript's file on each line, without headings.

An utterance's id is its path under the root without suffix, or what the manifest says. The root may
be any folder; nothing is read outside of it unless the user allows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.corpus import layouts, manifest
from deepspeech2.corpus.text import read_text
from deepspeech2.corpus.utterance import Utterance

LOOKED_AT = 1 << 16  # bytes at either end of a file in which `claims` looks


class Layout(layouts.Recordings):
    """See the module."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        if not source.is_file():
            return None
        with open(source, "rb") as file:
            start = file.read(LOOKED_AT)
            file.seek(max(0, os.path.getsize(source) - LOOKED_AT))
            text = start + file.read(LOOKED_AT)
        if source.suffix == manifest.TABLE and manifest.PAIR.match(start):
            return "a recording and a text file on a line"
        return "root_path and samples" if b'"root_path"' in text and b'"samples"' in text else None

    def utterances(self) -> Iterator[Utterance]:
        for sample in manifest.read(self.source, self.rules.allow_outside):
            if os.path.lexists(sample.transcript):
                yield sample.utterance._replace(text=read_text(sample.transcript))
            else:
                self.pass_over("no_text", f"{sample.utterance.id!r} ({sample.transcript})")

    def files(self) -> list[Path]:
        samples = manifest.read(self.source, self.rules.allow_outside)
        named = [path for s in samples for path in (Path(s.utterance.audio), s.transcript)]
        return layouts.regular([self.source, *named])
