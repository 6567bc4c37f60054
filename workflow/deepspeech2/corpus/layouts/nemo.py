"""The layout `nemo`: JSON lines as NVIDIA NeMo reads them, one utterance each.

Keys are `audio_filepath` (or `audio_filename`), `text`, and where a recording has many utterances
`offset` and `duration` in seconds; `speaker` if known. Paths are relative to the manifest's folder.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.text import clean, id_of, inside, resolved
from deepspeech2.corpus.utterance import Utterance

AUDIO = ("audio_filepath", "audio_filename")


class Layout(layouts.Recordings):
    """See the module. An utterance of a longer recording is `<recording>_<offset in ms>`."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        found = (f"the key {key}" for key in AUDIO if tables.has_keys(source, key))
        return next(found, None)

    def utterances(self) -> Iterator[Utterance]:
        root, resolve = self.source.parent, functools.lru_cache(resolved)
        for number, row in tables.records(self.source):
            where = f"{self.source}: line {number}"
            name = next((row[key] for key in AUDIO if isinstance(row.get(key), str)), None)
            text, speaker = row.get("text"), row.get("speaker")
            if name is None or not isinstance(text, str):
                raise UserError(f"{where}: needs {AUDIO[0]} and text; it has {', '.join(row):.200}")
            path = inside(root, name, where, resolve, self.rules.allow_outside)
            start, end, key = 0.0, None, id_of(path, root, resolve)
            length = row.get("duration")
            if row.get("offset") is not None:
                start = tables.seconds(row["offset"], "offset", where)
                key = f"{key}_{round(1000 * start)}"
                if start or length is not None:
                    end = start + tables.seconds(length, "duration", where)
            elif length:
                self.told.setdefault(key, tables.seconds(length, "duration", where))
            spoken = "" if speaker is None else str(speaker)
            yield Utterance(key, str(path), clean(text), spoken, start, end)
