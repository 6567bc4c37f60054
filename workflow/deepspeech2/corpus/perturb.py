"""Recordings made worse, to see what noise, rooms, tempo and telephones cost.

In this order: speed (which moves the pitch, too), reverberation by a synthetic room, noise, and the
band of a telephone. Every draw is a function of the seed and the utterance's id, so that an
utterance is the same whatever else is in its corpus.
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
from scipy import signal

from deepspeech2.corpus.audio import SAMPLE_RATE

NOISES = ("white", "pink")
TELEPHONE_RATE, TELEPHONE_BAND = 8000, (300, 3400)  # Hz
DECAY = math.log(1000)  # of the amplitude within the reverberation time: 60 dB
DIRECT = 0.0025  # seconds: reflections that come sooner belong to the sound itself


class Perturbation(NamedTuple):
    """What is done to recordings; None and 1 do nothing.

    `snr` is dB of the whole utterance's mean power above the noise's; `reverberation` seconds in
    which the room's sound falls by 60 dB; `speed` a factor.
    """

    snr: float | None = None
    noise: str = "pink"
    reverberation: float | None = None
    speed: float = 1.0
    telephone: bool = False
    seed: int = 0

    def words(self) -> str:
        """What is done, in words."""
        parts = [
            f"speed {self.speed:g}" if self.speed != 1 else "",
            f"reverberation {self.reverberation:g} s" if self.reverberation else "",
            f"{self.noise} noise at {self.snr:g} dB" if self.snr is not None else "",
            "telephone band" if self.telephone else "",
        ]
        return f"made worse: {', '.join(filter(None, parts)) or 'nothing'}, seed {self.seed}"


def perturbed(samples: np.ndarray, name: str, settings: Perturbation) -> np.ndarray:
    """Samples (n,) of an utterance by its id, as float32 (about n / speed,) at 16 kHz.

    They may be larger than 1: the level of the speech stays as it is.
    """
    digest = hashlib.sha256(name.encode()).digest()[:8]
    rng = np.random.default_rng([settings.seed, int.from_bytes(digest, "little")])
    found = samples.astype(np.float64)
    if samples.dtype == np.int16:
        found /= 32768
    if settings.speed != 1:
        ratio = _ratio(settings.speed)
        found = signal.resample_poly(found, ratio[1], ratio[0])
    if settings.reverberation:
        found = _in_a_room(found, settings.reverberation, rng)
    if settings.snr is not None:
        noise = _noise(len(found), settings.noise, rng)
        wanted = np.sqrt(np.mean(found**2)) / 10 ** (settings.snr / 20)
        found = found + noise * (wanted / np.sqrt(np.mean(noise**2)))
    if settings.telephone:
        down = SAMPLE_RATE // TELEPHONE_RATE
        narrow = signal.resample_poly(found, 1, down)
        band = signal.butter(4, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")
        found = signal.resample_poly(signal.sosfilt(band, narrow), down, 1)[: len(found)]
    return found.astype(np.float32)


def _ratio(speed: float) -> tuple[int, int]:
    """A factor as a fraction of small whole numbers; to a thousandth."""
    whole = round(1000 * speed)
    common = math.gcd(whole, 1000)
    return whole // common, 1000 // common


def _noise(count: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Noise (n,): white, or pink, whose power falls with the frequency."""
    white = rng.standard_normal(count)
    if kind == "white" or count < 2:
        return white
    spectrum = np.fft.rfft(white)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    return np.fft.irfft(spectrum, count)


def _in_a_room(samples: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Samples with the sound of a room, at the power that they had; as long as before.

    The room is noise that decays exponentially, behind the direct sound and as strong as that.
    """
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(times)) * np.exp(-DECAY * times / seconds)
    tail[times < DIRECT] = 0
    power = np.sum(tail**2)
    response = np.concatenate([[1.0], (tail / np.sqrt(power) if power else tail)[1:]])
    found = signal.fftconvolve(samples, response)[: len(samples)]
    before, after = (np.sqrt(np.mean(part**2)) for part in (samples, found))
    return found * (before / after) if after else found
