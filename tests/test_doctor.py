"""The doctor: what this machine has and lacks, for people, for programs, and without packages."""

import json
import os
import subprocess
import sys

from conftest import FAKES, ROOT
from deepspeech2.engines import BACKENDS
from helpers import THIRD_PARTY, assert_one_line_error, python_without, run_stage


def test_the_doctor_knows_every_backend():
    data = json.loads(run_stage("doctor", "--json").stdout)
    assert [one["backend"] for one in data["backends"]] == list(BACKENDS)


def test_the_doctor_speaks_to_people_and_programs(tmp_path):
    smi = tmp_path / "npu-smi"
    smi.write_text(f"#!/bin/sh\ncat {FAKES}/npu_smi.txt\n")
    smi.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    text = run_stage("doctor", env=environment)
    assert text.returncode == 0, text.stderr
    assert "torchscript: can run here" in text.stdout
    assert "torch_aie: cannot run here" in text.stdout and "torch_aie 7.0" in text.stdout
    assert "has      npu:2 910B4-1, OK (soc_version: Ascend910B4-1)" in text.stdout
    data = json.loads(run_stage("doctor", "--json", env=environment).stdout)
    one, native, *_, two, om = data["backends"]
    assert native["missing"] == [] and "numba" in native["found"]
    assert one["missing"] == [] and "torch" in one["found"]
    assert two["found"]["driver"] == "23.0.0" and "no package torch_aie" in two["missing"][0]
    assert any("ASCEND_TOOLKIT_HOME is not set" in doubt for doubt in two["doubts"])
    assert any("CANN's compiler needs " in doubt for doubt in two["doubts"])
    assert om["found"]["driver"] == "23.0.0" and "npu:2" in om["found"]
    assert "has no ais_bench, aclruntime: Huawei's wheels" in om["missing"][0]
    assert run_stage("doctor", "--require", "torchscript").returncode == 0
    failed = run_stage("doctor", "--require", "torch_aie")
    assert_one_line_error(
        failed, "torch_aie cannot run", "Python 3.9", "CANN 7.0", "docs/hardware.md"
    )


def test_the_doctor_is_asked_for_the_device_of_an_engine():
    """A GPU that is missing matters only to whoever names one."""
    data = json.loads(run_stage("doctor", "--json").stdout)["backends"][0]
    assert data["missing"] == [] and "cuda" in data["doubts"][0]
    gpu = '{"backend": "torchscript", "device": "cuda:64"}'
    failed = run_stage("doctor", "--require", "torchscript", gpu)
    assert_one_line_error(failed, "torchscript cannot run", "torch ")
    done = run_stage("doctor", "--json", "--require", "torchscript", gpu)
    first, second = json.loads(done.stdout)
    assert first == "" and second.startswith("backend torchscript cannot run: torch ")


def test_the_doctor_runs_without_any_package():
    """-S -I: the standard library alone, as in a Python where nothing was installed."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'workflow')!r}); "
        "from deepspeech2 import cli, doctor; cli.call(doctor.main, ['--require', 'torchscript'])"
    )
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code], capture_output=True, text=True)
    assert "has no numpy, safetensors, psutil, tqdm, torch; install them there" in done.stderr


def test_the_doctor_imports_no_package():
    """Here packages are installed, and every import of one fails."""
    assert {"numpy", "torch", "psutil", "tqdm", "yaml", "pydantic", "pandas"} <= set(THIRD_PARTY)
    code = "from deepspeech2 import cli, doctor\ncli.call(doctor.main, {})"
    text = python_without(THIRD_PARTY, code.format([]))
    assert text.returncode == 0, text.stderr
    data = json.loads(python_without(THIRD_PARTY, code.format(["--json"])).stdout)
    for one in data["backends"]:
        assert one["backend"] in BACKENDS and f"{one['backend']}: cannot run here" in text.stdout
        assert "has no numpy, safetensors, psutil, tqdm" in one["missing"][0]
