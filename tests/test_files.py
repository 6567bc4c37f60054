"""Whole files or none; the sources behind a stage; how stages fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch_names
from conftest import ROOT
from deepspeech2 import backends, files, sources
from deepspeech2.stage import UserError
from helpers import assert_one_line_error, run_stage

PACKAGE = ROOT / "workflow" / "deepspeech2"
STAGES = sorted(p.stem for p in PACKAGE.glob("*.py") if "\n    stage.run(main)" in p.read_text())


def test_all_stages_are_found():
    assert set(STAGES) >= set(
        "agreement checkpoint compile corpus decode dumpout eager export fetch manifest posteriors "
        "preprocess record score table timing".split()
    )


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    path = tmp_path / "a"
    for content in ("old", "half", "new"):
        try:
            with files.replacing_folder(path) as temporary:
                (temporary / content).write_text(content)
                if content == "half":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert [p.name for p in path.iterdir()] == ["old"]
    assert [p.name for p in path.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path):
    code = (
        "import sys, time; from deepspeech2 import files\n"
        "with files.replacing(sys.argv[1]) as t:\n"
        "    t.write_text('half'); print('ready', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "a"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    with files.replacing(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_altered_and_missing_files_name_the_remedy(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    digest = files.sha256(path)
    files.require_unaltered(path, digest, "i.json")
    path.write_text("y")
    with pytest.raises(UserError, match="altered.*snakemake --cores all --force i.json"):
        files.require_unaltered(path, digest, "i.json")
    path.unlink()
    with pytest.raises(UserError, match="missing.*i.json"):
        files.require_unaltered(path, digest, "i.json")


def names(*modules):
    return {path.stem for path in sources.of(*(f"deepspeech2.{m}" for m in modules))}


def test_sources_of_stages():
    assert names("decode") == {
        "__init__", "decode", "posteriors_file", "stage", "files", "labels"
    }  # fmt: skip
    assert "decode" not in names("score") | names("timing") | names("posteriors")
    assert "score" not in names("decode", "timing", "posteriors", "preprocess", "eager")
    assert {"alignment", "score", "posteriors_file"} <= names("agreement")
    assert names("record") == {"__init__", "record", "stage", "files"}
    assert not {"score", "timing", "agreement", "alignment"} & names("table", "dumpout")
    assert {"features", "compile"} <= names("timing") and "spectrogram" not in names("timing")
    assert {"spectrogram", "audio", "recordings", "labels"} <= names("preprocess")
    assert "torchscript" not in names("compile")  # only the engine's own backend is added
    assert "network" in names("export") and "network" not in names("posteriors")
    with pytest.raises(ValueError, match="no module"):
        sources.of("deepspeech2.absent")


def test_the_digest_follows_what_a_stage_is_made_of(tmp_path):
    """Also in another place, and whatever the order in which files are found."""
    copy = shutil.copytree(PACKAGE, tmp_path / "deepspeech2")

    def digests(*names):
        code = (
            "import sys; from deepspeech2 import sources\n"
            "print(*(sources.digest('deepspeech2.' + name) for name in sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, *names]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.check_output(command, text=True, env=environment).split()

    stages = ("decode", "score", "record")
    before = digests(*stages)
    assert before == [sources.digest(f"deepspeech2.{name}") for name in stages]
    assert len(set(before)) == 3
    source = (copy / "alignment.py").read_text()
    (copy / "alignment.py").write_text(source + "\n# another line\n")
    after = digests(*stages)
    assert [a == b for a, b in zip(before, after)] == [True, False, True]
    (copy / "alignment.py").write_text(source)
    assert digests(*stages) == before
    assert sources.digest("deepspeech2.record", "deepspeech2.score") == sources.digest(
        "deepspeech2.score", "deepspeech2.record"
    )


def test_every_import_of_every_stage_is_followed():
    """What Python really imports from the package is in the list, for each stage."""
    code = """
