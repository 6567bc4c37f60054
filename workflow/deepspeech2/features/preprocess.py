"""Make the features of a split: spectrograms as `.bin` files in ModelZoo's layout.

Reads a manifest (ours or any of deepspeech.pytorch's) and a model's settings (labels and
spectrogram), and writes a folder with `spect/data{i}.bin`, `sizes/`, `targets.txt` and
`target_sizes.txt`, longest utterance first, all padded to the longest, and an index of it.
Utterances stream through several processes, so that memory does not grow with their number.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np

from deepspeech2 import cli, files
from deepspeech2.cli import CORES, Cores, Input, Output, UserError, log
from deepspeech2.corpus import audio
from deepspeech2.features import parts, spectrogram
from deepspeech2.features.measure import (
    CHUNK,
    Jobs,
    Settings,
    index_of,
    jobs_of,
    measure_all,
    read_settings,
)

KEPT = 1 << 24  # bytes


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


def _require_space(folder: Path, measured: list, size: int) -> None:
    free, longest = shutil.disk_usage(folder).free, measured[0]
    if len(measured) * size > free:
        raise UserError(
            f"{folder.parent}: {len(measured)} utterances padded to the longest "
            f"({longest.utterance.id!r}, {longest.seconds:.1f} s) need "
            f"{len(measured) * size >> 20} MiB, {free >> 20} MiB are free; make room or remove the "
            "longest"
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
