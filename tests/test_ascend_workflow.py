"""The workflow with Ascend engines: what machines without one say, and the whole on a stand-in."""

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml
from conftest import FAKES, ROOT, copy_project
from deepspeech2 import ascend, doctor
from deepspeech2.backends import BACKENDS
from helpers import assert_one_line_error, planned, run_stage, snakemake
from test_workflow import configure, fails

# What npu-smi prints, in short: a driver, a card with one chip, and one with two.
SMI = """
+--------------------------------------------------------------------------------------------+
| npu-smi 23.0.0                   Version: 23.0.0                                           |
+---------------------------+---------------+------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)       Hugepages-Usage(page) |
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)                    |
+===========================+===============+================================================+
| 0     310P3               | OK            | NA          51            0     / 0             |
| 0                         | 0000:3B:00.0  | 0           1701 / 21527                        |
+===========================+===============+================================================+
| 1     910B4-1             | Warning       | NA          51            0     / 0             |
| 0                         | 0000:5E:00.0  | 0           1701 / 21527                        |
| 1     910B4-1             | OK            | NA          51            0     / 0             |
| 1                         | 0000:5E:00.0  | 0           1701 / 21527                        |
+===========================+===============+================================================+
"""


def test_what_npu_smi_prints_is_read():
    driver, devices = ascend.read_smi(SMI)
    assert driver == "23.0.0"
    assert devices == [(0, "310P3", "OK"), (1, "910B4-1", "Warning"), (2, "910B4-1", "OK")]
    assert (
        ascend.read_smi(SMI.replace("0                     ", "0     7               "))[1][0][0]
        == 7
    )
    assert ascend.soc_version(devices[0]) == "Ascend310P3"
    assert ascend.soc_version(devices[0]._replace(name="Ascend310P1")) == "Ascend310P1"
    assert ascend.read_smi("") == (None, [])


def test_the_version_of_cann_comes_from_its_folder(tmp_path):
    home = tmp_path / "latest"
    (home / "aarch64-linux").mkdir(parents=True)
    assert ascend.cann({}) is None
    assert ascend.cann({"ASCEND_HOME_PATH": str(home)}) == "unknown version"
    info = home / "aarch64-linux" / "ascend_toolkit_install.info"
    info.write_text("package_name=Ascend-cann-toolkit\nversion=7.0.RC1\ninnerversion=V100\n")
    assert ascend.cann({"ASCEND_TOOLKIT_HOME": str(home)}) == "7.0.RC1"


def test_a_folder_of_the_name_is_no_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch_aie").mkdir()
    assert ascend.package() is None
    (tmp_path / "mindietorch.py").write_text("raise OSError('libascendcl.so: cannot open')\n")
    assert ascend.package() == "mindietorch"
    with pytest.raises(
        ascend.UserError, match=r"mindietorch is installed but .*libascendcl.*set_env"
    ):
        ascend.plugin()


def test_the_doctor_knows_every_backend():
    assert list(doctor.BACKENDS) == list(BACKENDS)


def test_the_doctor_speaks_to_people_and_programs(tmp_path):
    smi = tmp_path / "npu-smi"
    smi.write_text(f"#!/bin/sh\ncat <<'END'\n{SMI}\nEND\n")
    smi.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    text = run_stage("doctor", env=environment)
    assert text.returncode == 0, text.stderr
    assert "torchscript: can run here" in text.stdout
    assert "torch_aie: cannot run here" in text.stdout and "torch_aie 7.0" in text.stdout
    assert "has      npu:2 910B4-1, OK (soc_version: Ascend910B4-1)" in text.stdout
    data = json.loads(run_stage("doctor", "--json", env=environment).stdout)
    one, native, two = data["backends"]
    assert native["missing"] == [] and "numba" in native["found"]
    assert one["missing"] == [] and "torch" in one["found"]
    assert two["found"]["driver"] == "23.0.0" and "no package torch_aie" in two["missing"][0]
    assert any("ASCEND_TOOLKIT_HOME is not set" in doubt for doubt in two["doubts"])
    assert any("CANN's compiler needs " in doubt for doubt in two["doubts"])
    assert run_stage("doctor", "--require", "torchscript").returncode == 0
    failed = run_stage("doctor", "--require", "torch_aie")
    assert_one_line_error(failed, "torch_aie cannot run", "Python 3.9", "CANN 7.0", "README")


