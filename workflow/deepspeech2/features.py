"""Reads features: a folder of `.bin` files in ModelZoo's layout, and batches made from it.

The folder has `spect/data{i}.bin` (float32, C order, (bins, frames of the longest), zeros on the
right), `sizes/data{i}.bin` (int32, frames) and `sizes/{sizes,targets,target_sizes}.txt`. i counts
from 1 in order of descending length, ties by id. An index beside it says what each file is.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepspeech2.files import read_json, require_unaltered, sha256


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


def padding_shares(features: FeatureSet, batch_size: int) -> dict[str, float]:
    """Share of a pass's input frames that are padding or fill-up rows, by kind of padding."""
    frames = [utterance["frames"] for utterance in features.utterances]
    starts = range(0, len(frames), batch_size)
    widths = {
        "longest": [features.frames_max] * len(starts),
        "batch": [max(frames[start : start + batch_size]) for start in starts],
    }
    return {
        padding: 1 - sum(frames) / (batch_size * sum(of_batches))
        for padding, of_batches in widths.items()
    }


class Batch(NamedTuple):
    """Input of one forward pass.

    `positions` of its utterances in the set; `spectrograms` (B, 1, bins, T) float32; `lengths`
    (B,) int32 frames. Rows past `len(positions)` are copies that fill the batch up.
    """

    positions: list[int]
    spectrograms: np.ndarray
    lengths: np.ndarray


def assemble(features: FeatureSet, start: int, batch_size: int, padding: str) -> Batch:
    """The batch that starts at position `start`, always of `batch_size` rows.

    `padding` is "longest" (T is the longest of the set, as in the reference) or "batch" (T is the
    longest of this batch). A batch that the set cannot fill is filled up with its last utterance.
    """
    positions = list(range(start, min(start + batch_size, len(features))))
    rows = positions + [positions[-1]] * (batch_size - len(positions))
    lengths = np.array([features.utterances[i]["frames"] for i in rows], np.int32)
    width = features.frames_max if padding == "longest" else int(lengths.max())
    spectrograms = np.empty((batch_size, 1, features.bins, width), np.float32)
    for row, position in enumerate(positions):
        spectrograms[row, 0] = features.load(position)[:, :width]
    spectrograms[len(positions) :] = spectrograms[len(positions) - 1]
    return Batch(positions, spectrograms, lengths)
