"""Small real inputs for tests: recordings, checkpoints, programs run as a user would."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from deepspeech2.architecture import Architecture, Spectrogram
from deepspeech2.checkpoint import METADATA_KEY
from safetensors.numpy import save_file

LABELS = list("_'ABCDEFGHIJKLMNOPQRSTUVWXYZ ")
TINY = Architecture(161, len(LABELS), "lstm", 8, 2, True)


def tone(seconds=0.5, seed=0, rate=16000, channels=1):
    """Noise over a tone, (n,) or (n, channels) float32: something that is not silence."""
    random = np.random.default_rng(seed)
    n = int(seconds * rate)
    wave = 0.3 * np.sin(2 * np.pi * (200 + 50 * seed) * np.arange(n) / rate)
    signal = (wave[:, None] + 0.05 * random.standard_normal((n, channels))).astype(np.float32)
    return signal[:, 0] if channels == 1 else signal


def write_folder(folder: Path, texts=("YES", "GO ON", "STOP"), suffix=".wav") -> Path:
    """A folder of recordings with transcripts, each of another length."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        soundfile.write(folder / f"u{number}{suffix}", tone(0.4 + 0.1 * number, number), 16000)
        (folder / f"u{number}.txt").write_text(text + "\n", encoding="utf-8")
    return folder


def tiny_weights(architecture=TINY, seed=0):
    """Random weights by name, float32, of an architecture."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in architecture.shapes().items():
        values = random.standard_normal(shape) * 0.2
        weights[name] = (np.abs(values) + 0.5 if "running_var" in name else values).astype("f4")
    return weights


def tiny_description(architecture=TINY):
    """The description that goes with `tiny_weights`."""
    return {
        "labels": LABELS,
        "spectrogram": Spectrogram()._asdict(),
        "architecture": architecture._asdict(),
    }


def write_safetensors(path: Path, architecture=TINY, weights=None, description=None) -> Path:
    """A checkpoint in our own format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {METADATA_KEY: json.dumps(description or tiny_description(architecture))}
    save_file(weights or tiny_weights(architecture), path, metadata)
    return path


def v3_content(architecture=TINY):
    """What a deepspeech.pytorch V3 checkpoint holds, with plain settings in place of omegaconf."""
    import torch

    model = {
        "rnn_type": architecture.rnn_type,
        "hidden_size": architecture.hidden_size,
        "hidden_layers": architecture.hidden_layers,
    }
    if not architecture.bidirectional:
        model["lookahead_context"] = architecture.lookahead_context
    return {
        "state_dict": {k: torch.from_numpy(v) for k, v in tiny_weights(architecture).items()},
        "hyper_parameters": {
            "labels": list(LABELS),
            "spect_cfg": {
                "sample_rate": 16000,
                "window_size": 0.02,
                "window_stride": 0.01,
                "window": "hamming",
            },
            "model_cfg": model,
        },
    }


def run_stage(name: str, *arguments, **options) -> subprocess.CompletedProcess:
    """Run a stage as a program; never raises."""
    command = [sys.executable, "-m", f"deepspeech2.{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def assert_one_line_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """The program failed with a single line on standard error that has all the words."""
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], lines[0]


def snakemake(folder: Path, *arguments, check=True, **options) -> subprocess.CompletedProcess:
    """Run the workflow in `folder` as a user would."""
    command = [sys.executable, "-m", "snakemake", *map(str, arguments)]
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, **options
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def planned(folder: Path, *arguments) -> dict:
    """What Snakemake would run: the first output of each job, by rule."""
    jobs, rule = {}, None
    text = snakemake(folder, "-n", *arguments)
    for line in (text.stdout + text.stderr).splitlines():
        if line.startswith("rule ") and line.endswith(":"):
            rule = line[5:-1]
        elif line.strip().startswith("output: ") and rule:
            jobs.setdefault(rule, []).append(line.strip()[8:].split(", ")[0])
    return jobs
