"""Whole runs, disturbed: they end in the bytes of an undisturbed one, or say why in one line.

The suite kills one run twice; `make faults N=20` kills so many more, and disturbs others.
"""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from conftest import copy_project
from helpers import planned, snakemake, write_folder
from runs import (
    FIGURES,
    MOMENTS,
    SNAKEFILE,
    WHOLE,
    accuracy,
    by_stages,
    prepare,
    start,
    temporary,
    undisturbed,
)  # fmt: skip

JOBS = 21  # of a whole run


def wait_for_jobs(run, count):
    """Wait until so many jobs have started, or the run is over."""
    for line in run.stdout:
        count -= " %" in line
        if count <= 0:
            return


def kill(run, whole=True):
    """Kill a run with its jobs, or Snakemake alone."""
    os.killpg(run.pid, signal.SIGKILL) if whole else run.kill()
    run.wait()
    run.stdout.close()


def goes_on(folder, *targets):
    snakemake(folder, *SNAKEFILE, "--unlock")
    snakemake(folder, *SNAKEFILE, "--", *targets)
    assert not temporary(folder)
    return accuracy(folder)


def test_a_run_is_killed_twice(tmp_path):
    folder, dice = prepare(tmp_path), random.Random(0)
    for jobs in (dice.randint(2, 4), dice.randint(3, 5)):
        run = start(folder, FIGURES[0])
        wait_for_jobs(run, jobs)
        time.sleep(dice.uniform(0, 1))
        kill(run)
        shutil.rmtree(folder / ".snakemake/locks")  # as --unlock does, which `goes_on` tries
    made = goes_on(folder, FIGURES[0])
    assert FIGURES[0] in made and made.items() <= undisturbed().items()


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_rerun_after_a_kill(tmp_path, moment):
    """Of all processes, or of Snakemake alone, while whose jobs live on the next run starts."""
    folder, dice = prepare(tmp_path), random.Random(moment)
    run = start(folder)
    wait_for_jobs(run, dice.randint(1, JOBS))
    time.sleep(dice.uniform(0, 2))
    kill(run, whole=moment % 2 == 0)
    assert goes_on(folder) == undisturbed()
    assert (folder / "results/report.html").read_text().endswith("</html>\n")


@WHOLE
def test_two_runs_in_one_folder(tmp_path):
    folder = prepare(tmp_path)
    run = start(folder, *FIGURES)
    wait_for_jobs(run, 2)
    second = start(folder, *FIGURES)
    said = second.communicate()[0]
    assert second.returncode == 1 and "Directory cannot be locked" in said
    run.communicate()
    assert run.returncode == 0 and accuracy(folder) == undisturbed()


@WHOLE
def test_two_runs_in_two_folders_that_share_inputs(tmp_path):
    prepare(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for name in ("recordings", "tiny.safetensors"):
        (tmp_path / "b" / name).symlink_to(tmp_path / "a" / name)
    shutil.copy(tmp_path / "a/own.yaml", tmp_path / "b")
    runs = [start(tmp_path / name, *FIGURES) for name in "ab"]
    for run in runs:
        said = run.communicate()[0]
        assert run.returncode == 0, said
    assert accuracy(tmp_path / "a") == accuracy(tmp_path / "b") == undisturbed()


@WHOLE
def test_the_clock_jumps_back(tmp_path):
    """Inputs, intermediates and sources have dates in the future; then some are changed.

    What is made from files of the future Snakemake refuses, as it would make it again and again.
    """
    project = copy_project(tmp_path / "project")
    prepare(project)
    own = ("--configfile", "own.yaml", "--cores", 2)
    snakemake(project, *own)
    assert accuracy(project) == undisturbed()
    future = time.time() + 1e8
    for path in (p for p in project.rglob("*") if p.is_file()):
        os.utime(path, (future, future))
    assert planned(project, *own) == {}
    write_folder(project / "recordings", ("YES", "NO", "STOP"))
    with open(project / "workflow/deepspeech2/scoring/decode.py", "a") as file:
        file.write("\nX = 1\n")
    result = snakemake(project, *own, check=False)
    assert not errors(result) and "could indicate a clock skew problem" in result.stderr
    for path in (p for p in project.rglob("*") if p.is_file()):
        path.touch()
    snakemake(project, *own)
    prepare(tmp_path / "other")
    write_folder(tmp_path / "other/recordings", ("YES", "NO", "STOP"))
    expected = by_stages(tmp_path / "other")
    made = accuracy(project)
    scores = {path for path in made if path.endswith("score.json")}  # have a hash of the code
    assert made.keys() == expected.keys() and scores
    assert {k: v for k, v in made.items() if k not in scores} == {
        k: v for k, v in expected.items() if k not in scores
    }
    assert planned(project, *own) == {}


@pytest.fixture
def disk(tmp_path):
    """A folder whose results/ are on a disk of their own, to be mounted with options."""
    if os.geteuid():
        pytest.skip("needs root, to mount a small disk")
    folder = prepare(tmp_path)
    (folder / "results").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", folder / "results"], check=False).returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder / "results"], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", folder / "results"], check=True)


def errors(result):
    """The lines of errors that a run showed; no traceback among what it said."""
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text and "terminate" not in text, text
    return [line for line in text.splitlines() if line.startswith("error: ")]


@WHOLE
@pytest.mark.parametrize("kilobytes", [32, 256, 512, 1024, 2048])
def test_results_on_a_full_disk(disk, kilobytes):
    remount(disk, f"size={kilobytes}k")
    said = errors(snakemake(disk, *SNAKEFILE, check=False))
    assert said and all("results/" in line for line in said)
    assert all("No space left on device; make room" in line or "are free" in line for line in said)
    assert not temporary(disk)
    remount(disk, "size=64m")
    snakemake(disk, *SNAKEFILE)
    assert accuracy(disk) == undisturbed()


@WHOLE
def test_results_that_are_read_only(disk):
    """Also where all folders are there: Snakemake fails there with a traceback of its own."""
    for targets in (FIGURES, ()):
        remount(disk, "ro")
        result = snakemake(disk, *SNAKEFILE, check=False)
        assert not errors(result) and "results/: cannot be written; see to" in result.stderr
        remount(disk, "rw")
        snakemake(disk, *SNAKEFILE, "--", *targets)
    assert accuracy(disk) == undisturbed()
