"""A small run for the tests of this folder to disturb, its stages one by one, and what it makes."""

import functools
import os
import shlex
import subprocess
import sys
import tempfile
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import ROOT
from deepspeech2 import files
from helpers import run_module, snakemake, write_folder, write_safetensors

MOMENTS = int(os.environ.get("N") or 0)  # make exports an empty N
WHOLE = pytest.mark.skipif("FAULTS" not in os.environ, reason="takes long; `make faults` runs it")
ACCURACY = ("posteriors.bin", "transcripts.jsonl", "score.json", "agreement.json", "model.json")
SNAKEFILE = ("--snakefile", ROOT / "Snakefile", "--configfile", "own.yaml", "--cores", 2)
CONFIG = {
    "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu-fp32"], "batch_sizes": [1]},
    "datasets": {
        "own": {"layout": "folder", "path": "recordings"},
        "parts": {"layout": "folder", "path": "recordings", "shards": 2},
        "held": {"layout": "folder", "path": "recordings", "split": "val"},
    },
    "language_models": {"own": {"texts": ["texts.txt"]}},
    "tune": {"decoder": "greedy", "dataset": "held", "model": "tiny", "grid": {}},
    "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
    "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
    "server": {"latency_ms": 60000, "max_batch": 1, "seconds": 0.001, "percentile": 50.0},
    "train": {
        "name": "own", "datasets": ["own"], "dev": ["own"], "epochs": 2, "clean_epochs": 0,
        "architecture": {"rnn_type": "lstm", "hidden_size": 8, "hidden_layers": 1},
    },
}  # fmt: skip
ROW = "results/own/tiny/cpu-fp32/bs1"
# What accuracy is made of: half of a run's jobs.
FIGURES = (f"{ROW}/greedy/score.json", f"{ROW}/greedy/agreement.json")
OF_SHARDS = tuple(name.replace("/own/", "/parts/") for name in FIGURES)


def prepare(folder: Path, **changes) -> Path:
    """A folder with what a run needs; `changes` replace keys of the configuration."""
    write_folder(folder / "recordings")
    write_safetensors(folder / "tiny.safetensors")
    (folder / "texts.txt").write_text("GO ON\nGO\n")
    (folder / "own.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
    return folder


def accuracy(folder: Path) -> dict[str, str]:
    """Hashes of the accuracy files below `folder`."""
    paths = (p for p in (folder / "results").rglob("*") if p.name in ACCURACY)
    return {str(p.relative_to(folder)): files.sha256(p) for p in paths}


def temporary(folder: Path) -> list[Path]:
    """What is left of files that were being written."""
    return [p for p in folder.rglob(".*.tmp") if ".snakemake" not in p.parts]


class Stage(NamedTuple):
    """A job of a run: its rule, the module and options that its command names, its outputs."""

    rule: str
    words: list[str]
    outputs: list[Path]

    def run(self, folder: Path, *fault):
        """The stage as the workflow runs it, without Snakemake; with a fault (see `faulty`)."""
        log = [folder / word[6:] for word in self.words if word.startswith("--log=")]
        for path in (*self.outputs, *log):  # Snakemake makes their folders
            path.parent.mkdir(parents=True, exist_ok=True)
        return run_module([*(("faulty", *fault) if fault else ()), *self.words], folder)


def stages(folder: Path, *targets) -> list[Stage]:
    """The jobs that a run would have, in an order in which they can run."""
    found, rule, inputs, outputs = {}, "", [], []
    for line in snakemake(folder, *SNAKEFILE, "-n", "-p", "--", *targets).stdout.splitlines():
        key, _, value = line.strip().partition(": ")
        if key.startswith("rule ") and key.endswith(":"):
            rule = key[5:-1]
        elif key == "input":
            inputs = [folder / name for name in value.split(", ")]
        elif key == "output":
            outputs = [folder / name for name in value.split(", ")]
        elif key == "Shell command" and " -m deepspeech2." in value:
            stage = Stage(rule, shlex.split(value.partition(" -m ")[2]), outputs)
            found |= dict.fromkeys(outputs, (stage, inputs))
    # Jobs of a group are listed by name.
    order = TopologicalSorter({path: set(needed) for path, (_, needed) in found.items()})
    ordered = [found[path][0] for path in order.static_order() if path in found]
    return [stage for number, stage in enumerate(ordered) if stage not in ordered[:number]]


def content(path: Path) -> dict[str, bytes]:
    """A file, or the files of a folder, by path; nothing where there is none."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(p): p.read_bytes() for p in found if p.is_file()}


@functools.cache
def undisturbed() -> dict[str, str]:
    """What `accuracy` is after a run without any fault; stage by stage, which is quicker."""
    with tempfile.TemporaryDirectory() as name:
        return by_stages(prepare(Path(name)))


def by_stages(folder: Path) -> dict[str, str]:
    """What `accuracy` is after all stages ran one by one in `folder`."""
    for stage in stages(folder, *FIGURES):
        done = stage.run(folder)
        assert done.returncode == 0, done.stderr
    return accuracy(folder)


def start(folder: Path, *targets) -> subprocess.Popen:
    """A run as a program, with its jobs in a process group of its own; what it says is piped."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *map(str, SNAKEFILE), "--", *targets], cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
