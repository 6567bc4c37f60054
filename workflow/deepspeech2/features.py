"""Reads features: a folder of `.bin` files in ModelZoo's layout, and batches made from it.

The folder has `spect/data{i}.bin` (float32, C order, (bins, frames of the longest), zeros on the
right), `sizes/data{i}.bin` (int32, frames) and `sizes/{sizes,targets,target_sizes}.txt`. i counts
from 1 in order of descending length, ties by id. An index beside it says what each file is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np

from deepspeech2.files import read_json, require_unaltered, sha256

# How wide a batch is: "longest" is the set's longest utterance, as in the reference, "batch" is
# its own longest, and numbers (buckets) are frames: the least that holds its longest, or else the
# set's longest.
Padding = Union[str, Sequence[int]]


class FeatureSet:
    """Reads a folder of features through its index, one utterance at a time.

    `utterances` are dicts with id, frames, seconds and reference, in the folder's order. Every
    spectrogram is compared with its recorded SHA-256 when it is first read.
    """

    def __init__(self, folder: str | Path, index: str | Path):
        self.folder, self.index = Path(folder), Path(index)
        data = read_json(index)
        self.bins: int = data["bins"]
        self.frames_max: int = data["frames_max"]
        self.utterances: list[dict] = data["utterances"]
        self.index_sha256 = sha256(index)
        self._verified = set()

    def __len__(self) -> int:
        return len(self.utterances)

    def verify(self) -> None:
        """Compare every spectrogram with its hash now, so that no later reading has to."""
        for position in range(len(self)):
            self.load(position)

    def load(self, position: int) -> np.ndarray:
        """Features (bins, frames_max) float32 of the utterance at `position`, counted from 0."""
        path = self.folder / "spect" / f"data{position + 1}.bin"
        if position not in self._verified:
            require_unaltered(path, self.utterances[position]["spect_sha256"], self.index)
            self._verified.add(position)
        return np.fromfile(path, np.float32).reshape(self.bins, self.frames_max)


def fill_up_rows(count: int, batch_size: int, padding: Padding) -> int:
    """Copies of the last utterance that complete the last batch of `count` utterances.

    None where every batch has its own width: what takes any width takes any number of rows.
    """
    return 0 if padding == "batch" else -count % batch_size


def padding_shares(features: FeatureSet, batch_size: int) -> dict[str, float]:
    """Share of a pass's input frames that are padding or fill-up rows, by kind of padding."""
    frames = [utterance["frames"] for utterance in features.utterances]
    parts = [frames[start : start + batch_size] for start in range(0, len(frames), batch_size)]
    shares = {}
    for padding in ("longest", "batch"):
        total = sum(
            width(features, max(part), padding)
            * (len(part) + fill_up_rows(len(part), batch_size, padding))
            for part in parts
        )
        shares[padding] = 1 - sum(frames) / total
    return shares


class Batch(NamedTuple):
    """Input of one forward pass.

    `positions` of its utterances in the set; `spectrograms` (B, 1, bins, T) float32; `lengths`
    (B,) int32 frames. Rows past `len(positions)` are `fill_up_rows`.
    """

    positions: list[int]
    spectrograms: np.ndarray
    lengths: np.ndarray


def width(features: FeatureSet, longest: int, padding: Padding) -> int:
    """Frames that a batch is padded to whose longest utterance has `longest`."""
    if padding == "batch":
        return longest
    buckets = [] if padding == "longest" else padding
    return min([b for b in buckets if b >= longest] + [features.frames_max])


def widths(features: FeatureSet, batch_size: int, padding: Padding) -> list[int]:
    """The different widths of the set's batches, ascending."""
    frames = [utterance["frames"] for utterance in features.utterances]
    starts = range(0, len(frames), batch_size)
    longest = {max(frames[start : start + batch_size]) for start in starts}
    return sorted({width(features, one, padding) for one in longest})


def warm_up(
    features: FeatureSet, starts: Sequence[int], batch_size: int, padding: Padding, count: int
) -> list[int]:
    """Positions of `count` batches to begin with, in the order of `starts`, and again if need be.

    With buckets it is so many of each width: each has a compiled file of its own.
    """
    if isinstance(padding, str):
        return [starts[n % len(starts)] for n in range(count)]
    of_width: dict[int, list[int]] = {}
    for start in starts:
        frames = [u["frames"] for u in features.utterances[start : start + batch_size]]
        of_width.setdefault(width(features, max(frames), padding), []).append(start)
    return [found[n % len(found)] for found in of_width.values() for n in range(count)]


def assemble(features: FeatureSet, start: int, batch_size: int, padding: Padding) -> Batch:
    """The batch of `batch_size` rows that starts at position `start`, as wide as `width`.

    One that the set cannot fill has `fill_up_rows`.
    """
    positions = list(range(start, min(start + batch_size, len(features))))
    rows = positions + positions[-1:] * fill_up_rows(len(positions), batch_size, padding)
    lengths = np.array([features.utterances[i]["frames"] for i in rows], np.int32)
    frames = width(features, int(lengths.max()), padding)
    spectrograms = np.empty((len(rows), 1, features.bins, frames), np.float32)
    for row, position in enumerate(positions):
        spectrograms[row, 0] = features.load(position)[:, :frames]
    spectrograms[len(positions) :] = spectrograms[len(positions) - 1]
    return Batch(positions, spectrograms, lengths)


def batches(features: FeatureSet, batch_size: int, padding: Padding) -> Iterator[Batch]:
    """The batches of one pass, in the set's order, with one assembled ahead in a thread.

    What goes wrong in the thread is raised here, where its batch is due.
    """
    upcoming = None
    with ThreadPoolExecutor(1) as pool:
        for start in range(0, len(features), batch_size):
            following = pool.submit(assemble, features, start, batch_size, padding)
            if upcoming:
                yield upcoming.result()
            upcoming = following
        if upcoming:
            yield upcoming.result()
