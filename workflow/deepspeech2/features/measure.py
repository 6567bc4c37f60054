"""The first look at utterances: files, transcripts and lengths, checked; the index of them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Executor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from deepspeech2 import cli, files
from deepspeech2.cli import UserError, log
from deepspeech2.corpus import audio, labels
from deepspeech2.corpus import manifest as manifests
from deepspeech2.corpus.utterance import Utterance
from deepspeech2.features.spectrogram import Spectrogram

LIBRARIES = ("numpy", "scipy", "soundfile", "soxr")  # that take part
CHUNK = 32  # utterances that a process gets at a time


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


def read_settings(
    model: Path, dataset_labels: Path, unknown_characters: str, empty_references: str
) -> Settings:
    """Settings of a model; the dataset's labels must be the model's."""
    description = files.read_sealed(model)
    alphabet = labels.check(description["labels"], model)
    expected = labels.read(dataset_labels)
    if alphabet != expected:
        raise UserError(
            f"{model}: the model's labels {''.join(alphabet)!r} are not the dataset's "
            f"{''.join(expected)!r}; set `labels` of the dataset to a file with the model's"
        )
    spectrogram_settings = Spectrogram(**description["spectrogram"])
    return Settings(
        alphabet, spectrogram_settings, unknown_characters == "drop", empty_references == "score"
    )


Jobs = list[tuple[int, manifests.Sample, Settings]]  # positions in the manifest first


def jobs_of(manifest: Path, settings: Settings) -> Jobs:
    """What of a manifest is to be measured."""
    samples = manifests.read(manifest)
    if not samples:
        raise UserError(f"{manifest}: lists no utterances")
    [(name, count)] = Counter(sample.utterance.id for sample in samples).most_common(1)
    if count > 1:
        raise UserError(f"{manifest}: two utterances have the id {name!r}; rename one")
    return [(number, sample, settings) for number, sample in enumerate(samples)]


def measure_all(jobs: Jobs, pool: Executor, chunk: int) -> list[Measured]:
    """Utterances, inspected, the longest first. Raises `UserError` for the first bad one."""
    # Chunks come back in order: an error names the first bad utterance, whatever their size.
    found = cli.progress(
        pool.map(measure, jobs, chunksize=chunk), len(jobs), "inspect", "utterance"
    )
    measured = sorted(found, key=lambda m: (-m.frames, m.utterance.id))
    for m in measured:
        for note in m.notes:
            log.info("%s: %s", m.utterance.audio, note)
    return measured


def index_of(manifest: Path, settings: Settings, measured: list[Measured]) -> dict:
    """The index of features, without what is known only of their files."""
    return {
        "manifest": manifest.name,
        "manifest_sha256": files.sha256(manifest),
        "labels": settings.labels,
        "spectrogram": settings.spectrogram._asdict(),
        "bins": settings.spectrogram.bins,
        "frames_max": measured[0].frames,
        "dropped": dropped_from(measured),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
        "utterances": [
            {
                "id": m.utterance.id,
                "speaker": m.utterance.speaker,
                "manifest_position": m.manifest_position,
                "frames": m.frames,
                "seconds": m.seconds,
                "reference": "".join(settings.labels[t] for t in m.targets),
            }
            for m in measured
        ],
    }


def dropped_from(measured: list) -> dict[str, list[int]]:
    """Characters that were dropped: how many, and from how many utterances."""
    times = Counter(character for m in measured for character in m.dropped)
    utterances = Counter(character for m in measured for character in set(m.dropped))
    return {character: [count, utterances[character]] for character, count in times.most_common()}
