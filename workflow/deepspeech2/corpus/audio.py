"""Audio files to 16 kHz mono samples, and the refusal of what is not a usable recording.

Any rate, channel count and format that libsndfile reads is accepted: channels are averaged and
other rates resampled with soxr. What is already 16 kHz, mono and 16 bit keeps its exact samples.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from deepspeech2.cli import UserError

SAMPLE_RATE = 16000  # Hz
MIN_SAMPLES = 161  # the spectrogram's reflection padding needs one more than half a window
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".sph", ".w64")
MAX_SECONDS = 3600
MAX_VALUES = 1 << 29  # samples of all channels; 2 GiB as float32
RATES = (1_000, 768_000)  # Hz
CHUNK_LENGTH = r"^\s*(?:RIFF|RIFX|RF64|riff|data|FORM|SSND)\s*:\s*(\d+) \(should be (\d+)\)"
PLAIN = ("WAV", "PCM_16", SAMPLE_RATE, 1)  # of whose samples `read` changes nothing
UNKNOWN_LENGTH = 0x7FFFFF00  # a chunk this long was written by a streaming encoder, not cut


class Audio(NamedTuple):
    """`samples` (n,) int16 or float32 at 16 kHz; `notes` say what had to be converted."""

    samples: np.ndarray
    notes: list[str]


def read(path: str | Path) -> Audio:
    """Read one recording. Raises `UserError` naming the file for everything that is not speech."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate, channels = file.samplerate, file.channels
            dtype = "int16" if file.subtype in ("PCM_16", "PCM_S8", "PCM_U8") else "float32"
            declared = file.frames
            if not RATES[0] <= rate <= RATES[1]:
                raise UserError(f"{path}: a sample rate of {rate} Hz; replace the file")
            if declared > MAX_SECONDS * rate or declared * channels > MAX_VALUES:
                raise UserError(
                    f"{path}: longer than {MAX_SECONDS} s by its header; split or replace the file"
                )
            samples = file.read(dtype=dtype, always_2d=True)
            cut = len(samples) < declared or _is_cut(file.extra_info)
    except FileNotFoundError:
        raise UserError(f"{path}: no such audio file") from None
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if not Path(path).exists():
            raise UserError(f"{path}: no such audio file") from None
        reason = str(error).split(": ", 1)[-1].rstrip(".")
        raise UserError(f"{path}: not readable as audio ({reason}); replace the file") from None
    if cut:
        raise UserError(f"{path}: cut short (the header promises more audio); replace the file")

    notes = []
    if len(samples) and channels > 1:
        notes.append(f"{channels} channels averaged")
        samples = to_float(samples).mean(axis=1, dtype=np.float32)
    else:
        samples = samples[:, 0] if len(samples) else np.zeros(0, np.int16)
    check(samples, path)
    if rate != SAMPLE_RATE:
        import librosa  # slow to import, and most corpora never need it

        notes.append(f"resampled from {rate} Hz")
        samples = librosa.resample(
            to_float(samples), orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq"
        )
    if len(samples) < MIN_SAMPLES:
        seconds = len(samples) / SAMPLE_RATE
        raise UserError(
            f"{path}: too short ({seconds:.4f} s; the spectrogram needs {MIN_SAMPLES} samples, "
            "0.0101 s); remove the utterance"
        )
    return Audio(samples, notes)


def read_segments(
    path: str | Path, segments: Sequence[tuple[float, float | None, int | None]]
) -> Iterator[Audio]:
    """The segments (start, end, channel) of a recording, in their order, decoded once.

    Times are in seconds; an end of None is the recording's, a channel of None the mean of all.
    """
    if list(segments) == [(0.0, None, None)]:
        yield read(path)
        return
    raise NotImplementedError  # issue 19, audio


def length(path: str | Path) -> tuple[int, list[str]]:
    """How many samples `read` gives, and its notes.

    Where a plain file's header says it, only that is read, and what comes after it not checked.
    """
    with contextlib.suppress(RuntimeError), soundfile.SoundFile(str(path)) as file:
        plain = (file.format, file.subtype, file.samplerate, file.channels) == PLAIN
        usual = MIN_SAMPLES <= file.frames <= MAX_SECONDS * SAMPLE_RATE
        if plain and usual and not _is_cut(file.extra_info):
            return file.frames, []
    samples, notes = read(path)
    return len(samples), notes


def check(samples: np.ndarray, where: str | Path) -> None:
    """Refuse samples that hold no sound: none at all, not finite, silent or constant."""
    if not len(samples):
        raise UserError(f"{where}: holds no audio samples; remove the utterance")
    if samples.dtype != np.int16 and not np.isfinite(samples).all():
        raise UserError(f"{where}: holds samples that are NaN or infinite; replace the file")
    low, high = samples.min(), samples.max()
    if low == high:
        kind = "digital silence" if low == 0 else "a constant signal"
        raise UserError(f"{where}: holds only {kind}; remove the utterance")


def to_float(samples: np.ndarray) -> np.ndarray:
    """Samples as float32: int16 divided by 32768, which gives [-1, 1); float as it is."""
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    return samples.astype(np.float32, copy=False)


def _is_cut(extra_info: str) -> bool:
    """Whether libsndfile had to correct a chunk length downwards: `data : 9 (should be 5)`."""
    for declared, actual in re.findall(CHUNK_LENGTH, extra_info, re.M):
        if int(actual) < int(declared) < UNKNOWN_LENGTH:
            return True
    return False
