"""Files of the user's that change while a stage reads them: the old, the new, or one line.

A file is changed before one of the stage's accesses to files, by its number. The suite takes some,
`make faults` all.
"""

import os
import random
import shutil
import subprocess

import pytest
import soundfile
from helpers import assert_one_line_error, tiny_weights, tone, write_folder, write_safetensors
from runs import CONFIG, FIGURES, WHOLE, content, prepare, stages

TINY = {**CONFIG["models"]["tiny"], "training_texts": "texts.txt"}
EDITS = {  # the rule that reads it, and the change
    "replaced": ("corpus", "mv new.wav recordings/u1.wav"),
    "appended": ("corpus", "cat new.wav >> recordings/u1.wav"),
    "cut": ("corpus", "truncate -s 4000 recordings/u1.wav"),
    "rewritten": ("corpus", "cat new.wav > recordings/u1.wav"),
    "transcript": ("corpus", "echo NO > recordings/u2.txt"),
    "removed": ("corpus", "rm recordings/u2.txt recordings/u2.wav"),
    "added": ("corpus", "cp new.wav recordings/u9.wav; echo NO > recordings/u9.txt"),
    "checkpoint": ("convert", "mv new.safetensors tiny.safetensors"),
    "texts": ("score", "echo STOP >> texts.txt"),
}


def write_inputs(folder):
    """The user's files as they are before they change."""
    shutil.rmtree(folder / "recordings", ignore_errors=True)
    write_folder(folder / "recordings")
    soundfile.write(folder / "new.wav", tone(0.5, 7), 16000)
    write_safetensors(folder / "tiny.safetensors")
    write_safetensors(folder / "new.safetensors", weights=tiny_weights(seed=1))
    (folder / "texts.txt").write_text("YES\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which every stage ran, and its stages by rule."""
    folder = prepare(tmp_path_factory.mktemp("changing"), models={"tiny": TINY})
    write_inputs(folder)
    jobs = {}
    short = ("results/datasets/own/corpus.json", "results/models/tiny/model.json")
    for stage in stages(folder, *(FIGURES if "FAULTS" in os.environ else short)):
        jobs[stage.rule] = stage
        assert stage.run(folder).returncode == 0
    return folder, jobs


def made(stage):
    return [sorted(content(path).items()) for path in stage.outputs]


def changing(run, name, monkeypatch, pick):
    (folder, jobs), (rule, edit) = run, EDITS[name]
    stage = jobs[rule]
    monkeypatch.setenv("EDIT", f"{edit}; touch edited")
    write_inputs(folder)
    done = stage.run(folder, "count", 1)
    assert done.returncode == 0, done.stderr
    count, old = int(done.stdout), made(stage)
    subprocess.run(edit, cwd=folder, shell=True, check=True)
    is_good = stage.run(folder).returncode == 0  # a cut recording is refused
    new = made(stage)
    assert (old != new) == is_good
    for number in pick(count):
        write_inputs(folder)
        done = stage.run(folder, "edit", number)
        if not (folder / "edited").exists():
            break  # it had fewer accesses
        (folder / "edited").unlink()
        if done.returncode:
            assert_one_line_error(done)
        else:
            assert made(stage) in (old, new), number
        assert (stage.run(folder).returncode == 0) == is_good
        assert not is_good or made(stage) == new


@pytest.mark.parametrize("name", ["appended", "checkpoint"])
def test_a_file_changes(run, name, monkeypatch):
    changing(run, name, monkeypatch, lambda n: [random.Random(name).randint(n // 4, n * 3 // 4)])


@WHOLE
@pytest.mark.parametrize("name", EDITS)
def test_a_file_changes_at_any_moment(run, name, monkeypatch):
    changing(run, name, monkeypatch, lambda count: range(1, count + 1))
