"""Small real inputs for tests: recordings, checkpoints, results, programs run as a user would."""

import atexit
import functools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

import forks
import numpy as np
import soundfile
from conftest import ROOT
from deepspeech2 import files
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.model.architecture import METADATA_KEY, Architecture
from deepspeech2.report import record
from safetensors.numpy import save_file

LABELS = list("_'ABCDEFGHIJKLMNOPQRSTUVWXYZ ")
LONGEST = 900  # seconds of a program: what takes longer hangs
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["forked"])
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


def latencies(p99=None):
    """Milliseconds of a timing file."""
    return {"mean": 10.0, "std": 1.0, "p50": 9.87654, "p90": 11.0, "p95": 12.0, "p99": p99}


def timing_content(**changes):
    """What the timing stage writes."""
    return {
        "verdict": "VALID",
        "reasons": [],
        "disturbed": [],
        "scenario": "offline",
        "batches": 130,
        "utterances": 130,
        "sample": 130,
        "until_first": {"seconds": 0.5, "memory_bytes": 200 << 20},
        "times_sha256": "8" * 64,
        "energy": {
            "sources": [],
            "joules_per_utterance": None,
            "joules_per_audio_hour": None,
            "not_readable": ["no RAPL counters"],
        },
        "seconds": 10.25,
        "utterances_per_s": 14.39951,
        "rtfx": 39.5,
        "end_to_end_utterances_per_s": 14.3,
        "latency_ms": latencies(),
        "end_to_end_latency_ms": latencies(),
        "batch_ms": [9.5, 10.5],
        "end_to_end_batch_ms": [9.75, 10.75],
        "spread": 0.0271,
        "phase_seconds": {"assemble": 0.25, "upload": 0.5, "forward": 10.25, "download": 0.125},
        "padding_share": 0.6,
        "padding_shares": {"longest": 0.6, "batch": 0.1234567},
        "batch_size": 1,
        "fill_up_rows": 0,
        "proof": {"utterances": 13, "outputs": 13, "largest_difference": 0.0, "wrong": ""},
        "load_before": 0.0123,
        "other_load": 0.0456,
        "governor": "performance",
        "throttled_seconds": 0.0,
        "compile_seconds": 0.5,
        "artefact_bytes": 22353289,
        "compile_notes": {},
        "peak_memory_bytes": 521973760,
        "peak_device_memory_bytes": None,
        "settings": {"warmup_batches": 5, "governors": ["performance"]},
        "engine": {"backend": "torchscript", "options": {}},
        "environment": {
            "node": "here",
            "cpu": "A CPU",
            "device": "cpu",
            "mhz": {"least": 3000, "most": 3000, "limit": 3000, "devices": None},
            "cores": 4,
            "threads": 2,
            "memory_bytes": 8 << 30,
            "system": "Linux",
            "python": "3.11.7",
            "governor": "performance",
            "outside": {},
            "libraries": {"numpy": "2.3.4"},
            "git_revision": "f" * 40 + "+changes",
            "driver": None,
        },
        "versions": {"torch": "2.13.0"},
        "code_sha256": "4" * 64,
        "checkpoint": "a.ckpt",
        "checkpoint_sha256": "0123456789abcdef" * 4,
        "parameters": 5580832,
        "manifest": "an4_test_manifest.json",
        "dataset_sha256": "2" * 64,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:00:10+00:00",
        **changes,
    }


def rates_content(utterances=130, wer=100 * 92 / 773):
    """What the score has of all utterances, or of a part of them."""
    errors = {"substitutions": 3, "deletions": 2, "insertions": 1, "reference_length": 773}
    return {
        "utterances": utterances,
        "wer": {"percent": wer, **errors, "low": 1.0, "high": 20.0},
        "cer": {"percent": 6.29552549, **errors, "low": 1.0, "high": 20.0},
        "ser": {"percent": 40.0, "sentences": 52},
    }


# What the record of a row is made from, in the order of the stage's options.
ROW_FILES = (
    "score.json",
    "agreement.json",
    "timing.json",
    "posteriors.json",
    "transcripts.json",
    "decoding_time.json",
    "corpus.json",
    "features.json",
    "../single_stream.json",
)


class Features:
    """Utterances of 100, 90, 80, ... frames, a hundredth of a second each.

    `order` has their positions in the manifest.
    """

    bins, frames_max = 3, 100

    def __init__(self, count, order=None):
        self.utterances = [
            {
                "id": str(i),
                "frames": 100 - 10 * i,
                "seconds": 1 - 0.1 * i,
                "manifest_position": position,
            }
            for i, position in enumerate(order or range(count))
        ]

    def __len__(self):
        return len(self.utterances)

    def load(self, position):
        spectrogram = np.zeros((3, 100), np.float32)
        spectrogram[:, : self.utterances[position]["frames"]] = position + 1
        return spectrogram


