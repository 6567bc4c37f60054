"""The layout `commonvoice`: one table of Mozilla Common Voice (test.tsv ...) beside `clips/`.

Every version's: columns besides `client_id`, `path` and `sentence` differ and are not used. Fields
are never quoted, and hold quotes of their own. A speaker is a `client_id`. Clips that the table
does not name belong to the other tables.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.text import clean, inside, resolved
from deepspeech2.corpus.utterance import Utterance

COLUMNS = ("path", "sentence")
SUFFIX = ".mp3"  # which some versions leave out


class Layout(layouts.Recordings):
    """See the module."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        return "the columns path and sentence" if tables.has_headings(source, *COLUMNS) else None

    def utterances(self) -> Iterator[Utterance]:
        clips = self.source.parent / "clips"
        resolve = functools.lru_cache(resolved)
        for number, row in tables.rows(self.source, COLUMNS, "\t", quoted=False):
            where, name = f"{self.source}: line {number}", row["path"]
            if not Path(name).suffix:
                name += SUFFIX
            path = inside(clips, name, where, resolve, self.rules.allow_outside)
            stem = str(Path(name).with_suffix(""))
            yield Utterance(stem, str(path), clean(row["sentence"]), row.get("client_id", ""))
