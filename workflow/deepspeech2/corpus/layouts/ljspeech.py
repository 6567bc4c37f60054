"""The layout `ljspeech`: `metadata.csv` with lines `id|text|normalised text`, and `wavs/<id>.wav`.

No heading, no quotes. The normalised text is taken where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts, tables
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
        table = self.source / TABLE
        used, width = {table}, 0
        for number, line in tables.lines(table):
            where, cells = f"{table}: line {number}", line.split("|")
            width = width or len(cells)
            if len(cells) not in (2, 3) or len(cells) != width:
                raise UserError(
                    f"{where}: {len(cells)} cells, not everywhere id|text or id|text|normalised"
                )
            folder, outside = self.source / SOUNDS, self.rules.allow_outside
            path = inside(folder, f"{cells[0]}.wav", where, outside=outside)
            used.add(path)
            yield Utterance(cells[0], str(path), clean(cells[-1]) or clean(cells[1]))
        self.pass_over_rest(self.source, used)

    def files(self) -> list[Path]:
        return [*layouts.regular([self.source / TABLE]), *super().files()]
