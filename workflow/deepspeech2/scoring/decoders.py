"""How posteriors become text. A decoder is one class and a line in DECODERS."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from deepspeech2.corpus.labels import BLANK


class Decoder(abc.ABC):
    """Turns posteriors into texts of `labels` (single characters, the blank first)."""

    def __init__(self, labels: Sequence[str]):
        self.labels = np.array(labels)

    @abc.abstractmethod
    def batch(self, probabilities: np.ndarray, lengths: np.ndarray) -> list[str]:
        """Texts of probabilities (B, T', classes), of which `lengths` (B,) frames count."""

    def __call__(self, posteriors: np.ndarray) -> str:
        """The text of posteriors (T', classes)."""
        return self.batch(posteriors[None], np.array([len(posteriors)]))[0]


class Greedy(Decoder):
    """The best label of each frame, repeats merged, blanks dropped."""

    def batch(self, probabilities: np.ndarray, lengths: np.ndarray) -> list[str]:
        best = probabilities.argmax(axis=2)
        keep = best != BLANK
        keep[:, 1:] &= best[:, 1:] != best[:, :-1]
        keep &= np.arange(best.shape[1]) < np.asarray(lengths)[:, None]
        text = "".join(self.labels[best[keep]].tolist())
        ends = keep.sum(axis=1).cumsum().tolist()
        return [text[start:end] for start, end in zip([0, *ends], ends)]


DECODERS: dict[str, type[Decoder]] = {"greedy": Greedy}
