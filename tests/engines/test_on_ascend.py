"""Acceptance on a real Ascend NPU: `make test-ascend`, or `make test-ascend BACKEND=acl_om`.
Everywhere else these tests skip.

The sample corpus runs through the NPU engines of config.yaml, and what comes out is compared with
the eager network on the CPU. Whatever happens, results/ascend-report.tar.gz then holds what
somebody without an NPU needs to see (profiles/ascend/REPORT.md says how to send it).
"""

import csv
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, copy_project
from helpers import snakemake

if not os.environ.get("TEST_ASCEND"):
    pytest.skip("needs an Ascend NPU: make test-ascend", allow_module_level=True)

PYTHON = ROOT / "profiles" / "ascend" / "python"
DEVICE = os.environ.get("ASCEND_DEVICE", "0")  # number of the one to test
BACKEND = os.environ["TEST_ASCEND"]
# Those of config.yaml, and what is made of the static one. The last one computes in float32.
ENGINES = {
    "torch_aie": ("npu-packed", "npu-static", "npu-buckets", "npu-late", "npu-fp32"),
    "acl_om": ("npu-om", "npu-om-static", "npu-buckets", "npu-fp32"),
}[BACKEND]
STATIC, FP32 = ENGINES[1], ENGINES[-1]
SIZES = (1, 8)
# Of the posteriors, from those of the eager network in float32.
LARGEST_DIFFERENCE = {FP32: 1e-3}
LARGEST_DIFFERENCE_FP16 = 0.1
NEWEST_LOGS = 20  # of CANN's own


def doctor(*arguments):
    """What the doctor says in the engines' own Python."""
    command = [PYTHON, "-m", "deepspeech2.doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def soc_version():
    """The soc_version that the doctor names for the device, or the reference's."""
    try:
        backends = json.loads(doctor("--json").stdout)["backends"]
        (found,) = (one["found"] for one in backends if one["backend"] == BACKEND)
    except (ValueError, LookupError):  # the report has what it said instead
        return "Ascend310P3"
    line = found.get(f"npu:{DEVICE}", "")
    return line.partition("soc_version: ")[2].rstrip(")") or "Ascend310P3"


def configuration(base):
    """A run of all engines on the sample, from those of the project's configuration."""
    engines = {name: {**base["engines"].get(name, base["engines"][STATIC])} for name in ENGINES}
    engines["npu-buckets"] = {**base["engines"][STATIC], "buckets": [150, 250, 350]}
    engines[FP32]["precision"] = "fp32"
    soc = soc_version()
    for name, engine in engines.items():
        engine["device"] = f"npu:{DEVICE}"
        late = {"need_compile": True} if name == "npu-late" else {}
        engine["options"] = {**engine.get("options", {}), "soc_version": soc, **late}
    return {
        "run": {"datasets": ["sample"], "models": ["embedded"], "engines": list(ENGINES),
                "batch_sizes": list(SIZES)},
        "engines": engines,
        "timing": {"warmup_batches": 5, "min_batches": 10, "min_seconds": 2},
    }  # fmt: skip


def write_report(made):
    """Put what went on into an archive: doctor, settings, logs, indexes, table."""
    for name, arguments in (("doctor.txt", []), ("doctor.json", ["--json"])):
        done = doctor(*arguments)
        (made / name).write_text(done.stdout + done.stderr)
    names = ["doctor.txt", "doctor.json", "snakemake.txt", "ascend_test.yaml", "results/logs"]
    names += ["results/table.tsv", "results/table.md"]
    files = {made / name: name for name in names}
    for path in sorted(made.glob("results/sample/**/*.json")):
        files[path] = str(path.relative_to(made))
    logs = sorted((Path.home() / "ascend" / "log").rglob("*.log"), key=lambda p: p.stat().st_mtime)
    files.update({path: f"cann/{path.parent.name}_{path.name}" for path in logs[-NEWEST_LOGS:]})
    target = ROOT / "results" / "ascend-report.tar.gz"
    target.parent.mkdir(exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        for path, name in files.items():
            if path.exists():
                archive.add(path, name)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which the pipeline has run, as far as it came."""
    made = copy_project(tmp_path_factory.mktemp("ascend") / "checkout")
    try:
        base = yaml.safe_load((made / "config.yaml").read_text())
        (made / "ascend_test.yaml").write_text(yaml.safe_dump(configuration(base)))
        options = ["--cores", "all", "--configfile", "ascend_test.yaml", "--keep-going"]
        done = snakemake(made, *options, check=False, timeout=4 * 3600)  # as a program, no fork
        (made / "snakemake.txt").write_text(done.stdout + done.stderr)
    finally:
        write_report(made)
    return made


@pytest.fixture(scope="module")
def records(project):
    """The records that were made, by engine and batch size: one engine may fail, others not."""
    found = {}
    for engine in ENGINES:
        for size in SIZES:
            path = project / f"results/sample/embedded/{engine}/bs{size}/greedy/record.json"
            if path.exists():
                found[engine, size] = json.loads(path.read_text())
    return found


def of(records, engine, size):
    """The record of a row, which must be there."""
    assert (engine, size) in records, f"{engine} at {size} was not made: see snakemake.txt"
    return records[engine, size]


def test_the_doctor_finds_nothing_missing():
    done = doctor("--require", BACKEND)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_device_computed_it(records, engine, size):
    """And no stand-in; the record says which plugin it was."""
    found = of(records, engine, size)
    assert found["offline"]["verdict"] in ("VALID", "QUICK", "INVALID")
    assert {"torch_aie", "mindietorch", "aclruntime"} & set(found["environment"]["versions"])
    assert found["offline"]["utterances_per_s"] > 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("engine", ENGINES)
def test_posteriors_and_transcripts_are_those_of_the_network(records, engine, size):
    found = of(records, engine, size)
    limit = LARGEST_DIFFERENCE.get(engine, LARGEST_DIFFERENCE_FP16)
    assert found["agreement"]["largest_posterior_difference"] <= limit
    same, total = found["agreement"]["identical_transcripts"], found["accuracy"]["utterances"]
    assert same == total if engine == FP32 else same >= 0.95 * total


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_filled_up_and_sorted_comes_back_right(records, engine):
    """Batch size 1 needs neither sorting nor filling up: 8 must recognise the same."""
    one, eight = (of(records, engine, size)["accuracy"]["wer"]["percent"] for size in SIZES)
    assert abs(one - eight) <= 1.0


@pytest.mark.parametrize("engine", ENGINES)
def test_waiting_belongs_to_the_forward_pass(records, engine):
    """If the clock stopped before the device did, the time would be in the download."""
    phases = of(records, engine, 8)["offline"]["phase_seconds"]
    assert phases["forward"] > phases["download"]


def test_every_bucket_has_its_file(project):
    path = project / "results/sample/embedded/npu-buckets/bs1/compiled.json"
    index = json.loads(path.read_text())
    shapes = [shape["frames"] for shape in index["shapes"]]
    assert len(shapes) > 1 and len(index["files"]) == len(shapes) + 1


@pytest.mark.skipif(BACKEND != "acl_om", reason="has no figures of zeros")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("engine", ENGINES)
def test_zeros_are_timed(records, engine, size):
    """By ais_bench, which computes them without copies."""
    found = of(records, engine, size)
    assert found["zeros"]["utterances_per_s"] > 0 and not found["zeros"]["fake"]


def test_the_table_is_made(project):
    with open(project / "results/table.tsv", newline="") as file:
        assert len(list(csv.DictReader(file, delimiter="\t"))) == len(ENGINES) * len(SIZES)
