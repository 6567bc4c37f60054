"""The layout `manifest`: a deepspeech.pytorch manifest (JSON with `root_path` and `samples`).

An utterance's id is its path under the root without suffix, or what the manifest says. The root may
be any folder; nothing is read outside of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepspeech2.corpus import layouts, manifest
from deepspeech2.corpus.text import read_text
from deepspeech2.corpus.utterance import Utterance


class Layout(layouts.Recordings):
    """See the module."""

    def utterances(self) -> Iterator[Utterance]:
        for sample in manifest.read(self.source):
            yield sample.utterance._replace(text=read_text(sample.transcript))

    def files(self) -> list[Path]:
        samples = manifest.read(self.source)
        named = [path for s in samples for path in (Path(s.utterance.audio), s.transcript)]
        return layouts.regular([self.source, *named])
