"""The spectrogram that is the network's input, as deepspeech.pytorch V3.0 computes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WINDOWS = ("hamming", "hann", "blackman", "bartlett")


class Spectrogram(NamedTuple):
    """Settings of the spectrogram, from the checkpoint: Hz, seconds, seconds, window's name."""

    sample_rate: int = 16000
    window_size: float = 0.02
    window_stride: float = 0.01
    window: str = "hamming"

    @property
    def n_fft(self) -> int:
        """Samples in a window (320)."""
        return int(self.sample_rate * self.window_size)

    @property
    def hop(self) -> int:
        """Samples between windows (160)."""
        return int(self.sample_rate * self.window_stride)

    @property
    def bins(self) -> int:
        """Frequency bins (161)."""
        return self.n_fft // 2 + 1

    def frames(self, samples: int) -> int:
        """Frames of an utterance of so many samples."""
        return 1 + samples // self.hop

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Features (bins, frames) float32 of samples (n,) float32.

        Log magnitude, then zero mean and unit standard deviation (unbiased) over the utterance. The
        padding is named because librosa changed its default from "reflect", which the reference
        used, to "constant" in 0.10.
        """
        import librosa  # takes two seconds to import

        spectrum = librosa.stft(
            samples,
            n_fft=self.n_fft,
            hop_length=self.hop,
            win_length=self.n_fft,
            window=self.window,
            center=True,
            pad_mode="reflect",
        )
        features = np.log1p(np.abs(spectrum)).astype(np.float32, copy=False)
        features -= np.float32(features.mean(dtype=np.float64))
        features /= np.float32(features.std(ddof=1, dtype=np.float64))
        return features