import importlib, os, sys, librosa, torch
for stage in sys.argv[1:]:
    if os.fork() == 0:
        importlib.import_module(f"deepspeech2.{stage}")
        files = {m.__file__ for n, m in sys.modules.items() if n.startswith("deepspeech2")}
        print(stage, *files, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
    command = [sys.executable, "-c", code, *STAGES]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    imported = {line.split()[0]: line.split()[1:] for line in found.splitlines()}
    assert list(imported) == list(STAGES)
    for name, files_of_it in imported.items():
        listed = {str(path) for path in sources.of(f"deepspeech2.{name}")}
        assert len(files_of_it) > 2 and set(files_of_it) <= listed, name


def test_what_a_killed_process_left_is_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    names = f".x.{process.pid}.tmp", f".x.{os.getpid()}9999999.tmp", f".x.{os.getppid()}.tmp"
    for name in (*names, ".x.a.tmp", f".xy.{process.pid}.tmp"):
        (tmp_path / name).write_text("half")
    (tmp_path / f".x.{process.pid}.old.tmp").mkdir()
    with files.replacing(tmp_path / "x") as temporary:
        temporary.write_text("whole")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"x", names[2], ".x.a.tmp", f".xy.{process.pid}.tmp"}
    assert (tmp_path / "x").read_text() == "whole"


def test_every_registered_backend_is_a_module():
    for name, entry in backends.BACKENDS.items():
        settings = {"backend": name, "device": None, "precision": None, "options": {}}
        engine = backends.Engine(**backends.completed(settings), form="static", padding="longest")
        assert sources.of(entry.module)
        assert backends.create(engine).source in backends.SOURCES


@pytest.mark.parametrize("name", STAGES)
def test_help_teaches(name):
    result = run_stage(name, "--help")
    assert result.returncode == 0
    assert f"python -m deepspeech2.{name}" in result.stdout or "usage:" in result.stdout
    text = result.stdout.split("\n\n", 1)[1]
    assert len(text) > 200 and "--log" in text


def test_the_error_is_also_the_last_line_of_the_log(tmp_path):
    log = tmp_path / "x.log"
    arguments = ("--index", tmp_path / "no.json", "--corpus", tmp_path, "--split", "all")
    result = run_stage("manifest", *arguments, "--manifest", tmp_path / "m.json", "--log", log)
    assert_one_line_error(result, "no.json")
    assert log.read_text().splitlines()[-1] == result.stderr.strip()


def test_interruption_is_one_line(tmp_path):
    code = "from deepspeech2 import stage\nimport time\ndef main(argv):\n" \
           "    print('ready', flush=True)\n    time.sleep(60)\nstage.run(main)"  # fmt: skip
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        # Programs that a shell started in the background ignore the signal.
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == "error: interrupted; run again to continue"
    assert process.returncode == 130


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_missing_right_is_one_line(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    utterance = {"id": "a", "reference": "A", "hypothesis": "A", "seconds": 1.0}
    (tmp_path / "t.jsonl").write_text(json.dumps(utterance))
    (tmp_path / "f.json").write_text(json.dumps({"utterances": [utterance]}))
    result = run_stage(
        "score", "--transcripts", tmp_path / "t.jsonl", "--features-index", tmp_path / "f.json",
        "--score", tmp_path / "closed" / "s.json", "--alignments", tmp_path / "closed" / "a.jsonl",
    )  # fmt: skip
    assert_one_line_error(result, "closed", "Permission denied")


@pytest.mark.parametrize("end", ["None", "1 / 0"])
def test_what_a_stage_imported_is_not_looked_through_at_its_end(end):
    code = (
        "import atexit, gc\nfrom deepspeech2 import stage\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        f"stage.run(lambda argv: {end})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "True\n" and ("ZeroDivisionError" in result.stderr) == (end != "None")


def test_the_package_is_within_its_size():
    """Lines that are not blank. Whoever adds some removes others, or argues for other bounds."""
    lines = {
        path.name: sum(bool(line.strip()) for line in path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert max(lines.values()) <= 300 and sum(lines.values()) <= 7950, lines
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 60


def test_an_engines_own_python_needs_no_newer_torch_than_2_0():
    """The names of torch that its stages use stand in a list that torch 2.0 was asked for."""
    listed = torch_names.NAMES.read_text().splitlines()
    assert set(torch_names.used()) <= set(listed), "run tests/torch_names.py --verify on torch 2.0"


def test_the_package_runs_under_python_3_9():
    """Its syntax and the names that it uses of the standard library, by vermin."""
    vermin = Path(sys.executable).parent / "vermin"
    options = ["-t=3.9-", "--no-tips", "--violations"]
    result = subprocess.run([vermin, *options, PACKAGE], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
