"""When the words and characters of a decoded text were said, and how sure each is.

A frame of the network's output stands for two of the spectrogram. The convolutions are padded alike
at both ends and the spectrogram's windows are centred, so that frame t is about the sound around
t times the two frames' stride, without delay. (Where a network of one direction says a label is
later: it has learnt to wait.) A character lasts from half a frame before its first frame to half a
frame after its last, a word from its first character's start to its last one's end. A word is as
sure as the product of its characters' confidences.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from deepspeech2.model.architecture import STRIDES
from deepspeech2.scoring.decoders import Decoded


class Span(NamedTuple):
    """A word or a character: its start and end in seconds, and its confidence from 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float


def seconds_per_frame(window_stride: float) -> float:
    """Seconds between two frames of the output, of a spectrogram with this stride (s)."""
    return window_stride * STRIDES[0][1] * STRIDES[1][1]


def characters(decoded: Decoded, frame: float, duration: float) -> list[Span]:
    """The characters of a text but spaces, of `frame` seconds a frame, within `duration` (s)."""
    return [
        Span(
            character,
            round(min(max(0.0, (start - 0.5) * frame), duration), 3),
            round(min((end - 0.5) * frame, duration), 3),
            round(float(confidence), 4),
        )
        for character, start, end, confidence in zip(*decoded)
        if not character.isspace()
    ]


def words(text: str, characters: list[Span]) -> list[Span]:
    """The words of a text, put together of its `characters`."""
    found, place = [], 0
    for word in re.findall(r"\S+", text):
        parts = characters[place : place + len(word)]
        place += len(word)
        confidence = 1.0
        for part in parts:
            confidence *= part.confidence
        found.append(Span(word, parts[0].start, parts[-1].end, round(confidence, 4)))
    return found