class Clock:
    """A clock that only the session moves: each phase takes its own time."""

    now = 0.0

    def __call__(self):
        return self.now


def write_sealed(path: Path, content: dict) -> Path:
    """An index as the workflow writes it, also of what it never would."""
    path.write_text(json.dumps({**content, files.SEAL: files.seal(content)}) + "\n")
    return path


def row_content():
    """What the record of a row is made from, by file."""
    unseen, seen = ({"name": n, **rates_content(65, 20.5)} for n in ("unseen", "seen in training"))
    run = {
        "engine": {"backend": "torchscript", "options": {}},
        "batch_size": 1,
        "threads": 1,
        "versions": {"torch": "2.13.0"},
        "outside": {},
        "node": "n1",
        "cpu": "CPU",
        "device": "cpu",
        "features_sha256": "6" * 64,
        "code_sha256": "5" * 64,
    }
    return {
        "score.json": {
            **rates_content(),
            "coverage": {"scored": 130, "of": 131, "empty": 7},
            "parts": {
                "speaker": [],
                "length": [],
                "text": [],
                "seen": [seen, unseen],
                "language model": [],
            },
            "confusions": {"words": [["A", "B", 3]], "characters": []},
            "confidence": None,
            "times": None,
            "word_times_sha256": None,
            "language_model_texts_sha256": None,
            "transcripts_sha256": "3" * 64,
            "alignments_sha256": "8" * 64,
            "training_texts_sha256": "9" * 64,
            "code_sha256": "a" * 64,
            "libraries": {"Levenshtein": "0.27.5", "kaldialign": "0.12.0"},
        },
        "agreement.json": {
            "utterances": 130,
            "identical_transcripts": 129,
            "first_differing": [{"id": "u", "reference": "A", "hypothesis": "B", "eager": "A"}],
            "largest_posterior_difference": 1.25e-07,
            "largest_posterior_difference_in": "u",
            "other_lengths": 0,
            "eager_versions": {"torch": "2.13.0"},
        },
        "timing.json": timing_content(),
        "posteriors.json": {
            "files": [{"sha256": "7" * 64, "utterances": 0}],
            "classes": 29,
            "run": run,
            "utterances": [],
        },
        "transcripts.json": {
            "sha256": "3" * 64,
            "utterances": 130,
            "decoder": {"kind": "greedy", "options": {}},
            "language_model": None,
            "tuning": None,
        },
        "decoding_time.json": {
            "ms_per_utterance": 0.5,
            "spread": 0.01,
            "utterances": 130,
            "runs": 3,
            "other_load": 0.0,
            "cpu": "Example CPU",
        },
        "corpus.json": {"layout": "folder", "passed_over": {}, "notes": {}, "utterances": []},
        "features.json": {"dropped": {}, "versions": {"numpy": "2.4.6"}},
        "../single_stream.json": timing_content(scenario="single_stream"),
    }


def write_row(results: Path, row: str, split="all", **changes) -> Path:
    """The path of a row's record, made with its files; some top-level keys are changed by file.

    `changes` are `score`, `agreement`, `timing`, `single_stream`, `posteriors` and `corpus`.
    """
    folder = results / row
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in row_content().items():
        content.update(changes.get(Path(name).stem, {}))
        write_sealed(folder / name, content)
    record.main(
        *(folder / name for name in ROW_FILES),
        row,
        {"dataset": {"split": split}},
        folder / "record.json",
    )
    return folder / "record.json"


