"""The layout `lhotse`: its manifests as JSON lines (`.jsonl`, `.jsonl.gz`).

The source is a file of cuts, or of supervisions with that of the recordings beside it (under the
same name but for this word), or a folder that holds one of each. Recordings are files, at paths
relative to the manifest. What lhotse would compute or fetch (commands, addresses, transforms, mixed
cuts) is not supported.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.tables import seconds, text_of
from deepspeech2.corpus.text import clean, inside, resolved
from deepspeech2.corpus.utterance import Utterance

SUFFIXES = (".jsonl", ".jsonl.gz")
RECORDINGS, SUPERVISIONS, CUTS = "recordings", "supervisions", "cuts"


class Unsupported(Exception):
    """What of a line is not supported."""


class Layout(layouts.Recordings):
    """See the module. An utterance is a supervision, under its id."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        try:
            return f"the supervisions in {_manifest(source).name}"
        except UserError:
            return None

    def utterances(self) -> Iterator[Utterance]:
        table = _manifest(self.source)
        self._inside = functools.partial(
            inside, table.parent, resolved=functools.lru_cache(resolved),
            outside=self.rules.allow_outside,
        )  # fmt: skip
        recordings = {} if _is_cuts(table) else _recordings(table)
        unheard = dict.fromkeys(recordings)
        for number, row in tables.records(table):
            where = f"{table}: line {number}"
            unheard.pop(str(row.get("recording_id")), None)
            found = [(row, recordings.get(str(row.get("recording_id"))), 0.0)]
            if "recording_id" not in row:
                kind = row.get("type")
                if kind not in (None, "MonoCut", "MultiCut", "Cut"):
                    self.pass_over("unsupported", f"{where}: a {kind}")
                    continue
                recording, start = row.get("recording"), row.get("start", 0)
                start = seconds(start, "start", where)
                found = [(s, recording, start) for s in _list(row, "supervisions", where)]
                if not found:
                    self.pass_over("no_text", f"{where}: a cut without supervisions")
            for supervision, recording, start in found:
                if not isinstance(supervision, dict):
                    raise UserError(f"{where}: supervisions: not objects")
                try:
                    yield from self._utterance(supervision, recording, start, where)
                except Unsupported as what:
                    self.pass_over("unsupported", f"{where}: {what}")
        for key in unheard:
            self.pass_over("no_text", f"{table}: no supervision of {key!r}")

    def _utterance(self, supervision, recording, start, where) -> Iterator[Utterance]:
        key = supervision.get("id")
        if not isinstance(recording, dict) or not isinstance(key, str):
            what = "a supervision without an id" if isinstance(recording, dict) else "no recording"
            self.pass_over("no_audio", f"{where}: {what}")
            return
        begun = supervision.get("start")  # negative where a cut holds but the end of it
        begun = round(start + begun, 9) if isinstance(begun, (int, float)) else begun
        start = seconds(begun, "start", where)
        length = seconds(supervision.get("duration"), "duration", where)
        whole = seconds(recording.get("duration"), "duration", where)
        path, channel = self._sound(recording, supervision.get("channel", 0), where)
        text, speaker = (text_of(supervision.get(k), k, where) for k in ("text", "speaker"))
        # To the recording's end is as well said without a number, which may be rounded.
        end = None if start == 0 and length == whole else start + length
        if end is None:
            self.told.setdefault(key, whole)
        yield Utterance(key, str(path), clean(text), speaker, start, end, channel)

    def _sound(self, recording: dict, channel: Any, where: str) -> tuple[Path, int | None]:
        if recording.get("transforms"):
            raise Unsupported("a recording with transforms")
        sources = [s for s in _list(recording, "sources", where) if isinstance(s, dict)]
        held = [c for s in sources for c in _list(s, "channels", where)]
        wanted = channel if isinstance(channel, list) else [channel]
        for source in sources:
            channels = _list(source, "channels", where)
            if not wanted or wanted[0] not in channels or (len(wanted) > 1 and wanted != held):
                continue
            if source.get("type") != "file" or not isinstance(source.get("source"), str):
                raise Unsupported(f"a source of the type {source.get('type')!r:.20}")
            path = self._inside(source["source"], where)
            return path, channels.index(wanted[0]) if len(wanted) == 1 < len(channels) else None
        raise Unsupported(f"channel {channel!r:.20} of {held!r:.50}")

    def files(self) -> list[Path]:
        table = _manifest(self.source)
        held = [table] if _is_cuts(table) else [table, _beside(table)]
        return [*layouts.regular(held), *super().files()]


def _manifest(source: Path) -> Path:
    """The file of cuts or supervisions of a source."""
    if not source.is_dir():
        known = _is_cuts(source) or tables.has_keys(source, "recording_id", "duration")
        if source.name.endswith(SUFFIXES) and known:
            return source
        raise UserError(f"{source}: no cuts or supervisions of lhotse's (*{', *'.join(SUFFIXES)})")
    names = sorted(x for x in source.iterdir() if x.name.endswith(SUFFIXES) and x.is_file())
    for found in (
        [path for path in names if SUPERVISIONS in path.name],
        [path for path in names if CUTS in path.name and _is_cuts(path)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(path.name for path in found)
            raise UserError(f"{source}: several manifests ({listed}); name one as the path")
    raise UserError(f"{source}: no manifests of lhotse's in it")


def _is_cuts(table: Path) -> bool:
    return tables.has_keys(table, "supervisions", "id")


def _beside(table: Path) -> Path:
    """The recordings of a file of supervisions."""
    return table.with_name(table.name.replace(SUPERVISIONS, RECORDINGS))


def _recordings(table: Path) -> dict[str, dict]:
    path, found = _beside(table), {}
    if path == table or not path.is_file():
        raise UserError(f"{table}: no {RECORDINGS} beside it (looked for {path.name})")
    for number, row in tables.records(path):
        if not isinstance(row.get("id"), str) or row["id"] in found:
            raise UserError(f"{path}: line {number}: id: missing, or there already")
        found[row["id"]] = row
    return found


def _list(row: dict, key: str, where: str) -> list:
    found = row.get(key)
    if not isinstance(found, list):
        raise UserError(f"{where}: {key}: not a list")
    return found
