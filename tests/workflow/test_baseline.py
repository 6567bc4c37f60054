"""The comparison with another run's results, and its gate, as the workflow has them."""

import shutil

import pytest
from conftest import ROOT, copy_project
from deepspeech2.cli import UserError
from deepspeech2.configure import complete
from deepspeech2.files import read_sealed, write_json
from deepspeech2.report.limits import Limits
from helpers import snakemake
from test_workflow import configure, error_line, fails


def test_the_configuration_of_the_baseline(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "old").mkdir()
    assert complete({"baseline": "~/old"}).baseline == str(tmp_path / "old")
    assert complete({}).baseline is None
    assert dict(complete({}).compare) == Limits()._asdict()
    found = complete({"compare": {"max_slowdown": 0.2}}).compare
    assert dict(found) == {**Limits()._asdict(), "max_slowdown": 0.2}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"baseline": "absent"}, "baseline: absent: no such folder"),
        ({"baseline": "README.md"}, "baseline: README.md: no such folder"),
        ({"baseline": "a{b}"}, "baseline: "),
        ({"baseline": ""}, "baseline: "),
        ({"baseline": 1}, "baseline: 1: must be a valid string"),
        ({"compare": {"confidence": 1}}, "compare.confidence: 1"),
        ({"compare": {"max_slowdown": 1}}, "compare.max_slowdown: 1"),
        ({"compare": {"max_wer_increase": -1}}, "compare.max_wer_increase: -1"),
        ({"compare": {"max_cer": 1}}, "compare.max_cer: unknown key"),
        (
            {"datasets": {"comparison.md": {"layout": "an4"}}},
            "comparison.md: this name is reserved",
        ),
    ],
)
def test_faults_of_the_baseline_are_one_line(monkeypatch, given, words):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as error:
        complete(given)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_compare_and_gate_in_the_workflow(tmp_path):
    project = copy_project(tmp_path / "checkout")
    options = configure(project)
    # Without a baseline: one line, and nothing is built for it.
    line = error_line(fails(project, *options, "--", "gate"))
    assert "add --config baseline=FOLDER" in line
    assert not (project / "results/own").exists()

    row = "results/own/tiny/cpu-fp32/bs1/greedy"
    snakemake(project, *options, "--", f"{row}/record.json")
    change_speed(project / row, 1)
    copy = tmp_path / "old results"
    shutil.copytree(project / "results", copy)
    again = (*options, "--config", f"baseline={copy}", "--")
    snakemake(project, *again, "compare")
    comparison = project / "results/comparison.md"
    assert comparison.read_text().splitlines()[0].endswith(": PASS")
    snakemake(project, *again, "gate")
    log = project / "results/logs/gate.log"
    assert log.read_text() == "all 1 rows pass\n"
    log.unlink()
    lines = snakemake(project, *again, "gate").stderr.splitlines()  # runs whenever it is asked for
    started = [line for line in lines if " %" in line and "jobs done" not in line]
    assert log.exists() and [line.split()[-1] for line in started] == ["gate"]

    change_speed(copy / row.partition("/")[2], 10)
    line = error_line(fails(project, *again, "gate"))
    assert "1 of 1 rows do not pass" in line and "FAIL: slower by at least" in line
    assert comparison.read_text().splitlines()[0].endswith(": FAIL")
    assert (project / "results/comparison.tsv").exists()


def change_speed(folder, factor):
    """Make a run so many times as fast, and steady whatever else this machine was doing."""
    record = read_sealed(folder / "record.json")
    record["offline"]["utterances_per_s"] *= factor
    record["offline"]["spread"] = 1e-3
    write_json(folder / "record.json", record)
