"""The workflow with Ascend engines: what machines without one say, and the whole on a stand-in."""

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml
from conftest import FAKES, ROOT, copy_project
from helpers import assert_one_line_error, interpreter, planned, snakemake
from test_workflow import configure, fails


@pytest.fixture
def project(tmp_path):
    return copy_project(tmp_path / "checkout")


def test_without_the_package_the_run_stops_before_any_work(project):
    """And a plan needs nothing."""
    options = configure(project, engines={"npu": {"backend": "torch_aie"}})
    content = yaml.safe_load((project / "own.yaml").read_text())
    content["run"]["engines"] = ["npu"]
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    assert planned(project, *options)["compile"] == ["results/own/tiny/npu/bs1/compiled"]
    text = fails(project, *options)
    (line,) = [line for line in text.splitlines() if "no package torch_aie" in line]
    assert line.startswith("engines.npu: backend torch_aie cannot run: no package torch_aie")
    assert "docs/hardware.md" in line
    assert not (project / "results").exists() or not list((project / "results").glob("*/*/*"))
    # What needs no NPU runs all the same.
    snakemake(project, *options, "--", "features")


def test_the_wrapper_names_what_is_missing(tmp_path):
    def run(**environment):
        command = [ROOT / "profiles/ascend/python", "-c", "print('runs')"]
        return subprocess.run(
            command, capture_output=True, text=True, env={"PATH": os.environ["PATH"], **environment}
        )

    failed = run(ASCEND_PYTHON="/no/python", ASCEND_HOME=str(tmp_path))
    assert_one_line_error(failed, "/no/python: no such program; set ASCEND_PYTHON")
    failed = run(ASCEND_PYTHON=sys.executable, ASCEND_SET_ENV=f"{tmp_path}/set_env.sh")
    assert_one_line_error(failed, "set_env.sh: no such file; correct ASCEND_SET_ENV")
    assert run(ASCEND_PYTHON=sys.executable, ASCEND_HOME=str(tmp_path)).stdout == "runs\n"
    # A script that takes arguments takes none of ours, and what it prints is no output of ours.
    script = tmp_path / "ascend-toolkit" / "set_env.sh"
    script.parent.mkdir()
    script.write_text("echo hello; while [ $# -gt 0 ]; do shift; done; false; export X=$NOT_SET\n")
    assert run(ASCEND_PYTHON=sys.executable, ASCEND_HOME=str(tmp_path)).stdout == "runs\n"


