"""The layout `stm`: NIST's segment time marks, as TED-LIUM has them.

A line is `file channel speaker start end <label> text`, times in seconds. The sound of `file` lies
beside the marks, or in the folder SOUNDS of theirs or beside it. Texts that the marks themselves
exclude from scoring are counted; those that do not say every word are not supported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.corpus import OTHER, audio, folders, layouts, tables
from deepspeech2.corpus.text import clean, inside
from deepspeech2.corpus.utterance import Utterance

SUFFIX = ".stm"
SOUNDS = ("", "sph", "wav", "flac", "mp3", "audio")
CHANNELS = {"1": 0, "A": 0, "a": 0, "2": 1, "B": 1, "b": 1}
EXCLUDED = "ignore_time_segment_in_scoring"
COMMENT = ";;"
UNCERTAIN = re.compile(r"[<>{}()]")  # unknown words, alternatives, and words that may be missing


class Layout(layouts.Recordings):
    """See the module. The source is a file of marks, or a folder that holds some.

    An utterance's id is `<file>_<channel>_<start in ms>`.
    """

    @classmethod
    def claims(cls, source: Path) -> str | None:
        return next((f"{path.name}" for path in _marks(source)), None)

    def utterances(self) -> Iterator[Utterance]:
        marks, named = _marks(self.source), set()
        if not marks:
            raise UserError(f"{self.source}: no file or folder with *{SUFFIX}")
        for table in marks:
            root = table.parent.parent if table.parent.name == SUFFIX[1:] else table.parent
            lines = [(n, x) for n, x in tables.lines(table) if not x.lstrip().startswith(COMMENT)]
            parsed = [(f"{table}: line {n}", *_fields(x, f"{table}: line {n}")) for n, x in lines]
            for where, name, channel, speaker, start, end, text in parsed:
                path = self._sound(root, name, where)
                named.add(path)
                if EXCLUDED in text.lower().split():
                    self.pass_over(OTHER, f"{where}: {EXCLUDED}")
                elif UNCERTAIN.search(text):
                    self.pass_over("unsupported", f"{where}: a text that leaves words open")
                else:
                    key = f"{name}_{channel}_{round(1000 * start)}"
                    one = CHANNELS[channel]
                    yield Utterance(key, str(path), clean(text), speaker, start, end, one)
        if self.source.is_dir():
            self.pass_over_rest(self.source, {*named, *marks})

    def _sound(self, root: Path, name: str, where: str) -> Path:
        for folder in SOUNDS:
            for suffix in ("", *audio.SUFFIXES):
                for ending in {suffix, suffix.upper()}:
                    if (root / folder / f"{name}{ending}").is_file():
                        name = str(Path(folder) / f"{name}{ending}")
                        return inside(root, name, where, outside=self.rules.allow_outside)
        return inside(root, name, where, outside=self.rules.allow_outside)

    def files(self) -> list[Path]:
        return [*layouts.regular(_marks(self.source)), *super().files()]


def _marks(source: Path) -> list[Path]:
    if source.is_dir():
        found = (x.path / name for x in folders.walk(source) for name in x.files)
        return sorted(path for path in found if path.suffix.lower() == SUFFIX)
    return [source] if source.suffix.lower() == SUFFIX and source.is_file() else []


def _fields(line: str, where: str) -> tuple[str, str, str, float, float, str]:
    cells = line.split(maxsplit=5)
    if len(cells) < 5:
        raise UserError(f"{where}: not file, channel, speaker, start, end and text")
    name, channel, speaker, start, end = cells[:5]
    if channel not in CHANNELS:
        raise UserError(f"{where}: channel {channel!r:.20}: not one of {', '.join(CHANNELS)}")
    text = cells[5] if len(cells) > 5 else ""
    text = re.sub(r"^<(?!unk>)[^<>\s]*>(\s+|$)", "", text)  # the label, a kind: <o,f0,male>
    times = tables.seconds(start, "start", where), tables.seconds(end, "end", where)
    return name, channel, speaker, *times, text
