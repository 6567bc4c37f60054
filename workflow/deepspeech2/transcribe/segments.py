"""Cuts a recording of any length into pieces that the network hears one by one.

A piece is cut where the sound pauses, and long silence around it is left out: the network hears
each piece normalised by itself, and finds letters in silence that is made as loud as speech. What
has no pause is cut into windows that overlap, whose posteriors are joined in the middle of the
overlap. A recording that is short and pauses nowhere for long is one piece as it is.

Whether a frame is speech is told by the energy of its sound's differences (which leaves out hum),
between that of the quietest and of the loudest frames around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from deepspeech2.corpus.audio import SAMPLE_RATE

PER_SECOND = 50
FRAME = SAMPLE_RATE // PER_SECOND  # samples
# In frames:
LEAST, USUAL, MOST = 2 * PER_SECOND, 10 * PER_SECOND, 24 * PER_SECOND  # of a piece
PAUSE = 8  # silence in which a piece may end
LONG_PAUSE = 25  # silence in which every piece ends, and that is left out at its beginning
MARGIN = 12  # of it, what is kept
OVERLAP = 2 * PER_SECOND  # of a window; its other end has as much
WINDOWS = 10  # that are joined at most, as all of them are in memory
# Where between the quietest and the loudest frames silence ends, how far below the loudest it does
# at most, and how far apart they are where somebody speaks (dB).
SHARE, DEPTH, RANGE = 0.4, 40.0, 6.0
LAG = 4  # samples: the differences of means of so many pass 500 Hz to 4 kHz, half of 2 kHz
SMALLEST = 1e-12  # energy


class Piece(NamedTuple):
    """Samples (n,) float32 that begin at `start` (in samples) of the recording.

    What counts of them are the samples from `first` to `last`; the rest is overlap. `joined` says
    that they go on where those of the piece before ended, in the midst of speech.
    """

    samples: np.ndarray
    start: int
    first: int
    last: int
    joined: bool


class _Cut(NamedTuple):
    """Where a piece begins and ends, and what comes next does (frames).

    Without a piece, `end` is `begin`. In a window, what comes next begins before `end`.
    """

    begin: int
    end: int
    following: int


def levels(samples: np.ndarray) -> np.ndarray:
    """The level of each whole frame of samples (n,), in dB, smoothed over three frames."""
    count = len(samples) // FRAME
    if not count:
        return np.zeros(0)
    sums = np.cumsum(np.pad(samples[: count * FRAME], (2 * LAG, 0), "edge"), dtype=np.float64)
    means = (sums[LAG:] - sums[:-LAG]) / LAG
    band = (means[LAG:] - means[:-LAG]).reshape(count, FRAME)
    energy = np.einsum("ij,ij->i", band, band) / FRAME
    smooth = np.convolve(np.pad(energy, 1, "edge"), np.full(3, 1 / 3), "valid")
    return 10 * np.log10(smooth + SMALLEST)


def is_speech(level: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Which frames of these levels are speech; `before` are those of the sound before it."""
    around = np.concatenate([before, level])
    quiet, loud = np.percentile(around, 10), around.max()
    if loud - quiet < RANGE:
        return np.zeros(len(level), bool)
    return level > max(quiet + SHARE * (loud - quiet), loud - DEPTH)


def pieces(blocks: Iterable[np.ndarray]) -> Iterator[Piece]:
    """The pieces of a recording that comes in blocks (n,) float32, of which few are held."""
    source, ended = iter(blocks), False
    sound, start, windows = np.zeros(0, np.float32), 0, 0
    before = np.zeros(0)
    while True:
        parts, held = [sound], len(sound)
        while held < MOST * FRAME and not ended:
            block = next(source, None)
            ended = block is None
            parts += [] if ended else [block]
            held += len(parts[-1]) if not ended else 0
        sound = np.concatenate(parts)
        level = levels(sound[: MOST * FRAME])
        if not len(level):
            return
        speech = is_speech(level, before)
        if windows:
            speech[: 2 * OVERLAP] = True
        whole = ended and held < (len(level) + 1) * FRAME
        begin, end, following = _cut(speech, whole, bool(windows))
        goes_on = end > following
        if end > begin:
            first, last = begin * FRAME, held if whole and end == len(level) else end * FRAME
            yield Piece(
                sound[first:last].copy(),
                start + first,
                OVERLAP * FRAME if windows else 0,
                last - first - OVERLAP * FRAME * goes_on,
                windows % WINDOWS > 0,
            )
            if last == held:
                return
        windows = windows + 1 if goes_on else 0
        before = np.concatenate([before, level[:following]])[-USUAL:]
        sound, start = sound[following * FRAME :], start + following * FRAME


def _cut(speech: np.ndarray, ended: bool, in_speech: bool) -> _Cut:
    """Where to cut what comes next; `in_speech` if it begins in the midst of speech."""
    count = len(speech)
    if not speech.any():
        following = count if ended else max(1, count - MARGIN)
        return _Cut(0, 0, following)
    begin = int(speech.argmax())
    if begin >= LONG_PAUSE:
        # More is read before the end is looked for.
        return _Cut(0, 0, begin - MARGIN)
    edges = np.flatnonzero(np.diff(speech.astype(np.int8), prepend=1, append=1))
    starts, ends = edges[::2], edges[1::2]
    lengths, middles = ends - starts, (starts + ends) // 2
    inner = (starts > begin) & (lengths >= PAUSE)
    long = np.flatnonzero(inner & (lengths >= LONG_PAUSE) & (starts <= USUAL))
    if len(long):
        end = int(min(middles[long[0]], starts[long[0]] + MARGIN))
        return _Cut(0, end, end)
    if ended and count <= USUAL:
        return _Cut(0, count, count)
    least = LEAST + 2 * OVERLAP * in_speech
    usual = np.flatnonzero(inner & (middles >= least) & (middles <= USUAL))
    if len(usual):
        end = int(middles[usual[lengths[usual].argmax()]])
        return _Cut(0, end, end)
    later = np.flatnonzero(inner & (middles > USUAL))
    if len(later):
        end = int(middles[later[0]])
        return _Cut(0, end, end)
    if ended:
        return _Cut(0, count, count)
    return _Cut(0, count, count - 2 * OVERLAP)
