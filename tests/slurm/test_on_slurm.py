"""The workflow on a real Slurm of one machine: the same table, whatever happens."""

import csv
import os
import shutil
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT, copy_project
from helpers import run_module, write_folder, write_safetensors

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_SLURM"), reason="make test-slurm: takes minutes"),
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm, which takes root"),
    pytest.mark.skipif(
        not (shutil.which("slurmctld") and shutil.which("slurmd")),
        reason="needs Slurm (Debian: apt-get install slurm-wlm)",
    ),
]
# What the tests may wait for is shorter than on a cluster.
OPTIONS = (
    "--workflow-profile profiles/slurm --cores 2 --max-threads 2 --latency-wait 5 "
    "--slurm-no-account --slurm-init-seconds-before-status-checks 1 --slurm-status-command squeue"
).split()
OWN = {
    "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu"], "batch_sizes": [2]},
    "datasets": {"own": {"layout": "folder", "path": "set", "shards": 3}},
    "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
    "engines": {"cpu": {"backend": "native", "padding": "batch"}},
    "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
}
FILES = [
    f"results/own/tiny/cpu/bs2/greedy/{name}"
    for name in ("transcripts.jsonl", "score.json", "alignments.jsonl", "agreement.json")
]


def command(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([ROOT / "tests/slurm/up", folder], check=True)
    yield
    subprocess.run([ROOT / "tests/slurm/down", folder], check=True)


@pytest.fixture
def project(tmp_path):
    folder = copy_project(tmp_path / "checkout")
    write_folder(folder / "set", "YES GO STOP LEFT RIGHT ON OFF".split())
    write_safetensors(folder / "tiny.safetensors")
    (folder / "own.yaml").write_text(yaml.safe_dump(OWN))
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a run without Slurm makes."""
    folder = copy_project(tmp_path_factory.mktemp("plain") / "checkout")
    write_folder(folder / "set", "YES GO STOP LEFT RIGHT ON OFF".split())
    write_safetensors(folder / "tiny.safetensors")
    (folder / "own.yaml").write_text(yaml.safe_dump(OWN))
    done = run_module(["snakemake", "--cores", "2", "--configfile", "own.yaml"], folder)
    assert done.returncode == 0, done.stderr
    return contents(folder)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def on_slurm(folder, *more):
    return ["snakemake", *OPTIONS, "--configfile", "own.yaml", *more]


def started(folder, *more):
    """A run that goes on by itself, and when its first shard is computed."""
    process = subprocess.Popen(
        [sys.executable, "-m", *on_slurm(folder, *more)],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        jobs = command("squeue", "-h", "-t", "RUNNING", "-o", "%i %k").splitlines()
        ours = [line.split()[0] for line in jobs if "of3" in line]
        if ours:
            return process, ours[0]
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    raise AssertionError("no shard was started")


def finished(process):
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said[-3000:]


def test_shards_on_slurm_give_the_same_bytes(slurm, project, expected):
    done = run_module(on_slurm(project), project, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(project) == expected
    asked = command("squeue", "-t", "all", "-h", "-o", "%k %m %C %h").splitlines()
    groups = {line.split("_")[3] for line in asked if line.startswith("rule_own_tiny_")}
    assert groups == {"1of3", "2of3", "3of3", "sample"}
    timing = [line.split() for line in asked if "rule_timing" in line or "single_stream" in line]
    assert timing and all(words[-1] == "NO" for words in timing)  # others may not share the node


def test_a_cancelled_shard_is_run_again(slurm, project, expected):
    process, job = started(project)
    command("scancel", job)
    finished(process)
    assert contents(project) == expected


def test_a_node_that_goes_down_and_comes_back(slurm, project, expected):
    process, _ = started(project)
    host = command("hostname", "-s").strip()
    command("scontrol", "update", f"nodename={host}", "state=down", "reason=test")
    time.sleep(3)
    # Refused once it is back by itself, as it is by the controller's rules when it answers.
    subprocess.run(["scontrol", "update", f"nodename={host}", "state=resume"], check=False)
    finished(process)
    assert contents(project) == expected


def test_a_submitting_process_that_is_killed(slurm, project, expected):
    process, _ = started(project)
    process.kill()
    process.wait()
    command("scancel", "--user=root")
    while command("squeue", "-h", "-t", "RUNNING,COMPLETING", "-o", "%i"):
        time.sleep(0.2)
    assert (
        run_module(["snakemake", "--unlock", "--configfile", "own.yaml"], project).returncode == 0
    )
    done = run_module(on_slurm(project), project, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(project) == expected


def test_an4_in_three_shards(slurm, tmp_path, an4_archive):
    folder = copy_project(tmp_path / "checkout")
    run = {"datasets": ["an4"], "models": ["embedded"], "engines": ["native-fp32"]}
    own = {
        "run": {**run, "batch_sizes": [16]},
        "datasets": {"an4": {"shards": 3}},
        "timing": OWN["timing"],
        "archive": str(an4_archive),
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    done = run_module(on_slurm(folder), folder, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(folder / "results/table.tsv", newline="") as file:
        [row] = csv.DictReader(file, delimiter="\t")
    assert row["identical_transcripts"] == row["utterances"] == "130"
    assert float(row["wer"]) == pytest.approx(5.821, abs=0.001)
