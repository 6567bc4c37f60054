"""The spectrogram that is the network's input, as deepspeech.pytorch V3.0 computes it."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

BLOCK = 128  # frames at a time, so that what is computed in float64 stays in the cache
# Coefficients of the windows that are sums of cosines. The other one is a triangle (bartlett).
COSINES = {"hamming": (0.54, 1 - 0.54), "hann": (0.5, 0.5), "blackman": (0.42, 0.5, 0.08)}


PERIODIC = (*COSINES, "bartlett")
SYMMETRIC = "_symmetric"  # the windows of deepspeech.pytorch V1 and V2, which end as they begin
WINDOWS = (*PERIODIC, *(name + SYMMETRIC for name in PERIODIC))


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
        return 1 + (samples - self.n_fft % 2) // self.hop


def compute(samples: np.ndarray, settings: Spectrogram) -> np.ndarray:
    """Features (bins, frames) float32 of samples (n,) float32.

    Log magnitude, then zero mean and unit standard deviation (unbiased) over the utterance.
    """
    features = np.log1p(np.abs(stft(samples, settings)))
    features -= np.float32(features.mean(dtype=np.float64))
    features /= np.float32(features.std(ddof=1, dtype=np.float64))
    return features.T


def stft(samples: np.ndarray, settings: Spectrogram) -> np.ndarray:
    """What librosa.stft gives with `pad_mode="reflect"`, bit for bit: (frames, bins) complex64.

    librosa itself takes two seconds to import, and a quarter of a minute more where it has to
    compile its functions first; and this takes two thirds of its time.
    """
    half, hop = settings.n_fft // 2, settings.hop
    # librosa (from 0.10 on) reflects the end apart from the rest. Where the samples fill whole
    # hops that is one sample too short, and another one comes last: that frame moves by 1e-4.
    beyond = (len(samples) - half) // hop + 1  # the first frame that reaches beyond the samples
    start = beyond * hop - half
    end = samples[start:] if beyond > -(-half // hop) and start < len(samples) else samples
    period = max(1, 2 * len(end) - 2)
    places = np.arange(len(end), len(end) + half) % period
    tail = end[np.minimum(places, period - places) if len(end) > 1 else places]
    padded = np.concatenate([samples[half:0:-1], samples, tail], dtype=np.float64)
    # What sliding_window_view shows, in a fortieth of its time. numpy checks that it is inside.
    count = (len(padded) - settings.n_fft) // hop + 1
    frames = np.ndarray((count, settings.n_fft), padded.dtype, padded, strides=(hop * 8, 8))
    found = np.empty((count, settings.bins), np.complex64)
    for start in range(0, count, BLOCK):
        block = slice(start, start + BLOCK)
        found[block] = np.fft.rfft(frames[block] * window(settings.window, settings.n_fft))
    return found


@functools.cache
def window(name: str, size: int) -> np.ndarray:
    """The window of a name (one of WINDOWS), as scipy.signal.get_window computes it."""
    last = size - 1 if name.endswith(SYMMETRIC) else size
    name = name.replace(SYMMETRIC, "")
    if name == "bartlett":
        places = np.arange(size)
        return np.where(places <= last / 2, 2.0 * places / last, 2.0 - 2.0 * places / last)
    angles = np.linspace(-np.pi, np.pi, last + 1)[:size]
    # In this order, or the last bits are others.
    return functools.reduce(
        np.add, [a * np.cos(k * angles) for k, a in enumerate(COSINES[name])], np.zeros(size)
    )
