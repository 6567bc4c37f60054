"""When the words and characters of a decoded text were said, and how sure each is.

A frame of the network's output stands for two of the spectrogram. The convolutions are padded alike
at both ends and the spectrogram's windows are centred, so that frame t is about the sound around
t times the two frames' stride, without delay. (Where a network of one direction says a label is
later: it has learnt to wait.) A character lasts from half a frame before its first frame to half a
frame after its last; that is where the network hears it, and a spelled H is heard at the end of
"aitch". The space before a word ends where the word begins, and the one after it begins where the
word ends: so a word lasts from space to space, and where it has none, as its characters do. A word
is as sure as the product of its characters' confidences.
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
        _span(character, start, end, confidence, frame, duration)
        for character, start, end, confidence in zip(*decoded)
        if not character.isspace()
    ]


def words(decoded: Decoded, frame: float, duration: float) -> list[Span]:
    """The words of a text, of `frame` seconds a frame, within `duration` (s)."""
    found = []
    for word in re.finditer(r"\S+", decoded.text):
        first, after = word.span()
        start = decoded.ends[first - 1] if first else decoded.starts[0]
        end = decoded.starts[after] if after < len(decoded.text) else decoded.ends[-1]
        confidence = decoded.confidences[first:after].prod(dtype=float)
        found.append(_span(word[0], start, end, confidence, frame, duration))
    return found


def _span(text, start, end, confidence, frame: float, duration: float) -> Span:
    """From half a frame before frame `start` to half a frame before frame `end`."""
    seconds = [round(float(min(max(0.0, (x - 0.5) * frame), duration)), 3) for x in (start, end)]
    return Span(text, *seconds, round(min(1.0, float(confidence)), 4))
