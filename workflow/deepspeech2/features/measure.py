"""The first look at an utterance: its files, its transcript and its length, checked."""

from __future__ import annotations

from typing import NamedTuple

from deepspeech2.cli import UserError
from deepspeech2.corpus import audio, labels
from deepspeech2.corpus.utterance import Utterance
from deepspeech2.features.spectrogram import Spectrogram


class Settings(NamedTuple):
    """Labels, spectrogram, and what of a transcript is not refused.

    Characters outside the labels are dropped with `drop_unknown`, empty texts kept with
    `keep_empty`.
    """

    labels: list[str]
    spectrogram: Spectrogram
    drop_unknown: bool
    keep_empty: bool = False


class Measured(NamedTuple):
    """An utterance with its place in the manifest, length, targets (label ids), notes and dropped
    characters.
    """

    utterance: Utterance
    manifest_position: int
    frames: int
    seconds: float
    targets: list[int]
    notes: list[str]
    dropped: list[str]


def measure(job) -> Measured:
    """Check one utterance's files and transcript, and measure them.

    `job` is its position in the manifest, its Sample and Settings.
    """
    position, sample, settings = job
    utterance = sample.read(settings.keep_empty)
    where = str(sample.transcript)
    targets, dropped = labels.encode(utterance.text, settings.labels, settings.drop_unknown, where)
    if utterance.text and not "".join(settings.labels[t] for t in targets).strip():
        raise UserError(f"{where}: no character of the transcript is one of the labels")
    count, notes = audio.length(utterance.audio)
    needed = settings.spectrogram.n_fft // 2 + 1  # to reflect half a window at the ends
    if count < needed:
        raise UserError(
            f"{utterance.audio}: too short ({count} samples; the model's spectrogram needs "
            f"{needed}); remove the utterance"
        )
    frames = settings.spectrogram.frames(count)
    seconds = count / audio.SAMPLE_RATE
    return Measured(utterance, position, frames, seconds, targets, notes, dropped)
