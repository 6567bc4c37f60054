"""What Snakemake would run after a change: exactly what the change makes stale.

One small run, in a folder with a space in its name, on recordings in many formats; then changes,
each undone before the next.
"""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
import yaml
from conftest import copy_project
from helpers import planned, snakemake, tone, write_folder, write_safetensors

CONFIG = {
    "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu"], "batch_sizes": [2, 64]},
    "datasets": {"own": {"layout": "folder", "path": "my recordings", "text_case": "upper"}},
    "models": {
        "tiny": {
            "checkpoint": "my models/tiny.safetensors",
            "training_texts": "my models/texts.txt",
        }
    },
    "engines": {"cpu": {"backend": "torchscript"}},
    "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
}
ROWS = ["results/own/tiny/cpu/bs2", "results/own/tiny/cpu/bs64"]
DATASET = "results/datasets/own"
BASE = "results/own/tiny"
# Rules that follow from a change: AFTER_x of x's outputs, OF_x of x's own source.
AFTER_RECORD = {"table", "figures", "errors", "page"}
OF_RECORD = {"record"} | AFTER_RECORD
OF_SCORE = {"score"} | OF_RECORD
OF_TIMING = {"timing", "single_stream"} | OF_RECORD
AFTER_TRANSCRIPTS = {"score", "agreement"} | OF_RECORD
OF_DECODE = {"decode"} | AFTER_TRANSCRIPTS
AFTER_POSTERIORS = OF_DECODE | OF_TIMING  # what was timed is compared with them
AFTER_EAGER = {"decode_eager", "decoding_time", "agreement"} | OF_RECORD
AFTER_FEATURES = {"compile", "eager", "infer"} | AFTER_EAGER | AFTER_POSTERIORS | OF_TIMING
OF_ENGINE = {"compile", "infer"} | AFTER_POSTERIORS | OF_TIMING
PACKAGE = "workflow/deepspeech2"


