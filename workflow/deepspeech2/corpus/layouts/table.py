"""The layout `table`: CSV, TSV or JSON lines whose columns you name.

`columns` of the dataset says which column holds what: `path` and `transcript`, and if there are
any `id`, `speaker`, `start` and `end` or `duration` (seconds in the recording) and `channel`
(counted from 0). Without a word there are `path`, `transcript` and perhaps `speaker`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.tables import seconds
from deepspeech2.corpus.text import clean, id_of, inside, resolved
from deepspeech2.corpus.utterance import Utterance

NEEDED = ("path", "transcript")


class Layout(layouts.Recordings):
    """See the module. Paths are relative to the table's folder.

    An utterance's id is its path without suffix, and `_` and its start in ms where it has one.
    """

    def utterances(self) -> Iterator[Utterance]:
        columns = {key: key for key in (*NEEDED, "speaker")} | self.rules.columns
        named = {*NEEDED, *self.rules.columns}
        root, resolve = self.source.parent, functools.lru_cache(resolved)
        for number, row in self._rows([columns[k] for k in layouts.COLUMNS if k in named]):
            where = f"{self.source}: line {number}"
            cells = {key: _text(row.get(name), name, where) for key, name in columns.items()}
            path = inside(root, cells["path"], where, resolve, self.rules.allow_outside)
            start, end, channel = 0.0, None, None
            key = cells.get("id") or id_of(path, root, resolve)
            if cells.get("start"):
                start = seconds(cells["start"], columns["start"], where)
                key = cells.get("id") or f"{key}_{round(1000 * start)}"
            if cells.get("end"):
                end = seconds(cells["end"], columns["end"], where)
            elif cells.get("start") and cells.get("duration"):
                end = start + seconds(cells["duration"], columns["duration"], where)
            elif cells.get("duration"):
                length = seconds(cells["duration"], columns["duration"], where)
                self.told.setdefault(key, length)
            if cells.get("channel"):
                if not cells["channel"].isdecimal():
                    raise UserError(f"{where}: {columns['channel']}: not a number from 0 on")
                channel = int(cells["channel"])
            text, speaker = clean(cells["transcript"]), cells.get("speaker", "")
            yield Utterance(key, str(path), text, speaker, start, end, channel)

    def _rows(self, needed: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        if tables.starts(self.source).lstrip()[:1] != b"{":
            yield from tables.rows(self.source, needed)
            return
        for number, row in tables.records(self.source):
            lacking = next((name for name in needed if name not in row), None)
            if lacking is not None:
                raise UserError(f"{self.source}: line {number}: no {lacking!r:.100}")
            yield number, row


def _text(value: Any, name: str, where: str) -> str:
    """A cell as text. JSON may hold numbers, where a table has digits."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UserError(f"{where}: {name!r:.100}: {value!r:.100} is not a text")
    return str(value)
