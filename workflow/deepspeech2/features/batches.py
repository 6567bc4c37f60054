"""Reads features, a folder of `.bin` files in ModelZoo's layout, and makes batches of them.

The folder has `spect/data{i}.bin` (float32, C order, (bins, frames of the longest), zeros on the
right), `sizes/data{i}.bin` (int32, frames), `sizes/sizes.txt`, `targets.txt`, `target_sizes.txt`. i
counts from 1 in order of descending length, ties by id. An index beside it says what each file is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np

from deepspeech2.files import read_sealed, require_unaltered, sha256

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
        self.description: dict = read_sealed(index)
        self.bins: int = self.description["bins"]
        self.frames_max: int = self.description["frames_max"]
        self.utterances: list[dict] = self.description["utterances"]
        self.index_sha256 = sha256(index)
        self._numbers: Sequence[int] = range(1, len(self.utterances) + 1)
        self._verified = set()

    def part(self, positions: Sequence[int]) -> FeatureSet:
        """The utterances at some ascending positions, as a set padded to the longest of them."""
        found = copy.copy(self)
        found.utterances = [self.utterances[position] for position in positions]
        found.frames_max = max(utterance["frames"] for utterance in found.utterances)
        found._numbers = [self._numbers[position] for position in positions]
        found._verified = set()
        return found

    def __len__(self) -> int:
        return len(self.utterances)

    def verify(self) -> None:
        """Compare every spectrogram with its hash now, so that no later reading has to."""
        for position in range(len(self)):
            self.load(position)

    def load(self, position: int) -> np.ndarray:
        """Features (bins, frames_max) float32 of the utterance at `position`, counted from 0."""
        path = self.folder / "spect" / f"data{self._numbers[position]}.bin"
        if position not in self._verified:
            require_unaltered(path, self.utterances[position]["spect_sha256"], self.index)
            self._verified.add(position)
        return np.fromfile(path, np.float32).reshape(self.bins, -1)[:, : self.frames_max]


class Batch(NamedTuple):
    """Input of one forward pass.

    `positions` of its utterances in the set; `spectrograms` (B, 1, bins, T) float32; `lengths`
    (B,) int32 frames. Rows past `len(positions)` are copies that fill the batch up.
    """

    positions: list[int]
    spectrograms: np.ndarray
    lengths: np.ndarray


class Batches:
    """A set of features as batches of `batch_size` rows in the set's order, padded by `padding`."""

    def __init__(self, features: FeatureSet, batch_size: int, padding: Padding):
        self.features, self.batch_size, self.padding = features, batch_size, padding
        self.starts = range(0, len(features), batch_size)

    def __len__(self) -> int:
        return len(self.starts)

    def frames(self, start: int) -> list[int]:
        """Frames of each utterance of the batch that starts at position `start`."""
        return [u["frames"] for u in self.features.utterances[start : start + self.batch_size]]

    def width(self, start: int) -> int:
        """Frames that the batch at `start` is padded to."""
        return self.width_of(self.frames(start))

    def width_of(self, frames: Sequence[int]) -> int:
        """Frames that a batch of utterances of so many frames each is padded to."""
        longest = max(frames)
        if self.padding == "batch":
            return longest
        buckets = [] if self.padding == "longest" else self.padding
        return min([b for b in buckets if b >= longest] + [self.features.frames_max])

    def widths(self) -> list[int]:
        """The different widths of the batches, ascending."""
        return sorted({self.width(start) for start in self.starts})

    def fill_up_rows(self, count: int | None = None) -> int:
        """Copies of the last utterance that complete a last batch of `count` utterances.

        None where every batch has its own width: what takes any width takes any number of rows.
        """
        count = len(self.features) if count is None else count
        return 0 if self.padding == "batch" else -count % self.batch_size

    def padding_share(self) -> float:
        """Share of a pass's input frames that are padding or rows that fill a batch up."""
        frames = [self.frames(start) for start in self.starts]
        total = sum(
            self.width(start) * (len(part) + self.fill_up_rows(len(part)))
            for start, part in zip(self.starts, frames)
        )
        return 1 - sum(map(sum, frames)) / total

    def warm_up(self, starts: Sequence[int], count: int) -> list[int]:
        """Starts of `count` batches to begin with, in the order of `starts`, and again if need be.

        With buckets it is so many of each width: each has a compiled file of its own.
        """
        if isinstance(self.padding, str):
            return [starts[n % len(starts)] for n in range(count)]
        of_width: dict[int, list[int]] = {}
        for start in starts:
            of_width.setdefault(self.width(start), []).append(start)
        return [same[n % len(same)] for same in of_width.values() for n in range(count)]

    def assemble(self, start: int) -> Batch:
        """The batch that starts at position `start`; one that the set cannot fill is filled up."""
        return self.gather(range(start, min(start + self.batch_size, len(self.features))))

    def gather(self, positions: Iterable[int]) -> Batch:
        """The batch of some positions, ascending, at most `batch_size`: filled up likewise."""
        features, positions = self.features, list(positions)
        rows = positions + positions[-1:] * self.fill_up_rows(len(positions))
        lengths = np.fromiter((features.utterances[i]["frames"] for i in rows), np.int32)
        frames = self.width_of(lengths.tolist())
        spectrograms = np.empty((len(rows), 1, features.bins, frames), np.float32)
        for row, position in enumerate(positions):
            spectrograms[row, 0] = features.load(position)[:, :frames]
        spectrograms[len(positions) :] = spectrograms[len(positions) - 1]
        return Batch(positions, spectrograms, lengths)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one pass, with one assembled ahead in a thread.

        What goes wrong in the thread is raised here, where its batch is due.
        """
        upcoming = None
        with ThreadPoolExecutor(1) as pool:
            for start in self.starts:
                following = pool.submit(self.assemble, start)
                if upcoming:
                    yield upcoming.result()
                upcoming = following
            if upcoming:
                yield upcoming.result()