def write_recordings(folder):
    write_folder(folder / "größe", ("yes", "go on"))
    write_folder(folder, ("it's stereo",), ".flac")
    soundfile.write(folder / "u0.flac", tone(0.7, 1, 44100, 2), 44100)
    soundfile.write(folder / "old {radio}.ogg", tone(0.6, 2, 8000), 8000)
    (folder / "old {radio}.txt").write_text("over and out")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("staleness") / "a checkout")
    write_recordings(folder / "my recordings")
    write_safetensors(folder / "my models" / "tiny.safetensors")
    (folder / "my models" / "texts.txt").write_text("yes\n")
    (folder / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    snakemake(folder, "--cores", 1, "--configfile", "own.yaml")
    return folder


def plan(project, **changes):
    """What a run would do, with single keys of the configuration changed."""
    (project / "changes.yaml").write_text(yaml.safe_dump(changes))
    return planned(project, "--configfile", "own.yaml", "changes.yaml")


@contextlib.contextmanager
def edited(path, change=lambda data: data + b"\nX = 1\n"):
    """A file with another content, for a while."""
    old = path.read_bytes()
    path.write_bytes(change(old))
    try:
        yield
    finally:
        path.write_bytes(old)


def test_all_recordings_of_all_formats_are_in_the_table(project):
    with open(project / "results/table.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["utterances"], row["identical_transcripts"]) for row in rows] == [("4", "4")] * 2
    log = (project / "results/logs/datasets/own/corpus.log").read_text()
    assert "2 channels averaged" in log and "resampled from 8000 Hz" in log
    log = (project / "results/logs/own/tiny/cpu/bs64/infer.log").read_text()
    assert "filled up with 60 copies" in log


def test_nothing_changed_and_fresh_time_stamps(project):
    assert plan(project) == {}
    now = time.time()
    for path in project.rglob("*"):
        if path.is_file() and not path.is_relative_to(project / "results"):
            os.utime(path, (now, now))
    assert plan(project) == {}


def test_a_new_batch_size_builds_its_branch_and_what_shows_it(project):
    jobs = plan(project, run={"batch_sizes": [2, 64, 3]})
    branch = ("compile", "infer", "decode", "score", "agreement", "timing", "record")
    assert set(jobs) == {*branch} | AFTER_RECORD
    for rule in branch:
        assert len(jobs[rule]) == 1 and "/bs3/" in jobs[rule][0]


def test_a_smaller_selection_makes_only_what_shows_it(project):
    assert set(plan(project, run={"batch_sizes": [2]})) == AFTER_RECORD


@pytest.mark.parametrize(
    ("sources", "rules", "counts"),
    [
        # Stages: the stage, and what depends on its output.
        ("scoring/decode.py", OF_DECODE | AFTER_EAGER - {"decoding_time"}, {"decode": 2}),
        ("scoring/score.py", OF_SCORE, {"score": 2, "record": 2}),
        ("scoring/agreement.py", {"agreement"} | OF_RECORD, {"agreement": 2, "record": 2}),
        ("report/record.py", OF_RECORD, {"record": 2}),
        ("report/table.py report/errors.py report/page.py", {"table", "errors", "page"}, {}),
        ("report/figures.py", {"figures", "page"}, {}),
        ("engines/compile.py", OF_ENGINE, {"compile": 3, "infer": 3}),
        ("engines/infer.py", {"infer"} | AFTER_POSTERIORS, {"decode": 2, "record": 2}),
        ("engines/timing.py", OF_TIMING, {"timing": 2, "single_stream": 1, "record": 2}),
        ("model/convert.py", {"convert", "torchscript", "preprocess"} | AFTER_FEATURES, {}),
        ("model/torchscript.py", {"torchscript"} | OF_ENGINE, {"compile": 3}),
        ("model/eager.py", {"eager"} | AFTER_EAGER, {"decode_eager": 1, "agreement": 2}),
        ("features/preprocess.py", {"preprocess"} | AFTER_FEATURES, {"eager": 1, "infer": 3}),
        ("corpus/manifest.py", {"manifest", "preprocess"} | AFTER_FEATURES, {}),
        ("corpus/corpus.py", {"corpus", "manifest", "preprocess"} | AFTER_FEATURES, {}),
        # What some rows are made of: their dataset's layout, their engine's backend, their decoder.
        ("corpus/layouts/folder.py", {"corpus", "manifest", "preprocess"} | AFTER_FEATURES, {}),
        ("engines/torchscript/__init__.py", OF_ENGINE, {"compile": 3, "single_stream": 1}),
        ("scoring/decoders/greedy.py", OF_DECODE | AFTER_EAGER, {}),
        # What several stages share (all of it: tests/test_sources.py).
        ("model/network.py", {"torchscript"} | AFTER_FEATURES, {"compile": 3}),
        ("scoring/rates.py", OF_SCORE, {}),
        ("report/rows.py", AFTER_RECORD, {}),
        ("machine.py", OF_TIMING | {"decoding_time"}, {}),
        # What this run does not need.
        (
            "scoring/dumpout.py report/compare.py corpus/fetch.py training/learn.py "
            "training/curves.py scoring/decoders/beam.py scoring/tune.py "
            "engines/native/__init__.py corpus/layouts/an4.py config.py configure.py doctor.py",
            set(),
            {},
        ),
    ],
)
def test_an_edit_of_a_source(project, sources, rules, counts):
    """The stages that are made of it, what depends on their outputs, and nothing else."""
    with contextlib.ExitStack() as stack:
        for source in sources.split():
            stack.enter_context(edited(project / PACKAGE / source))
        jobs = plan(project)
    assert set(jobs) == rules
    for rule, count in counts.items():
        assert len(jobs[rule]) == count, rule


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"timing": {"min_batches": 2}}, OF_TIMING),
        ({"timing": {"multi": 1}}, OF_TIMING),
        ({"timing": {"governors": ["performance", "powersave"]}}, OF_TIMING),
        ({"timing": {"governors": None}}, OF_TIMING),
        ({"models": {"tiny": {"training_texts": None}}}, OF_SCORE),
        ({"accuracy": {"threads": 2}}, {"eager", "infer"} | AFTER_EAGER | AFTER_POSTERIORS),
        (
            {"engines": {"cpu": {"padding": "batch"}}},
            OF_ENGINE,
        ),
        (
            {"engines": {"cpu": {"form": "packed"}}},
            {"torchscript"} | OF_ENGINE,
        ),
        ({"datasets": {"own": {"unknown_characters": "drop"}}}, {"preprocess"} | AFTER_FEATURES),
        (
            {"datasets": {"own": {"text_case": "keep"}}},
            {"corpus", "manifest", "preprocess"} | AFTER_FEATURES,
        ),
        ({"datasets": {"own": {"published": "resources/published/an4_test.tsv"}}}, OF_RECORD),
        ({"datasets": {"an4": {"text_case": "keep"}}}, set()),
    ],
)
def test_a_changed_configuration(project, change, rules):
    assert set(plan(project, **change)) == rules


