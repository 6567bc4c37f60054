"""A recording's blocks of sound to segments of text, some pieces at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from deepspeech2.corpus.audio import SAMPLE_RATE
from deepspeech2.features import spectrogram
from deepspeech2.scoring import times
from deepspeech2.scoring.decoders import Decoder
from deepspeech2.scoring.times import Span
from deepspeech2.transcribe.engine import Network
from deepspeech2.transcribe.segments import Piece, pieces

# Pieces that wait until they are computed, which sorts them by length: so many, or so long (s).
WAITING, WAITING_SECONDS = 32, 150


class Segment(NamedTuple):
    """What was said between two pauses: start and end (s), text, and its words."""

    start: float
    end: float
    text: str
    words: list[Span]


class _Prepared(NamedTuple):
    """A piece whose features (bins, T) are computed, and its number of samples."""

    piece: Piece
    count: int
    features: np.ndarray


def segments(
    blocks: Iterable[np.ndarray], network: Network, decoder: Decoder
) -> Iterator[tuple[float, Segment | None]]:
    """How much of a recording (s) is done, and a segment of it, or None where nothing was said.

    The recording comes in blocks (n,) float32 at 16 kHz. While some of its pieces are computed, the
    next are read in a thread.
    """
    frame = times.seconds_per_frame(network.spectrogram.window_stride)
    joined: list[np.ndarray] = []
    start, end = 0.0, 0.0
    for prepared, posteriors in _computed(blocks, network):
        piece, count, _ = prepared
        if not piece.joined:
            if joined:
                yield end, _segment(joined, decoder, start, end, frame)
            joined, start = [], (piece.start + piece.first) / SAMPLE_RATE
        first = round(piece.first / SAMPLE_RATE / frame)
        last = None if piece.last == count else round(piece.last / SAMPLE_RATE / frame)
        joined.append(posteriors[first:last])
        end = (piece.start + piece.last) / SAMPLE_RATE
    if joined:
        yield end, _segment(joined, decoder, start, end, frame)


def _computed(
    blocks: Iterable[np.ndarray], network: Network
) -> Iterator[tuple[_Prepared, np.ndarray]]:
    """Each piece with its posteriors (T', classes), in order."""
    source = _waiting(pieces(blocks), network.spectrogram)
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(next, source, None)
        while (some := ahead.result()) is not None:
            ahead = thread.submit(next, source, None)
            found = network.posteriors([prepared.features for prepared in some])
            yield from zip(some, found)


def _waiting(
    source: Iterable[Piece], settings: spectrogram.Spectrogram
) -> Iterator[list[_Prepared]]:
    some: list[_Prepared] = []
    seconds = 0.0
    for piece in source:
        count = len(piece.samples)
        if count <= settings.n_fft // 2 or np.ptp(piece.samples) == 0:
            continue
        features = spectrogram.compute(piece.samples, settings)
        some.append(_Prepared(piece._replace(samples=piece.samples[:0]), count, features))
        seconds += count / SAMPLE_RATE
        if len(some) == WAITING or seconds > WAITING_SECONDS:
            yield some
            some, seconds = [], 0.0
    if some:
        yield some


def _segment(
    joined: list[np.ndarray], decoder: Decoder, start: float, end: float, frame: float
) -> Segment | None:
    decoded = decoder(np.concatenate(joined))
    words = [
        word._replace(start=round(start + word.start, 3), end=round(start + word.end, 3))
        for word in times.words(decoded, frame, end - start)
    ]
    text = " ".join(word.text for word in words)
    return Segment(round(start, 3), round(end, 3), text, words) if words else None
