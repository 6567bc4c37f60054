"""The workflow with offline models: what machines without CANN say, and all of it on stand-ins."""

import csv
import json

import pytest
import yaml
from conftest import FAKES, copy_project
from helpers import interpreter, planned, snakemake
from test_workflow import configure, fails

pytest.importorskip("onnx", reason="needs envs/onnxruntime.txt")
pytest.importorskip("onnxruntime", reason="needs envs/onnxruntime.txt")
PUBLISHED = "batch_size\tutterances_per_s\tacl_utterances_per_s\n1\t1.2\t0.5\n2\t2.4\t0.9\n"


def selected(project, engines, batch_sizes, **dataset):
    """Options of a run with these engines."""
    options = configure(project, engines=engines)
    content = yaml.safe_load((project / "own.yaml").read_text())
    content["run"].update(engines=list(engines), batch_sizes=batch_sizes)
    content["datasets"]["own"].update(dataset)
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    return options


def wrapper(project, generation):
    """The Ascend profile's interpreter, where CANN's set_env.sh brings the stand-ins."""
    env = project / f"{generation}_set_env.sh"
    with_acl = FAKES / "with_acl_om"
    env.write_text(
        f"export FAKE_AIS_BENCH={generation}\nexport PATH={with_acl}:$PATH\n"
        f"export PYTHONPATH={FAKES}:{with_acl}:$PYTHONPATH\nexport X=$NOT_SET\nfalse\n"
    )
    script = project / f"python_{generation}"
    script.write_text(
        f"#!/bin/sh\nASCEND_SET_ENV={env} ASCEND_PYTHON={interpreter()} "
        f'exec {project}/profiles/ascend/python "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def test_without_cann_the_run_stops_before_any_work(tmp_path):
    """And a plan needs nothing."""
    project = copy_project(tmp_path / "checkout")
    options = selected(project, {"om": {"backend": "acl_om"}}, [1, 4])
    jobs = planned(project, *options)
    assert sorted(jobs["zeros"]) == [f"results/own/tiny/om/bs{n}/zeros.json" for n in (1, 4)]
    folder = "results/models/tiny/onnx_static_opset11_bs"
    assert sorted(jobs["onnx_of_batch_size"]) == [f"{folder}{n}.onnx" for n in (1, 4)]
    text = fails(project, *options)
    (line,) = [line for line in text.splitlines() if "has no ais_bench, aclruntime" in line]
    assert line.startswith("engines.om: backend acl_om cannot run: ")
    assert "no program atc on the PATH" in line and "npu-smi does not tell what npu:0 is" in line
    assert not (project / "results").exists() or not list((project / "results").glob("*/*/*"))


def test_the_whole_pipeline_on_the_stand_ins(tmp_path):
    """Both generations of ais_bench and both forms; zeros beside the published figure."""
    project = copy_project(tmp_path / "checkout")
    soc = {"soc_version": "Ascend310P3"}
    engines = {
        "npu-om": {"python": wrapper(project, "old"), "form": "packed"},
        "npu-om-static": {"python": wrapper(project, "new"), "buckets": [50]},
    }
    engines = {k: {"backend": "acl_om", **v, "options": soc} for k, v in engines.items()}
    (project / "published.tsv").write_text(PUBLISHED)
    options = selected(project, engines, [1, 2], published="published.tsv")
    snakemake(project, *options)
    with open(project / "results/table.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["engine"], row["batch_size"]) for row in rows] == [
        (name, size) for name in engines for size in ("1", "2")
    ]
    for row in rows:
        assert row["verdict"] == row["stream_verdict"] == "FAKE"
        assert row["identical_transcripts"] == row["utterances"] == "3"
        assert row["fill_up_rows"] == str(int(row["batch_size"]) - 1)
        assert float(row["zeros_utterances_per_s"]) > 0
        assert "precision=fp16" in row["engine_settings"] and "aclruntime" in row["versions"]
    folder = project / "results/own/tiny"
    index = json.loads((folder / "npu-om-static/bs2/compiled.json").read_text())
    assert set(index["files"]) == {"50.om", "61.om", "about.json"}
    assert index["notes"]["precision_mode"] == "force_fp16"
    zeros = json.loads((folder / "npu-om-static/bs2/zeros.json").read_text())
    assert zeros["fake"] is True and zeros["device_ms"]["count"] == 20
    assert zeros["shape"] == {"batch_size": 2, "bins": 161, "frames": 61}  # the widest
    assert zeros["command"] == "ais_bench --model 61.om --loop 20 --batchsize 2 --device 0"
    record = json.loads((folder / "npu-om/bs2/greedy/record.json").read_text())
    assert record["zeros"]["utterances_per_s"] > 0
    assert record["offline"]["compile_notes"]["runs"] >= 2
    for name in ("table.md", "report.html"):
        text = (project / "results" / name).read_text().replace("\\", "")
        assert "zeros by ais_bench/s" in text and "published ACL utterances/s" in text
        assert "as the published ACL figures were measured" in text
        assert "Engine npu-om: its backend acl_om has never run on real hardware" in text
    log = (project / "results/logs/own/tiny/npu-om/bs1/compile.log").read_text()
    assert "atc --framework=5 --model=" in log and "ATC run success" in log
    assert "Nothing to be done" in snakemake(project, "-n", *options).stdout