@functools.cache
def interpreter() -> str:
    """A program that is Python for a run of the workflow, and forks its stages (tests/forks.py)."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    here = [path for path in sys.path if Path(path).is_relative_to(ROOT)]
    ours = [path for path in here if not Path(path).is_relative_to(sys.prefix)]
    server = FORKS.Process(target=forks.serve, args=(folder, ours))
    server.start()
    atexit.register(server.kill)  # before multiprocessing waits for it
    while not (folder / "socket").exists():
        time.sleep(0.01)
    return str(forks.client(folder))


def run_module(words, cwd=None, **options) -> subprocess.CompletedProcess:
    """What `python -m WORDS` does: in a fork, or with options of subprocess as a program."""
    words = list(map(str, words))
    if options:
        command = [sys.executable, "-m", *words]
        options = {"timeout": LONGEST, **options}
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **options)
    with tempfile.TemporaryDirectory() as place:
        out, err = (Path(place, name) for name in ("out", "err"))
        import forked  # not where an engine's own Python, without snakemake, runs some tests

        place = str(cwd or Path.cwd())
        arguments = (words, place, dict(os.environ), str(out), str(err), LONGEST, interpreter())
        process = FORKS.Process(target=forked.run, args=arguments)
        process.start()
        process.join()
        texts = out.read_text(), err.read_text()
    return subprocess.CompletedProcess(words, process.exitcode, *texts)


def run_stage(name: str, *arguments, **options) -> subprocess.CompletedProcess:
    """Run a stage; never raises."""
    return run_module([f"deepspeech2.{name}", *arguments], **options)


def assert_one_line_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """The program failed with a single line on standard error that has all the words."""
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: "), lines[0]
    for word in words:
        assert word in lines[0], lines[0]


def snakemake(folder: Path, *arguments, check=True, **options) -> subprocess.CompletedProcess:
    """Run the workflow in `folder` as a user would."""
    result = run_module(["snakemake", *arguments], folder, **options)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def planned(folder: Path, *arguments) -> dict:
    """What Snakemake would run: the first output of each job, by rule."""
    jobs, rule = {}, None
    for line in map(str.strip, snakemake(folder, "-n", *arguments).stdout.splitlines()):
        if line.startswith("rule ") and line.endswith(":"):
            rule = line[5:-1]
        elif line.startswith("output: ") and rule:
            jobs.setdefault(rule, []).append(line[8:].split(", ")[0])
    return jobs


def posteriors_of(path: str, labels=LABELS) -> np.ndarray:
    """Posteriors (T', classes) whose best labels spell `path`."""
    rows = np.full((len(path), len(labels)), 0.01, np.float32)
    rows[np.arange(len(path)), [labels.index(c) for c in path]] = 0.9
    return rows


def write_transcripts(path: Path, transcripts: dict[str, dict]) -> Path:
    """A file of transcripts by utterance id."""
    lines = [json.dumps({"id": name, **entry}) + "\n" for name, entry in transcripts.items()]
    path.write_text("".join(lines))
    about = row_content()["transcripts.json"]
    write_sealed(path.with_suffix(".json"), {**about, "sha256": files.sha256(path)})
    return path


def run_corpus(layout: str, source: Path, folder: Path, *more) -> subprocess.CompletedProcess:
    """Make a corpus in `folder`; texts stay as they are unless `more` options say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alphabet.json").write_text(json.dumps(LABELS))
    options = () if "--text-case" in more else ("--text-case", "keep")
    return run_stage(
        "corpus.corpus", "--layout", layout, "--source", source, *options, *more,
        "--labels", folder / "alphabet.json", "--corpus", folder / "corpus",
        "--index", folder / "corpus.json", "--labels-copy", folder / "labels.json",
    )  # fmt: skip


# Top-level modules of what is installed, without the one that every start of Python imports.
THIRD_PARTY = sorted(
    set(metadata.packages_distributions()) - sys.stdlib_module_names - {"_distutils_hack"}
)
WITHOUT = """
import sys
from importlib.machinery import PathFinder

MISSING = set({names!r})
assert not MISSING & set(sys.modules), MISSING & set(sys.modules)


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = name.partition(".")[0] in MISSING
        return None if missing else PathFinder.find_spec(name, path, target)


sys.meta_path[:] = [Finder if one is PathFinder else one for one in sys.meta_path]
"""


def python_without(names, code: str) -> subprocess.CompletedProcess:
    """Run code where the top-level modules `names` are missing; never raises."""
    command = [sys.executable, "-c", WITHOUT.format(names=list(names)) + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Loaded:
    """A set of features without files, 3 bins high; `fail` is a position that cannot be read."""

    def __init__(self, frames, fail=None):
        random = np.random.default_rng(0)
        self.bins, self.frames_max, self.fail = 3, max(frames), fail
        self.data = [random.random((3, self.frames_max), np.float32) for _ in frames]
        for data, length in zip(self.data, frames):
            data[:, length:] = 0
        self.utterances = [{"id": f"u{i}", "frames": n} for i, n in enumerate(frames)]
        self.loaded = []

    def __len__(self):
        return len(self.utterances)

    def load(self, position):
        if position == self.fail:
            raise OSError(f"no {position}")
        self.loaded.append((position, threading.current_thread()))
        return self.data[position]


def stages_to_features(checkpoint, archive):
    """Command lines that make AN4 test's features of a checkpoint, in the working folder."""
    return (
        ("model.convert", "--checkpoint", checkpoint, "--weights", "m.safetensors",
         "--model", "m.json"),
        ("corpus.corpus", "--layout", "an4", "--source", archive, "--text-case", "upper",
         "--labels", ROOT / "resources/labels.json", "--corpus", "corpus", "--index", "c.json",
         "--labels-copy", "labels.json"),
        ("corpus.manifest", "--index", "c.json", "--corpus", "corpus", "--split", "test",
         "--manifest", "manifest.json"),
        ("features.preprocess", "--manifest", "manifest.json", "--model", "m.json",
         "--labels", "labels.json", "--features", "features", "--index", "features.json"),
    )  # fmt: skip
