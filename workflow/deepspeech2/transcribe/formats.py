"""How transcripts are written: as text, JSON, subtitles (SRT and VTT) or NIST's CTM.

A writer gets a recording's segments as they are found. What it writes are whole lines; JSON is one
line for each recording, subtitles are of one recording only. A transcript may hold any printable
character, and none of them may end a cue or stand for a tag.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import PurePath

from deepspeech2.cli import printable
from deepspeech2.scoring.times import Span
from deepspeech2.transcribe.recognise import Segment

WIDTH, LINES = 42, 2  # characters in a line of a cue, lines
CUE_SECONDS, SILENCE = 6.0, 1.5  # how long a cue may be, and the silence in one
SHORTEST = 0.02  # seconds
# What players take for a tag, or for the arrow between the times; nothing in SRT escapes it.
LOOK_ALIKE = str.maketrans("<>", "\u2039\u203a")
ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class Text:
    """A segment is a line, with the recording's name before it where there are `several`."""

    suffix = ".txt"
    single = False

    def __init__(self, write: Callable[[str], object], name: str, several: bool):
        self.write, self.name = write, printable(name)
        self.before = f"{self.name}: " if several else ""

    def segment(self, segment: Segment) -> None:
        """Write what can be written of a segment."""
        self.write(f"{self.before}{segment.text}\n")

    def close(self, seconds: float) -> None:
        """Write the rest. The recording has so many seconds."""


class Json(Text):
    """A recording is an object with file, duration, text and segments, in one line.

    A segment has start, end (s), text and words, each a list of text, start, end and confidence.
    """

    suffix = ".json"

    def __init__(self, write, name, several):
        super().__init__(write, name, several)
        self.texts: list[str] = []
        self.segments: list[str] = []  # as JSON, which is small

    def segment(self, segment: Segment) -> None:
        self.texts.append(segment.text)
        self.segments.append(json.dumps(segment._asdict(), ensure_ascii=False))

    def close(self, seconds: float) -> None:
        about = {"file": self.name, "duration": round(seconds, 3), "text": " ".join(self.texts)}
        head = json.dumps(about, ensure_ascii=False)[:-1]
        self.write(f'{head}, "segments": [{", ".join(self.segments)}]}}\n')


class Ctm(Text):
    """A word is a line: recording, channel 1, start (s), duration (s), word, confidence.

    The recording is called by its name without suffix, or by its path where there are several.
    """

    suffix = ".ctm"

    def __init__(self, write, name, several):
        super().__init__(write, name, several)
        path = PurePath(name).with_suffix("") if several else PurePath(name).stem
        self.name = re.sub(r"\s", "_", printable(str(path)))

    def segment(self, segment: Segment) -> None:
        self.write(
            "".join(
                f"{self.name} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text} "
                f"{word.confidence:.4f}\n"
                for word in segment.words
            )
        )


class Srt(Text):
    """Cues of two lines, numbered."""

    suffix = ".srt"
    single = True
    point = ","
    table = LOOK_ALIKE

    def __init__(self, write, name, several):
        super().__init__(write, name, several)
        self.count = 0

    def segment(self, segment: Segment) -> None:
        for words, lines in cues(segment.words):
            self.count += 1
            start, end = words[0].start, max(words[-1].end, words[0].start + SHORTEST)
            times = f"{self.time(start)} --> {self.time(end)}"
            text = "\n".join(lines).translate(self.table)
            self.write(f"{self.number()}{times}\n{text}\n\n")

    def number(self) -> str:
        """The line before the times."""
        return f"{self.count}\n"

    def time(self, seconds: float) -> str:
        """Hours, minutes, seconds and milliseconds."""
        whole = round(1000 * seconds)
        hours, minutes, rest = whole // 3_600_000, whole // 60_000 % 60, whole % 60_000
        return f"{hours:02}:{minutes:02}:{rest // 1000:02}{self.point}{rest % 1000:03}"


class Vtt(Srt):
    """WebVTT: as SRT, with a head, and characters escaped."""

    suffix = ".vtt"
    point = "."
    table = ESCAPED

    def __init__(self, write, name, several):
        super().__init__(write, name, several)
        self.write("WEBVTT\n\n")

    def number(self) -> str:
        return ""


FORMATS = {"text": Text, "json": Json, "srt": Srt, "vtt": Vtt, "ctm": Ctm}


def cues(words: list[Span]) -> Iterator[tuple[list[Span], list[str]]]:
    """Words in groups that are shown together, with the lines of each."""
    group: list[Span] = []
    lines: list[str] = []
    for word in words:
        longer = _lines([*group, word])
        if group and (
            len(longer) > LINES
            or word.end - group[0].start > CUE_SECONDS
            or word.start - group[-1].end > SILENCE
        ):
            yield group, lines
            group, longer = [], _lines([word])
        group.append(word)
        lines = longer
    if group:
        yield group, lines


def _lines(words: list[Span]) -> list[str]:
    return textwrap.wrap(" ".join(word.text for word in words), WIDTH, break_on_hyphens=False)
