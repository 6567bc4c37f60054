"""Make the features of a split: spectrograms as `.bin` files in ModelZoo's layout.

Reads a manifest (ours or any of deepspeech.pytorch's) and a model's settings (labels and
spectrogram), and writes a folder with `spect/data{i}.bin` and `sizes/`, longest utterance first,
all padded to the longest, and an index of it. Utterances stream through several processes, so
that memory does not grow with their number.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepspeech2 import audio, files, labels, recordings, spectrogram, stage
from deepspeech2.architecture import Spectrogram
from deepspeech2.stage import UserError, log

KEPT = 1 << 24  # bytes
CHUNK = 32  # utterances that a process gets at a time


class Prepared(NamedTuple):
    """What the first pass finds out about the utterance of this number in the manifest."""

    given: int
    frames: int
    seconds: float
    targets: list[int]
    notes: list[str]


class Settings(NamedTuple):
    """The manifest as given, labels, spectrogram, the rule for characters that are no labels."""

    manifest: str
    labels: list[str]
    spectrogram: Spectrogram
    drop_unknown: bool


def inspect(job) -> Prepared:
    """First pass: check one utterance's files and transcript, and measure them."""
    given, sample, settings = job
    for path, expected in ((sample.wav, sample.wav_sha256), (sample.txt, sample.txt_sha256)):
        if expected:
            files.require_unaltered(path, expected, sample.index)
    text = recordings.read_text(sample.txt)
    if not text:
        raise UserError(f"{sample.txt}: the transcript is empty; write one, or remove its audio")
    targets = labels.encode(text, settings.labels, settings.drop_unknown, str(sample.txt))
    if not "".join(settings.labels[t] for t in targets).strip():
        raise UserError(f"{sample.txt}: no character of the transcript is one of the labels")
    count, notes = audio.length(sample.wav)
    frames = settings.spectrogram.frames(count)
    return Prepared(given, frames, count / audio.SAMPLE_RATE, targets, notes)


def write_features(job) -> str:
    """Second pass: write one utterance's `.bin` files; returns the spectrogram's SHA-256."""
    wav, number, frames_max, folder, settings = job
    features = spectrogram.compute(audio.to_float(audio.read(wav).samples), settings)
    frames = features.shape[1]
    padded = np.empty((settings.bins, frames_max), np.float32)
    padded[:, :frames] = features
    padded[:, frames:] = 0
    for kind, content in (("spect", padded), ("sizes", np.int32(frames))):
        with open(f"{folder}/{kind}/data{number}.bin", "wb") as file:
            file.write(content)
    return files.sha256_bytes(padded)


def preprocess(settings: Settings, folder: Path, processes: int) -> dict:
    """Fill `folder` with the features of the manifest; returns the index."""
    samples = recordings.read_manifest(settings.manifest)
    if not samples:
        raise UserError(f"{settings.manifest}: lists no utterances")
    ids = [sample.id for sample in samples]
    [(name, count)] = Counter(ids).most_common(1)
    if count > 1:
        raise UserError(f"{settings.manifest}: two utterances have the id {name!r}; rename one")
    # Once a block of this size was freed, glibc keeps the processes' smaller ones at hand, instead
    # of giving each back to the system and having it cleared anew.
    np.empty(KEPT, np.uint8)
    with ProcessPoolExecutor(processes) as pool:
        jobs = ((number, sample, settings) for number, sample in enumerate(samples))
        # Chunks come back in order: an error names the first bad utterance, whatever their size.
        chunk = min(CHUNK, -(-len(samples) // processes))
        inspected = pool.map(inspect, jobs, chunksize=chunk)
        found = stage.progress(inspected, len(samples), "inspect", "utterance")
        prepared = sorted(found, key=lambda p: (-p.frames, ids[p.given]))
        frames_max = prepared[0].frames
        size, longest = settings.spectrogram.bins * frames_max * 4, prepared[0]
        _require_space(folder, len(ids), size, f"{ids[longest.given]!r}, {longest.seconds:.1f} s")
        (folder / "spect").mkdir()
        (folder / "sizes").mkdir()
        jobs = (
            (str(samples[p.given].wav), number, frames_max, str(folder), settings.spectrogram)
            for number, p in enumerate(prepared, 1)
        )
        written = pool.map(write_features, jobs, chunksize=chunk)
        hashes = list(stage.progress(written, len(prepared), "preprocess", "utterance"))
    texts = {
        "sizes.txt": [p.frames for p in prepared],
        "targets.txt": [target for p in prepared for target in p.targets],
        "target_sizes.txt": [len(p.targets) for p in prepared],
    }
    for name, numbers in texts.items():
        text = "".join(f"{number} " for number in numbers)
        (folder / "sizes" / name).write_text(text, encoding="ascii")
    for p in prepared:
        for note in p.notes:
            log.info("%s: %s", samples[p.given].wav, note)
    return {
        "manifest": Path(settings.manifest).name,
        "manifest_sha256": files.sha256(settings.manifest),
        "labels": settings.labels,
        "spectrogram": settings.spectrogram._asdict(),
        "bins": settings.spectrogram.bins,
        "frames_max": frames_max,
        "files": {f"sizes/{name}": files.sha256(folder / "sizes" / name) for name in texts},
        "utterances": [
            {
                "id": ids[p.given],
                "speaker": samples[p.given].speaker,
                "given": p.given,
                "frames": p.frames,
                "seconds": p.seconds,
                "reference": "".join(settings.labels[t] for t in p.targets),
                "spect_sha256": digest,
            }
            for p, digest in zip(prepared, hashes)
        ],
    }


def _require_space(folder: Path, count: int, size: int, longest: str) -> None:
    free = shutil.disk_usage(folder).free
    if count * size > free:
        raise UserError(
            f"{folder.parent}: {count} utterances padded to the longest ({longest}) need "
            f"{count * size >> 20} MiB, {free >> 20} MiB are free; make room or remove the longest"
        )


def read_settings(args) -> Settings:
    """Settings from the command line; the dataset's labels must be the model's."""
    model = files.read_json(args.model)
    found = labels.check(model["labels"], args.model)
    expected = labels.read(args.labels)
    if found != expected:
        raise UserError(
            f"{args.model}: the model's labels {''.join(found)!r} are not the dataset's "
            f"{''.join(expected)!r}; set `labels` of the dataset to a file with the model's"
        )
    drop = args.unknown_characters == "drop"
    return Settings(args.manifest, found, Spectrogram(**model["spectrogram"]), drop)


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--manifest", required=True, help="manifest of the split (JSON)")
    parser.add_argument("--model", required=True, help="the model's description (JSON)")
    parser.add_argument("--labels", required=True, help="the dataset's labels (JSON)")
    parser.add_argument("--unknown-characters", choices=("error", "drop"), default="error")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--features", required=True, help="folder to write")
    parser.add_argument("--index", required=True, help="index to write (JSON)")
    args = stage.parse(parser, argv)

    settings = read_settings(args)
    with files.replacing_folder(args.features) as folder:
        index = preprocess(settings, folder, args.processes)
    files.write_json(args.index, index)
    log.info("%d utterances, padded to %d frames", len(index["utterances"]), index["frames_max"])


if __name__ == "__main__":
    stage.run(main)