DELETED = {
    f"{DATASET}/corpus": "corpus",
    f"{DATASET}/corpus.json": "corpus",
    f"{DATASET}/labels.json": "corpus",
    f"{DATASET}/own_all_manifest.json": "manifest",
    "results/models/tiny/model.safetensors": "convert",
    "results/models/tiny/model.json": "convert",
    "results/models/tiny/torchscript_static.pt": "torchscript",
    "results/models/tiny/torchscript_static.json": "torchscript",
    f"{BASE}/features": "preprocess",
    f"{BASE}/features.json": "preprocess",
    f"{BASE}/eager/posteriors.bin": "eager",
    f"{BASE}/eager/greedy/transcripts.jsonl": "decode_eager",
    f"{BASE}/eager/greedy/decoding_time.json": "decoding_time",
    f"{ROWS[0]}/compiled": "compile",
    f"{ROWS[0]}/compiled.json": "compile",
    f"{ROWS[1]}/posteriors.bin": "infer",
    f"{ROWS[1]}/posteriors.json": "infer",
    f"{ROWS[0]}/greedy/transcripts.jsonl": "decode",
    f"{ROWS[0]}/greedy/score.json": "score",
    f"{ROWS[0]}/greedy/alignments.jsonl": "score",
    f"{ROWS[1]}/greedy/agreement.json": "agreement",
    f"{ROWS[0]}/timing.json": "timing",
    f"{ROWS[1]}/greedy/record.json": "record",
    # Of the single stream, which runs at batch size 1 whatever is selected.
    f"{BASE}/cpu/bs1/compiled": "compile",
    f"{BASE}/cpu/bs1/compiled.json": "compile",
    f"{BASE}/cpu/single_stream.json": "single_stream",
    "results/table.md": "table",
    "results/figures/wer.svg": "figures",
    "results/tables/errors.tsv": "errors",
    "results/report.html": "page",
}


# A file or a folder of each kind.
SOME = "corpus features model.json posteriors.bin transcripts.jsonl compiled timing.json table.md"


@pytest.mark.parametrize("name", [name for name in DELETED if Path(name).name in SOME.split()])
def test_a_deleted_intermediate_is_rebuilt(project, name, tmp_path):
    shutil.move(project / name, tmp_path / "aside")
    try:
        assert DELETED[name] in plan(project)
    finally:
        shutil.move(tmp_path / "aside", project / name)


def test_changed_recordings_are_seen(project):
    assert plan(project) == {}  # also after all that was changed and undone above
    folder = project / "my recordings"
    everything = {"corpus", "manifest", "preprocess"} | AFTER_FEATURES
    with edited(folder / "größe/u0.txt", lambda _: b"no"):
        assert set(plan(project)) == everything
    with edited(folder / "größe/u0.wav", lambda data: data[:-2] + b"\x07\x07"):
        assert set(plan(project)) == everything
    with edited(folder / "old {radio}.txt", lambda _: b"other"):
        assert set(plan(project)) == everything
    (folder / "notes.md").write_text("no recording")
    assert plan(project) == {}
    soundfile.write(folder / "new.wav", tone(), 16000)
    assert set(plan(project)) == everything
    (folder / "new.wav").unlink()
    assert plan(project) == {}


