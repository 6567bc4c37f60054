"""The best label of each frame."""

from __future__ import annotations

import numpy as np

from deepspeech2.corpus.labels import BLANK
from deepspeech2.scoring import decoders


class Decoder(decoders.Decoder):
    """The best label of each frame, repeats merged, blanks dropped."""

    def path(self, posteriors: np.ndarray) -> np.ndarray:
        return posteriors.argmax(axis=1)

    def batch(self, probabilities: np.ndarray, lengths: np.ndarray) -> list[str]:
        """Texts of probabilities (B, T', classes), of which `lengths` (B,) frames count."""
        best = probabilities.argmax(axis=2)
        keep = best != BLANK
        keep[:, 1:] &= best[:, 1:] != best[:, :-1]
        keep &= np.arange(best.shape[1]) < np.asarray(lengths)[:, None]
        text = "".join(self.labels[best[keep]].tolist())
        ends = keep.sum(axis=1).cumsum().tolist()
        return [text[start:end] for start, end in zip([0, *ends], ends)]