def test_the_doctor_is_asked_for_the_device_of_an_engine():
    """A GPU that is missing matters only to whoever names one."""
    data = json.loads(run_stage("doctor", "--json").stdout)["backends"][0]
    assert data["missing"] == [] and "cuda" in data["doubts"][0]
    assert run_stage("doctor", "--require", "torchscript", "--device", "cpu").returncode == 0
    failed = run_stage("doctor", "--require", "torchscript", "--device", "cuda:64")
    assert_one_line_error(failed, "torchscript cannot run", "torch ")


def test_the_doctor_runs_without_any_package():
    """-S -I: the standard library alone, as in a Python where nothing was installed."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'workflow')!r}); "
        "from deepspeech2 import doctor; doctor.main(['--require', 'torchscript'])"
    )
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code], capture_output=True, text=True)
    assert "has no numpy, torch, safetensors, psutil, tqdm; install them there" in done.stderr


def test_versions_that_are_not_known_to_go_together_are_doubtful(monkeypatch, tmp_path):
    assert doctor._fits("torch_aie", "2.0.1+cpu", "3.9.11")
    assert doctor._fits("mindietorch", "2.1.0", "3.10.2")
    assert not doctor._fits("torch_aie", "2.1.0", "3.9.11")
    assert not doctor._fits("torch_aie", "2.0.1", "3.10.2")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch_aie.py").write_text("")
    found = doctor.torch_aie()
    assert found.missing == []
    assert any("is no known combination" in doubt for doubt in found.doubts)
    del sys.modules["torch_aie"]


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
    assert line.startswith("engines.npu: backend torch_aie cannot run: ") and "README" in line
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
        f"#!/bin/sh\nASCEND_SET_ENV={env} ASCEND_PYTHON={sys.executable} "
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
    assert len(events) == 4 * (2 + 1 + 1 + 1)  # two artefacts, posteriors, timing, single stream
    assert all(lines[0] == "set_device 0" and lines[-2] == "finalize" for lines in events)
    assert "torch_aie unknown" in rows["npu-buckets"]["versions"]
    assert "mindietorch unknown" in rows["mindie"]["versions"]
    for name in ("table.md", "table.html", "report.html"):
        text = (project / "results" / name).read_text().replace("\\", "")
        assert "computed by a stand-in for a device" in text
        assert "Engine mindie: whoever wrote its backend torch_aie had no hardware" in text
    folder = project / "results/own/tiny"
    index = json.loads((folder / "npu-buckets/bs1/compiled.json").read_text())
    assert [shape["frames"] for shape in index["shapes"]] == [50, 61]
    assert set(index["files"]) == {"50.pt", "61.pt", "shapes.json"}
    assert index["notes"] == {"left_to_torch": []} and index["compile_seconds"] > 0
    index = json.loads((folder / "npu-late/bs2/compiled.json").read_text())
    assert set(index["files"]) == {"torchscript.pt", "shapes.json"}
    assert float(rows["npu-late"]["compile_seconds"]) > 0
    # The trace comes from the engine's own interpreter.
    assert (project / "results/models/tiny/npu-packed/packed.pt").exists()
    assert "Nothing to be done" in snakemake(project, "-n", *options).stdout


def test_no_figure_of_a_stand_in_is_published():
    files = [
        ROOT / "README.md",
        *(ROOT / "resources").rglob("*.md"),
        *(ROOT / "resources").rglob("*.tsv"),
    ]
    for path in files:
        assert "| FAKE" not in path.read_text(encoding="utf-8"), path