TEMPLATE = "workflow/report/report.html.j2"


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        (TEMPLATE, {"page"}),
        ("workflow/report/report.css", {"page"}),
        ("workflow/report/report.js", {"page"}),
        ("workflow/report/table.rst", set()),
        ("README.md", set()),
        ("config.yaml", set()),
    ],
)
def test_an_edit_of_the_page(project, name, rules):
    with edited(project / name, lambda data: data + b"\n"):
        assert set(plan(project)) == rules


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("my recordings/größe/u0.txt", {"corpus", "manifest", "preprocess"} | AFTER_FEATURES),
        ("my recordings/u0.flac", {"corpus", "manifest", "preprocess"} | AFTER_FEATURES),
        ("my models/tiny.safetensors", {"convert", "torchscript", "preprocess"} | AFTER_FEATURES),
        ("my models/texts.txt", OF_SCORE),
        ("resources/labels.json", {"corpus", "manifest", "preprocess"} | AFTER_FEATURES),
        (TEMPLATE, {"page"}),
        (f"{PACKAGE}/scoring/score.py", OF_SCORE),
    ],
)
def test_an_older_file_in_its_place_is_seen(project, tmp_path, name, rules):
    """By content: `mv` of a file that is older than the last run, and back."""
    path, aside = project / name, tmp_path / "aside"
    old = tmp_path / "old"
    old.write_bytes(path.read_bytes() + b" ")
    os.utime(old, (1000, 1000))
    path.rename(aside)
    old.rename(path)
    try:
        assert set(plan(project)) == rules
    finally:
        aside.rename(path)
    assert plan(project) == {}


def test_changed_training_texts_are_seen(project):
    with edited(project / "my models/texts.txt", lambda data: data + b"go on\n"):
        assert set(plan(project)) == OF_SCORE


def test_a_moved_checkout_builds_nothing(project, tmp_path):
    shutil.move(project, tmp_path / "elsewhere")
    try:
        assert plan(tmp_path / "elsewhere") == {}
    finally:
        shutil.move(tmp_path / "elsewhere", project)


def last_error(result):
    lines = (result.stdout + result.stderr).splitlines()
    return next(line for line in lines if line.startswith("error: "))


@pytest.mark.parametrize(
    ("altered", "rule", "consumer", "index"),
    [
        (f"{BASE}/features/spect/data1.bin", "eager", f"{BASE}/eager/posteriors.bin",
         f"{BASE}/features.json"),
        (f"{BASE}/eager/posteriors.bin", "decode_eager", f"{BASE}/eager/greedy/transcripts.jsonl",
         f"{BASE}/eager/posteriors.json"),
        (f"{ROWS[1]}/compiled/model.pt", "timing", f"{ROWS[1]}/timing.json",
         f"{ROWS[1]}/compiled.json"),
        (f"{DATASET}/corpus/wav/u0.wav", "preprocess", f"{BASE}/features.json",
         f"{DATASET}/corpus.json"),
    ],
)  # fmt: skip
def test_an_altered_intermediate_is_refused_and_the_remedy_works(
    project, altered, rule, consumer, index
):
    path = project / altered
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    own = ("--configfile", "own.yaml")
    refused = snakemake(project, *own, "--forcerun", rule, "--", consumer, check=False)
    assert refused.returncode != 0
    assert altered in last_error(refused) and last_error(refused).endswith(f"--force {index}")
    remedy = last_error(refused).partition("rebuild it with: snakemake ")[2].split()
    snakemake(project, *remedy, *own)
    snakemake(project, *own, "--", consumer)
    assert path.read_bytes() != bytes(data)


def test_results_are_byte_identical_after_everything_is_built_again(project, tmp_path):
    """Also after a kill -9 in the middle, and while another run is refused."""
    endings = (".bin", ".jsonl", "posteriors.json", "score.json", "agreement.json", "features.json")
    names = [n for n in DELETED if n.endswith(endings)]
    before = {name: (project / name).read_bytes() for name in names}
    shutil.move(project / "results", tmp_path / "results")
    shutil.rmtree(project / ".snakemake")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "own.yaml"]
    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        for line in process.stdout:
            if "rule infer" in line or "infer own" in line:
                break
        second = snakemake(project, "--cores", 1, "--configfile", "own.yaml", check=False)
        assert second.returncode != 0 and "lock" in (second.stdout + second.stderr).lower()
        os.killpg(process.pid, signal.SIGKILL)
    snakemake(project, "--unlock", "--configfile", "own.yaml")
    snakemake(project, "--cores", 1, "--configfile", "own.yaml")
    assert {name: (project / name).read_bytes() for name in names} == before
    assert not [p for p in (project / "results").rglob(".*.tmp") if p.is_file()]
