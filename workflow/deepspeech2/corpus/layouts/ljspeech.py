"""The layout `ljspeech`: `metadata.csv` with lines `id|text|normalised text`, and `wavs/<id>.wav`.

No heading, no quotes. The normalised text is taken where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import OTHER, layouts, tables
from deepspeech2.corpus.text import clean, inside
from deepspeech2.corpus.utterance import Utterance

TABLE, SOUNDS = "metadata.csv", "wavs"


class Layout(layouts.Recordings):
    """See the module. The source is the folder."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        marked = (source / TABLE).is_file() and (source / SOUNDS).is_dir()
        return f"{TABLE} beside {SOUNDS}/" if marked else None

    def utterances(self) -> Iterator[Utterance]:
        table, named = self.source / TABLE, set()
        for number, line in tables.lines(table):
            where, cells = f"{table}: line {number}", line.split("|")
            if len(cells) not in (2, 3):
                raise UserError(f"{where}: {len(cells)} cells, not id|text or id|text|normalised")
            name = f"{cells[0]}.wav"
            path = inside(self.source / SOUNDS, name, where, outside=self.rules.allow_outside)
            named.add(name)
            yield Utterance(cells[0], str(path), clean(cells[-1]) or clean(cells[1]))
        for path in sorted((self.source / SOUNDS).iterdir()):
            if path.name not in named:
                self.pass_over("no_text" if path.suffix == ".wav" else OTHER, path)

    def files(self) -> list[Path]:
        return [*layouts.regular([self.source / TABLE]), *super().files()]
