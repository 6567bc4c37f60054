"""Every stage by itself, with a fault in it: it says so in one line, and half a file never counts.

Faults come at each change that a stage makes in the file system, and at many sizes. The suite takes
one of each stage, `make faults` all.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import safetensors.numpy
from deepspeech2 import files
from helpers import assert_one_line_error
from runs import MOMENTS, OF_SHARDS, ROW, WHOLE, content, prepare, stages, temporary

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))
import mutators

DISK = 64 << 20  # bytes of it
TIMED = {
    "decoding_time.json",
    "compiled.json",
    "timing.json",
    "single_stream.json",
    "server.json",
    "times.tsv",
    "single_stream_times.tsv",
    "training.json",
    "curves.csv",
}
# How glibc, LLVM and torch say, as they abort, that memory lacks, and how Pillow does and Python's
# parser, which may take it for a mistake in what it reads.
OF_LIBRARIES = (
    "cannot allocate memory for thread-local data: ABORT",
    "LLVM ERROR: Unable to allocate",
    "terminate called after throwing an instance of 'c10::Error'",
    "ValueError: encoding error 1",
    "SyntaxError: expected",
)
RULES = (
    *("convert", "corpus", "manifest", "torchscript", "preprocess", "compile", "eager", "infer"),
    *("decode", "decode_eager", "decoding_time", "score", "agreement", "timing", "single_stream"),
    *("server", "record", "table", "figures", "errors", "page", "dumpout_of", "trn_of", "ctm_of"),
    *("learn", "curves", "language_model", "choose", "compare"),
    *("plan", "preprocess_part", "join", "join_eager", "gather", "gather_eager"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which every stage ran, the jobs, and whether results/ is a disk of its own."""
    folder = prepare(tmp_path_factory.mktemp("stages"))
    small = folder / "results"
    small.mkdir()
    has_disk = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", small], check=False
        ).returncode
    )
    try:
        yield folder, every_stage(folder), has_disk
    finally:
        if has_disk:
            subprocess.run(["umount", "--lazy", small], check=True)


def every_stage(folder):
    """The jobs, run once, by rule, each with the number of its changes."""
    jobs = {}
    made = ("all", "trn", "ctm", "dumpout", "train", "tune", "results/language_models/own.arpa")
    for targets in (made, OF_SHARDS, ("compare",)):
        for stage in stages(folder, *targets):
            done = stage.run(folder, "count", 0)
            assert done.returncode == 0, done.stderr
            jobs.setdefault(stage.rule, (stage, int(done.stdout.split()[-1])))
        shutil.copytree(folder / "results", folder / "baseline", dirs_exist_ok=True)
        with open(folder / "own.yaml", "a") as file:
            file.write("baseline: baseline\n")
    assert set(jobs) == set(RULES)
    return jobs


