"""Changes what a training utterance sounds like: its samples, then its spectrogram.

Samples: speed (which moves the pitch too), level and coloured noise. Spectrogram: the frequency
axis is stretched as by another vocal tract, and bands of frequencies and of time are masked
(SpecAugment, Park et al. 2019, without its time warp). Every draw comes from the generator given.
"""

from __future__ import annotations

from typing import NamedTuple

import librosa
import numpy as np
from scipy.signal import lfilter

from deepspeech2.corpus.audio import SAMPLE_RATE

MAX_COLOUR = 0.95  # pole of the filter that colours noise; 0 is white


class Augmentation(NamedTuple):
    """How far training utterances are changed. Zero, or 1 for speed, changes nothing.

    `speed` lowest and highest factor; `gain` dB to either side; `noise` share of the utterances
    that get noise, at `snr` lowest and highest dB; `vocal_tract` largest stretch of the frequency
    axis, a share; `frequency_masks` masks of at most `frequency_width` bins and `time_masks` of at
    most `time_width` frames.
    """

    speed: tuple[float, float] = (1.0, 1.0)
    gain: float = 0.0
    noise: float = 0.0
    snr: tuple[float, float] = (10.0, 40.0)
    vocal_tract: float = 0.0
    frequency_masks: int = 0
    frequency_width: int = 0
    time_masks: int = 0
    time_width: int = 0


def change_samples(
    samples: np.ndarray, speed: float, settings: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Samples (n,) float32 as (about n / speed,) float32, with level and noise drawn."""
    if speed != 1:
        samples = librosa.resample(
            samples, orig_sr=SAMPLE_RATE * speed, target_sr=SAMPLE_RATE, res_type="soxr_mq"
        )
    if rng.random() < settings.noise:
        noise = lfilter([1], [1, -rng.uniform(0, MAX_COLOUR)], rng.standard_normal(len(samples)))
        wanted = np.sqrt(np.mean(samples**2)) / 10 ** (rng.uniform(*settings.snr) / 20)
        samples = samples + noise * (wanted / np.sqrt(np.mean(noise**2)))
    if settings.gain:
        samples = samples * 10 ** (rng.uniform(-settings.gain, settings.gain) / 20)
    return samples.astype(np.float32, copy=False)


def change_spectrogram(
    spectrogram: np.ndarray, settings: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Spectrogram (bins, frames) float32, stretched and masked."""
    if settings.vocal_tract:
        spectrogram = stretch(
            spectrogram, 1 + rng.uniform(-settings.vocal_tract, settings.vocal_tract)
        )
    changed = spectrogram.copy()
    masks = (
        (changed, settings.frequency_masks, settings.frequency_width),
        (changed.T, settings.time_masks, settings.time_width),
    )
    for axis, count, width in masks:
        for _ in range(count):
            size = int(rng.integers(0, min(width, len(axis) // 4) + 1))
            start = int(rng.integers(0, len(axis) - size + 1))
            axis[start : start + size] = 0  # the mean
    return changed


def stretch(spectrogram: np.ndarray, factor: float) -> np.ndarray:
    """Move every frequency f to f * factor; the highest bin stands in for those above it."""
    bins = len(spectrogram)
    source = np.minimum(np.arange(bins, dtype=np.float32) / np.float32(factor), bins - 1)
    below = source.astype(int)
    above = np.minimum(below + 1, bins - 1)
    share = (source - below)[:, None]
    return spectrogram[below] * (1 - share) + spectrogram[above] * share
