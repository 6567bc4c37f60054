"""The spectrogram that is the network's input, as deepspeech.pytorch V3.0 computes it."""

from __future__ import annotations

import numpy as np

from deepspeech2.architecture import Spectrogram


def compute(samples: np.ndarray, settings: Spectrogram) -> np.ndarray:
    """Features (bins, frames) float32 of samples (n,) float32.

    Log magnitude, then zero mean and unit standard deviation (unbiased) over the utterance. The
    padding is named because librosa changed its default from "reflect", which the reference
    used, to "constant" in 0.10. (From then on librosa also reflects the very last sample
    wrongly where the samples fill whole hops, which moves that last frame by about 1e-4.)
    """
    import librosa  # takes two seconds to import

    spectrum = librosa.stft(
        samples,
        n_fft=settings.n_fft,
        hop_length=settings.hop,
        win_length=settings.n_fft,
        window=settings.window,
        center=True,
        pad_mode="reflect",
    )
    features = np.log1p(np.abs(spectrum)).astype(np.float32, copy=False)
    features -= np.float32(features.mean(dtype=np.float64))
    features /= np.float32(features.std(ddof=1, dtype=np.float64))
    return features
