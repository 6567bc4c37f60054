"""Which files a stage is made of: an edit of one of them makes its results stale."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from deepspeech2 import sources
from test_structure import STAGES

PACKAGE = ROOT / "workflow" / "deepspeech2"
# Modules that have the name of a stage elsewhere, or a stage that is a library, too.
SHARED_NAMES = {"corpus", "manifest", "figures"}


def names(*modules):
    return {path.stem for path in sources.of(*(f"deepspeech2.{m}" for m in modules))}


def test_sources_of_stages():
    assert names("scoring.decode") == {
        "__init__", "cli", "cores", "files", "labels", "posteriors", "decode", "options", "arpa",
        "times", "tuned", "architecture",
    }  # fmt: skip
    assert names("report.record") == {"__init__", "cli", "cores", "files", "record"}
    assert not {"decode", "agreement"} & names("scoring.score", "engines.timing", "engines.infer")
    assert "score" not in names("scoring.agreement", "report.page", "report.compare")
    assert not {"rates", "alignment"} & names("scoring.decode", "scoring.dumpout", "engines.infer")
    assert {"batches", "artefact"} <= names("engines.timing")
    assert not {"spectrogram", "compile", "infer"} & names("engines.timing")
    assert {"spectrogram", "audio", "manifest", "labels"} <= names("features.preprocess")
    assert not {"preprocess", "score", "decode", "figures"} & names("training.learn")
    assert "session" not in names("engines.compile")  # only the engine's own backend is added
    assert "network" in names("model.torchscript") and "network" not in names("engines.infer")


# All that say errors, by word or in sum, align texts.
OF_TEXTS = (
    "check report.board report.compare report.errors report.figures report.page report.submission "
    "report.table scoring.agreement scoring.ctm scoring.language_model scoring.score scoring.trn "
    "transcribe.__main__"
)
SHARED_SOURCES = {
    "scoring/alignment.py": f"{OF_TEXTS} scoring.tune training.learn",
    "scoring/transcripts.py": OF_TEXTS,
    "report/summary.py": "check report.board report.page report.table",
    "report/columns.py": "check report.board report.compare report.page report.table",
    "report/style.py": "report.figures report.page training.curves",
    "report/listing.py": "report.errors report.page",
    "features/spectrogram.py": (
        "features.plan features.preprocess model.convert model.package model.random_weights "
        "report.page training.learn transcribe.__main__"
    ),
}


@pytest.mark.parametrize("source", SHARED_SOURCES)
def test_what_stages_share(source):
    of_it = {s for s in STAGES if PACKAGE / source in sources.of(f"deepspeech2.{s}")}
    assert of_it == set(SHARED_SOURCES[source].split())


def test_no_stage_is_made_of_another():
    """An edit of a command line reruns that stage, and what depends on its output."""
    # Two are of no rule, and do what several do; the board checks what several made.
    for stage in set(STAGES) - {"transcribe.__main__", "check", "report.board"}:
        others = names(stage) & {name.rpartition(".")[2] for name in STAGES} - SHARED_NAMES
        assert others <= {stage.rpartition(".")[2]}, stage


def test_modules_that_are_missing_are_named():
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

    stages = ("scoring.decode", "scoring.score", "report.record")
    before = digests(*stages)
    assert before == [sources.digest(f"deepspeech2.{name}") for name in stages]
    assert len(set(before)) == 3
    source = (copy / "scoring/alignment.py").read_text()
    (copy / "scoring/alignment.py").write_text(source + "\n# another line\n")
    after = digests(*stages)
    assert [a == b for a, b in zip(before, after)] == [True, False, True]
    (copy / "scoring/alignment.py").write_text(source)
    assert digests(*stages) == before
    assert sources.digest(
        "deepspeech2.report.record", "deepspeech2.scoring.score"
    ) == sources.digest("deepspeech2.scoring.score", "deepspeech2.report.record")


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