def wrapper(project, flavour):
    """The Ascend profile's interpreter, where CANN's set_env.sh brings the stand-in."""
    env = project / f"{flavour}_set_env.sh"
    env.write_text(  # like CANN's: variables that may not be set, and a command that fails
        f"export FAKE_ASCEND_EVENTS={project}/events\n"
        f"export PYTHONPATH={FAKES}:{FAKES}/with_{flavour}:$PYTHONPATH\n"
        "export LD_LIBRARY_PATH=$ASCEND_NOT_SET:$LD_LIBRARY_PATH\nfalse\n"
    )
    script = project / f"python_{flavour}"
    script.write_text(
        f"#!/bin/sh\nASCEND_SET_ENV={env} ASCEND_PYTHON={interpreter()} "
        f'exec {project}/profiles/ascend/python "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def test_the_whole_pipeline_on_the_stand_in(project):
    """Every form, buckets and compiling at load: all rows are FAKE and say so."""
    npu = {"backend": "torch_aie", "python": wrapper(project, "torch_aie")}
    engines = {
        "npu-packed": {**npu, "form": "packed", "precision": "fp32"},
        "npu-buckets": {**npu, "buckets": [50]},
        "npu-late": {**npu, "options": {"need_compile": True}},
        "mindie": {"backend": "torch_aie", "python": wrapper(project, "mindietorch")},
    }
    (project / "events").mkdir()
    options = configure(project, engines=engines)
    content = yaml.safe_load((project / "own.yaml").read_text())
    content["run"].update(engines=list(engines), batch_sizes=[2])
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    snakemake(project, *options)
    with open(project / "results/table.tsv", newline="") as file:
        rows = {row["engine"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert list(rows) == list(engines)
    assert {row["verdict"] for row in rows.values()} == {"FAKE"}
    assert {row["stream_verdict"] for row in rows.values()} == {"FAKE"}
    assert rows["npu-packed"]["identical_transcripts"] == "3"
    assert rows["npu-packed"]["fill_up_rows"] == "1"
    # 61, 51 and 41 frames: the last two rows are alike, and 50 holds them with buckets.
    assert float(rows["npu-packed"]["padding_share"]) == pytest.approx(1 - 153 / 244, abs=1e-3)
    assert float(rows["npu-buckets"]["padding_share"]) == pytest.approx(1 - 153 / 222, abs=1e-3)
    events = [path.read_text().split("\n") for path in (project / "events").iterdir()]
    assert len(events) == 4 * (2 + 2 + 1 + 1)  # artefacts and posteriors, also of the single stream
    assert all(lines[0] == "set_device 0" and lines[-2] == "finalize" for lines in events)
    assert "torch_aie unknown" in rows["npu-buckets"]["versions"]
    assert "mindietorch unknown" in rows["mindie"]["versions"]
    for name in ("table.md", "report.html"):
        text = (project / "results" / name).read_text().replace("\\", "")
        assert "computed by a stand-in for a device" in text
        assert "Engine mindie: its backend torch_aie has never run on real hardware" in text
    folder = project / "results/own/tiny"
    index = json.loads((folder / "npu-buckets/bs1/compiled.json").read_text())
    assert [shape["frames"] for shape in index["shapes"]] == [50, 61]
    assert set(index["files"]) == {"50.pt", "61.pt", "shapes.json"}
    assert index["notes"] == {"left_to_torch": []} and index["compile_seconds"] > 0
    index = json.loads((folder / "npu-late/bs2/compiled.json").read_text())
    assert set(index["files"]) == {"torchscript.pt", "shapes.json"}
    assert float(rows["npu-late"]["compile_seconds"]) > 0
    # The trace comes from the engine's own interpreter.
    assert (project / "results/models/tiny/npu-packed/torchscript_packed_whole.pt").exists()
    assert "Nothing to be done" in snakemake(project, "-n", *options).stdout


def test_the_pipeline_through_torch_npu_on_its_stand_in(project):
    """Traced from the weights: the row is FAKE, and says what computed, and how."""
    engine = {"backend": "torchscript", "device": "npu:1", "precision": "fp16"}
    engine["python"] = wrapper(project, "torch_npu")
    (project / "events").mkdir()
    options = configure(project, engines={"npu": engine})
    content = yaml.safe_load((project / "own.yaml").read_text())
    content["run"].update(engines=["npu"], batch_sizes=[1])
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    assert "export" not in planned(project, *options)
    snakemake(project, *options)
    with open(project / "results/table.tsv", newline="") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert (row["verdict"], row["stream_verdict"]) == ("FAKE", "FAKE")
    assert row["identical_transcripts"] == "3" and int(row["peak_device_memory_bytes"]) > 0
    assert "torch_npu unknown" in row["versions"] and "Fake310P3 1" in row["versions"]
    text = (project / "results/table.md").read_text().replace("\\", "")
    line = "its backend torchscript has never run on real hardware of this kind (device npu)"
    assert f"Engine npu: {line}" in text
    events = [path.read_text().split("\n") for path in (project / "events").iterdir()]
    assert len(events) == 4 and all(lines[0] == "set_device 1" for lines in events)
    folder = project / "results/own/tiny/npu/bs1"
    assert set(json.loads((folder / "compiled.json").read_text())["files"]) == {"model.pt"}
    notes = json.loads((folder / "greedy/record.json").read_text())["offline"]["compile_notes"]
    assert notes == {"allow_hf32": {"conv": False, "matmul": False}}


def test_no_figure_of_a_stand_in_is_published():
    files = [
        ROOT / "README.md",
        *(ROOT / "resources").rglob("*.md"),
        *(ROOT / "resources").rglob("*.tsv"),
    ]
    for path in files:
        assert "| FAKE" not in path.read_text(encoding="utf-8"), path