class Trial:
    """A stage run anew: its outputs are removed, as Snakemake does, and put back at the end."""

    def __init__(self, run, rule):
        self.folder, jobs, _ = run
        self.stage, self.changes = jobs[rule]

    def __enter__(self):
        self.before = [content(path) for path in self.stage.outputs]
        self.state = self.folder / "results/training/own/state"
        self.remove()
        if self.stage.rule == "learn":
            shutil.rmtree(self.state, ignore_errors=True)
        return self

    def __exit__(self, *_):
        for path in [*self.stage.outputs, *temporary(self.folder)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for found in self.before:
            for path, data in found.items():
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(data)

    def remove(self):
        for path in self.stage.outputs:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def fails(self, *fault):
        """Run it with a fault, after which each output is whole or absent; returns what it said."""
        done = self.stage.run(self.folder, *fault)
        for path, before in zip(self.stage.outputs, self.before):
            assert not path.exists() or self.is_whole(path, before), (path, *fault)
        return done

    def says(self, done, *words):
        """It failed in one line with the words, and left nothing."""
        assert_one_line_error(done, *words)
        assert not temporary(self.folder)

    def is_whole(self, path, before):
        if path.name in TIMED:
            return path.suffix != ".json" or bool(files.read_sealed(path))
        if path.suffix == ".safetensors":
            made, other = (
                safetensors.numpy.load(d) for d in (*content(path).values(), *before.values())
            )
            return all((made[name] == other[name]).all() for name in made.keys() | other.keys())
        return content(path) == before

    def ends(self):
        """Run it again: it makes what it made, and nothing else is left."""
        self.remove()
        done = self.stage.run(self.folder)
        assert done.returncode == 0, done.stderr
        for path, before in zip(self.stage.outputs, self.before):
            assert path.exists() and self.is_whole(path, before), path
        assert not temporary(self.folder)


def ended(folder):
    """Whether no process is left that works in `folder`, soon."""
    for _ in range(50):
        if not any(cwd == str(folder) for cwd in places()):
            return True
        time.sleep(0.1)
    return False


def places():
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield os.readlink(f"/proc/{number}/cwd")
        except OSError:
            continue


def killed(run, rule, number, fault="kill"):
    with Trial(run, rule) as trial, tempfile.TemporaryDirectory() as place:
        os.environ["UNSYNCED"] = f"{place}/unsynced"
        done = trial.fails(fault, number)
        assert done.returncode in (-9, 1)  # 1: one of its processes was killed, not it
        assert ended(trial.folder)
        trial.ends()


@WHOLE
@pytest.mark.parametrize("rule", RULES)
def test_a_stage_is_killed(run, rule):
    for number in range(1, run[1][rule][1] + 1):
        killed(run, rule, number)


@WHOLE
@pytest.mark.parametrize("rule", RULES)
def test_the_power_is_cut(run, rule):
    """Wherever the file system cannot be cut itself: what was not synced is lost."""
    for number in range(1, run[1][rule][1] + 1):
        killed(run, rule, number, "cut")


def sizes(trial):
    """How long files may get: nearly nothing, or less than the longest that the stage writes."""
    longest = max(len(data) for found in trial.before for data in found.values())
    return sorted({64, longest // 2, longest - 1})  # 64: a pool needs semaphores


def full(run, rule, pick):
    with Trial(run, rule) as trial:
        for size in pick(sizes(trial)):
            done = trial.fails("size", size)
            if done.returncode:
                trial.says(done, "results/", "File too large; make room")
            trial.ends()


@WHOLE
@pytest.mark.parametrize("rule", RULES)
def test_a_file_gets_too_large(run, rule):
    full(run, rule, lambda sizes: sizes)


def test_training_waits_for_no_shared_memory(run):
    """As where /dev/shm is full: a process that makes batches once lost one without a word."""
    full(run, "learn", lambda sizes: sizes[:1])


def no_room(run, rule, pages):
    """The disk has so many pages left."""
    if not run[2]:
        pytest.skip("needs root, to mount a small disk")
    with Trial(run, rule) as trial:
        filler = trial.folder / "results/filler"
        for number in pages:
            with open(filler, "wb") as file:
                file.write(bytes(max(0, shutil.disk_usage(filler).free - number * 4096)))
            try:
                done = trial.fails()
            finally:
                filler.unlink()
            if done.returncode:
                trial.says(done, "results/")
                assert (
                    "No space left on device; make room" in done.stderr or "are free" in done.stderr
                )
            trial.ends()


@WHOLE
@pytest.mark.parametrize("rule", RULES)
def test_the_disk_is_full(run, rule):
    no_room(run, rule, [0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128])


def read_only(run, rule):
    if not run[2]:
        pytest.skip("needs root, to mount a small disk")
    with Trial(run, rule) as trial:
        disk = trial.folder / "results"
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        try:
            done = trial.stage.run(trial.folder)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert_one_line_error(done, "results/", "Read-only file system")
        trial.ends()


@WHOLE
@pytest.mark.parametrize("rule", RULES)
def test_results_are_read_only(run, rule):
    read_only(run, rule)


def short_of_memory(run, rule, megabytes):
    with Trial(run, rule) as trial:
        for number in megabytes:
            done = trial.fails("memory", number << 20)
            known = any(words in done.stderr for words in OF_LIBRARIES)
            if done.returncode not in (0, -signal.SIGALRM) and not known:  # SIGALRM: see `faulty`
                trial.says(done, "memory")
        trial.ends()


@WHOLE
@pytest.mark.parametrize("rule", RULES)
def test_memory_is_short(run, rule):
    short_of_memory(run, rule, [0, 1, 4, 8, 16, 32, 64, 128, 256])


FAULTS = {
    "killed": lambda run, rule, dice: killed(run, rule, dice.randint(1, run[1][rule][1])),
    "cut": lambda run, rule, dice: killed(run, rule, dice.randint(1, run[1][rule][1]), "cut"),
    "file": lambda run, rule, dice: full(run, rule, lambda sizes: [dice.choice(sizes)]),
    "disk": lambda run, rule, dice: no_room(run, rule, [dice.choice([0, 1, 2, 4])]),
    "read_only": lambda run, rule, dice: read_only(run, rule),
    "memory": lambda run, rule, dice: short_of_memory(run, rule, [dice.choice([1, 8, 32])]),
}


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (rule, list(FAULTS)[number % len(FAULTS)])
        for number, rule in enumerate(RULES)
        if rule not in ("decode_eager", "single_stream")  # of stages that others run
    ],
)
def test_a_fault_in_a_stage(run, rule, fault):
    FAULTS[fault](run, rule, random.Random(rule))


def sealed_inputs(run, rule):
    """The files with a seal that a stage's command names and does not make."""
    folder, jobs, _ = run
    stage = jobs[rule][0]
    named = {folder / word.rpartition("=")[2] for word in stage.words if word.endswith(".json")}
    return sorted(
        path for path in named - set(stage.outputs)
        if path.is_file() and files.SEAL in json.loads(path.read_bytes())
    )  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_value_of_another_kind(run, rule):
    """In a file whose seal fits: it makes something, or ends with one line that names a file."""
    found, dice = sealed_inputs(run, rule), random.Random(rule)
    if not found:
        pytest.skip("reads no such file")
    with Trial(run, rule) as trial:
        for _ in range(MOMENTS or 1):
            trial.remove()
            path = dice.choice(found)
            before = path.read_bytes()
            path.write_bytes(mutators.of_other_kinds(before, dice))
            try:
                done = trial.stage.run(trial.folder)
            finally:
                path.write_bytes(before)
            if done.returncode:
                trial.says(done, "results/")


VERSIONS = {
    "results/own/tiny/features.json": (("versions", "numpy"), "features by numpy 0.1, speed by"),
    "results/own/tiny/eager/posteriors.json": (
        ("run", "versions", "torch"),
        "eager by torch 0.1",
    ),
    f"{ROW}/posteriors.json": (("run", "versions", "torch"), "accuracy by torch 0.1, speed by"),
    "results/own/tiny/cpu-fp32/single_stream.json": (("versions", "torch"), "single latency by"),
}


@contextlib.contextmanager
def other_version(path, *keys):
    """An index of what another version made."""
    data, before = files.read_sealed(path), path.read_bytes()
    found = data
    for key in keys[:-1]:
        found = found[key]
    found[keys[-1]] = "0.1"
    files.write_json(path, data)
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("name", VERSIONS)
def test_other_versions_of_libraries_are_told(run, name):
    folder, (keys, words) = run[0], VERSIONS[name]
    with contextlib.ExitStack() as stack:
        stack.enter_context(other_version(folder / name, *keys))
        for rule in ("decode", "decode_eager", "agreement", "record", "table"):
            trial = stack.enter_context(Trial(run, rule))
            done = trial.stage.run(folder)
            assert done.returncode == 0, done.stderr
        assert words in (folder / "results/table.md").read_text()


@pytest.mark.parametrize(
    ("name", "keys", "rule"),
    [
        (f"{ROW}/compiled.json", ("versions", "torch"), "infer"),
        (f"{ROW}/compiled.json", ("versions", "torch"), "timing"),
        ("results/models/tiny/torchscript_static.json", ("torch",), "compile"),
    ],
)
def test_what_another_torch_made_is_not_run(run, name, keys, rule):
    with other_version(run[0] / name, *keys), Trial(run, rule) as trial:
        done = trial.stage.run(trial.folder)
        assert_one_line_error(done, name, "made with torch 0.1, and here is", "rebuild it with")
