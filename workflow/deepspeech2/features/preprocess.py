"""Make the features of a split: spectrograms as `.bin` files in ModelZoo's layout.

Reads a manifest (ours or any of deepspeech.pytorch's) and a model's settings (labels and
spectrogram), and writes a folder with `spect/data{i}.bin`, `sizes/`, `targets.txt` and
`target_sizes.txt`, longest utterance first, all padded to the longest, and an index of it.
Utterances stream through several processes, so that memory does not grow with their number.
"""

from __future__ import annotations

import shutil
from collections import Counter
from concurrent.futures import Executor
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np

from deepspeech2 import cli, files
from deepspeech2.cli import CORES, Cores, Input, Output, UserError, log
from deepspeech2.corpus import audio, labels
from deepspeech2.corpus import manifest as manifests
from deepspeech2.features import parts, spectrogram
from deepspeech2.features.measure import Measured, Settings, measure
from deepspeech2.features.spectrogram import Spectrogram

KEPT = 1 << 24  # bytes
LIBRARIES = ("numpy", "scipy", "soundfile", "soxr")  # that take part
CHUNK = 32  # utterances that a process gets at a time


def write_features(job) -> str:
    """Second pass: write one utterance's `.bin` files; returns the spectrogram's SHA-256."""
    path, number, frames_max, folder, settings = job
    features = spectrogram.compute(audio.to_float(audio.read(path).samples), settings)
    frames = features.shape[1]
    padded = np.empty((settings.bins, frames_max), np.float32)
    padded[:, :frames] = features
    padded[:, frames:] = 0
    for kind, content in (("spect", padded), ("sizes", np.int32(frames))):
        with open(f"{folder}/{kind}/data{number}.bin", "wb") as file:
            file.write(content)
    return files.sha256_bytes(padded)


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


def preprocess(
    manifest: Path, jobs: Jobs, settings: Settings, folder: Path, processes: int
) -> dict:
    """Fill `folder` with features of the manifest's utterances; returns the index."""
    # Once a block of this size was freed, glibc keeps the processes' smaller ones at hand, instead
    # of giving each back to the system and having it cleared anew.
    np.empty(KEPT, np.uint8)
    with cli.pool(processes) as pool:
        chunk = min(CHUNK, -(-len(jobs) // processes))
        measured = measure_all(jobs, pool, chunk)
        frames_max = measured[0].frames
        _require_space(folder, measured, settings.spectrogram.bins * frames_max * 4)
        (folder / "spect").mkdir()
        (folder / "sizes").mkdir()
        writing = (
            (m.utterance.audio, number, frames_max, str(folder), settings.spectrogram)
            for number, m in enumerate(measured, 1)
        )
        written = pool.map(write_features, writing, chunksize=chunk)
        hashes = list(cli.progress(written, len(measured), "preprocess", "utterance"))
    # Where the guide's scripts look for them: two lie beside the folders.
    texts = {
        "sizes/sizes.txt": [m.frames for m in measured],
        "targets.txt": [target for m in measured for target in m.targets],
        "target_sizes.txt": [len(m.targets) for m in measured],
    }
    for name, numbers in texts.items():
        text = "".join(f"{number} " for number in numbers)
        (folder / name).write_text(text, encoding="ascii")
    index = index_of(manifest, settings, measured)
    index["files"] = {name: files.sha256(folder / name) for name in texts}
    for utterance, digest in zip(index["utterances"], hashes):
        utterance["spect_sha256"] = digest
    return index


def dropped_from(measured: list) -> dict[str, list[int]]:
    """Characters that were dropped: how many, and from how many utterances."""
    times = Counter(character for m in measured for character in m.dropped)
    utterances = Counter(character for m in measured for character in set(m.dropped))
    return {character: [count, utterances[character]] for character, count in times.most_common()}


def _require_space(folder: Path, measured: list, size: int) -> None:
    free, longest = shutil.disk_usage(folder).free, measured[0]
    if len(measured) * size > free:
        raise UserError(
            f"{folder.parent}: {len(measured)} utterances padded to the longest "
            f"({longest.utterance.id!r}, {longest.seconds:.1f} s) need "
            f"{len(measured) * size >> 20} MiB, {free >> 20} MiB are free; make room or remove the "
            "longest"
        )


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


def require_planned(found: list[dict], planned: list[dict], plan: Path) -> None:
    """Refuse a part that is not what its plan says."""
    for made, expected in zip(found, planned):
        if {key: made[key] for key in expected} != expected:
            raise UserError(
                f"{plan}: its utterance {expected['id']!r} has changed; {files.remedy(plan)}"
            )


def main(
    manifest: Input,
    model: Input,
    labels: Input,
    features: Output,
    index: Output,
    unknown_characters: Literal["error", "drop"] = "error",
    empty_references: Literal["error", "score"] = "error",
    processes: Cores = CORES,
    plan: Input | None = None,
    part: str = parts.SAMPLE,
    sample: int = 1,
) -> None:
    """Command line.

    manifest: manifest of the split (JSON)
    model: the model's description (JSON)
    labels: the dataset's labels (JSON)
    features: folder to write
    index: index to write (JSON)
    unknown_characters: error: stop at characters outside the labels; drop: remove them
    empty_references: error: stop at transcripts that are empty; score: keep them
    processes: processes that share the work
    plan: index of all utterances (JSON), of which only a part is made
    part: that part: a shard, as 2of3, or sample
    sample: utterances in a sample
    """
    settings = read_settings(model, labels, unknown_characters, empty_references)
    jobs = jobs_of(manifest, settings)
    if plan:
        utterances = files.read_sealed(plan)["utterances"]
        chosen = parts.positions(utterances, part, sample)
        jobs = [jobs[utterances[position]["manifest_position"]] for position in chosen]
    with files.replacing_folder(features) as folder:
        found = preprocess(manifest, jobs, settings, folder, processes)
        if plan:
            require_planned(found["utterances"], [utterances[p] for p in chosen], plan)
            found["of"] = len(utterances)
    files.write_json(index, found)
    log.info("%d utterances, padded to %d frames", len(found["utterances"]), found["frames_max"])


if __name__ == "__main__":
    cli.run(main)
