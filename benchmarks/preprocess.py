"""Preprocessing beside the reference's way, a single process with librosa, on AN4 test ten times.

    python benchmarks/preprocess.py --archive an4_raw.bigendian.tar.gz

Both write the same files, in alternating rounds of one process; ours also checks the hashes of what
it reads and records those of what it writes. Everything is imported before, and what starting takes
is taken off: the seconds are those of 1300 utterances less those of 130. They write to memory where
the system has /dev/shm: the disk is the same for both, and ext4 takes twenty times as long to make
a file where others have just been removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from pipeline import COPIES, ROOT, repeated

sys.path.insert(0, str(ROOT / "workflow"))
from deepspeech2.features.measure import Settings, jobs_of
from deepspeech2.features.preprocess import preprocess
from deepspeech2.features.spectrogram import Spectrogram

MEMORY = Path("/dev/shm")
STFT = {"n_fft": 320, "hop_length": 160, "win_length": 320, "window": "hamming"}
STFT["pad_mode"] = "reflect"  # the default of the librosa that deepspeech.pytorch was made with


def spectrogram(path: Path) -> np.ndarray:
    """As deepspeech.pytorch computes it: with the phase, which it throws away, and by torch."""
    samples = soundfile.read(str(path), dtype="int16")[0].astype("float32") / 32768
    magnitude, _ = librosa.magphase(librosa.stft(samples, **STFT))
    features = torch.FloatTensor(np.log1p(magnitude))
    features.add_(-features.mean())
    features.div_(features.std())
    return features.numpy()


def lean_spectrogram(path: Path) -> np.ndarray:
    """The same without what is not needed."""
    samples, _ = soundfile.read(str(path), dtype="float32")
    features = np.log1p(np.abs(librosa.stft(samples, **STFT)))
    features -= features.mean()
    features /= features.std(ddof=1)
    return features


def reference(parse, manifest: Path, labels: list[str], folder: Path) -> None:
    """What the guide's script does: one utterance after the other, padded to the longest."""
    data = json.loads(manifest.read_text())
    root = manifest.parent / data["root_path"]
    numbers = {label: number for number, label in enumerate(labels)}
    found = []
    for sample in data["samples"]:
        text = (root / sample["transcript_path"]).read_text(encoding="utf-8").strip()
        features = parse(root / sample["wav_path"])
        found.append((features, [numbers[character] for character in text]))
    found.sort(key=lambda each: -each[0].shape[1])
    longest = found[0][0].shape[1]
    (folder / "spect").mkdir()
    (folder / "sizes").mkdir()
    for number, (features, _) in enumerate(found, 1):
        padded = np.zeros((features.shape[0], longest), np.float32)
        padded[:, : features.shape[1]] = features
        padded.tofile(folder / "spect" / f"data{number}.bin")
        np.array([features.shape[1]], np.int32).tofile(folder / "sizes" / f"data{number}.bin")
    texts = {
        "sizes/sizes.txt": [features.shape[1] for features, _ in found],
        "targets.txt": [target for _, targets in found for target in targets],
        "target_sizes.txt": [len(targets) for _, targets in found],
    }
    for name, values in texts.items():
        (folder / name).write_text("".join(f"{value} " for value in values))


def seconds(function, *arguments, place: Path) -> float:
    """Wall seconds of a function that fills the folder given to it last."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        start = time.perf_counter()
        function(*arguments, Path(folder))
        return time.perf_counter() - start


def main() -> None:
    """Command line: see `--help`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", required=True, type=Path, help="AN4, any packaging")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--place", type=Path, default=MEMORY if MEMORY.is_dir() else None)
    args = parser.parse_args()
    if not args.archive.exists():
        parser.error(f"{args.archive}: no such file or folder; name AN4's archive")

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "checkout"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
        target = "results/datasets/an4/an4_test_manifest.json"
        archive = f"archive={args.archive.resolve()}"
        options = ["--configfile", "config/an4.yaml", "--config", archive]
        command = [sys.executable, "-m", "snakemake", "--quiet", "all", *options, "--", target]
        subprocess.run(command, cwd=folder, check=True)
        labels = json.loads((folder / "results/datasets/an4/labels.json").read_text())

        def ours(manifest: Path, labels: list[str], out: Path) -> None:
            settings = Settings(labels, Spectrogram(), False)
            preprocess(manifest, jobs_of(manifest, settings), settings, out, args.processes)

        few, many = folder / target, repeated(folder / target, COPIES)
        ways = {
            "reference": partial(reference, spectrogram),
            "reference, lean": partial(reference, lean_spectrogram),
            "ours": ours,
        }
        for way in ways.values():
            seconds(way, few, labels, place=args.place)
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, way in ways.items():
                start = seconds(way, few, labels, place=args.place)
                found[name].append(seconds(way, many, labels, place=args.place) - start)
    print(f"| 1170 utterances, {args.processes} processes | median | range |\n|---|---|---|")
    rows = {f"{name}, s": values for name, values in found.items()}
    for name in list(found)[:-1]:
        rows[f"{name} / ours"] = [a / b for a, b in zip(found[name], found["ours"])]
    for name, values in rows.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"| {name} | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
