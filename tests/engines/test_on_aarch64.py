"""Emulated Arm CPUs compute what this machine computes: `make test-aarch64`.

Debian's Python for arm64 and the lock file's wheels for aarch64 lie in .aarch64/, 1 GB, without
torch. User-mode QEMU runs them; other programs that they start are this machine's. That the numbers
are right is for test_native.py to say, and there is no speed to see.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from deepspeech2.engines.native import instructions
from helpers import snakemake
from networks import ARCHITECTURES
from test_native import NETWORK, PRODUCTS, open_session

if not os.environ.get("TEST_AARCH64"):
    pytest.skip("takes ten minutes: make test-aarch64", allow_module_level=True)
for needed in ("qemu-aarch64-static", "mmdebstrap"):  # Debian: qemu-user-static, mmdebstrap
    if not shutil.which(needed):
        pytest.skip(f"needs {needed}", allow_module_level=True)
if platform.machine().lower() not in ("x86_64", "amd64"):
    pytest.skip("compares with an x86-64 CPU", allow_module_level=True)

PLACE = ROOT / ".aarch64"
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
PACKAGES = "python3,libstdc++6,libgomp1"
GLIBC = range(17, 37)  # minor versions that wheels may name
WRAPPER = """#!/bin/sh
exec qemu-aarch64-static -cpu "${{EMULATED_CPU:-neoverse-n1}}" -L {root} -0 "$0" {python} "$@"
"""
CPUS = {  # what QEMU emulates, and the instructions of int8, bf16 and fp32
    "max": ["NEON I8MM", "NEON BF16", "NEON"],
    "neoverse-n1": ["NEON DotProd", "NEON", "NEON"],
    "cortex-a72": ["NEON", "NEON", "NEON"],
}
TABLE = ROOT / "resources" / "sample" / "transcripts.tsv"
ENGINES = ("native-int8", "native-bf16", "native-fp32")
# From this machine's, seen on two utterances: features 1e-6; posteriors from them 4e-3, 4e-4 in
# int8 and bf16. From the same features they are the same bits.
TOLERANCES = {"native-int8": 2e-2, "native-bf16": 2e-3, "native-fp32": 1e-5}


def call(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="session")
def python():
    """An interpreter for aarch64 with the project's packages, made once for a lock file."""
    lock = ROOT / "envs" / "lock.txt"
    wanted = hashlib.sha256(lock.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    stamp, wrapper = PLACE / "made", PLACE / "venv" / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(PLACE, ignore_errors=True)
        _make(wrapper, lock)
        stamp.write_text(wanted)
    return wrapper


def _make(wrapper, lock):
    root, venv = PLACE / "root", wrapper.parent.parent
    wrapper.parent.mkdir(parents=True)
    sources = next(path for path in SOURCES if Path(path).exists())
    how = ("--mode=chrootless", "--variant=extract", "--architectures=arm64")
    call("mmdebstrap", *how, f"--include={PACKAGES}", "", root, sources)
    (program,) = root.glob("usr/bin/python3.[0-9]*")
    wrapper.write_text(WRAPPER.format(root=root, python=program))
    wrapper.chmod(0o755)
    (venv / "pyvenv.cfg").write_text(f"home = {program.parent}\n")
    options = [
        *(f"--platform=manylinux_2_{minor}_aarch64" for minor in GLIBC),
        *("--platform=manylinux2014_aarch64", "--implementation=cp", "--no-deps", "--no-compile"),
        f"--python-version={program.name.removeprefix('python')}",
        f"--target={venv / 'lib' / program.name / 'site-packages'}",
    ]
    pip = sys.executable, "-m", "pip", "install", "--quiet", *options
    call(*pip, "--require-hashes", "-r", lock)


def emulated(python, *arguments, cpu="neoverse-n1", **options):
    """What a program prints on an emulated CPU."""
    environment = {**os.environ, "EMULATED_CPU": cpu, "NUMBA_CACHE_DIR": str(PLACE / cpu)}
    return call(python, *arguments, env=environment, **options)


@pytest.mark.parametrize("cpu", CPUS)
def test_products_are_the_same_bits(python, cpu):
    ours, *_ = call(sys.executable, "-c", PRODUCTS).split("\n")
    theirs, *names = emulated(python, "-c", PRODUCTS, cpu=cpu).split("\n")
    assert names[:3] == CPUS[cpu]
    assert theirs == ours


def test_the_doctor_names_the_instructions(python):
    findings = json.loads(emulated(python, "-m", "deepspeech2.doctor", "--json"))["backends"]
    (found,) = (one["found"] for one in findings if one["backend"] == "native")
    assert [found[name] for name in ("int8", "bf16", "fp32")] == [
        f"by {name}" for name in CPUS["neoverse-n1"]
    ]


def test_the_clock_counts(python):
    """The profile's, CNTVCT_EL0."""
    code = (
        "import numpy as np, time; from deepspeech2.engines.native import kernels; "
        "spent = np.zeros(1, np.int64); first = kernels.started(spent); time.sleep(0.1); "
        "print(kernels.started(spent) - first)"
    )
    assert int(emulated(python, "-c", code)) > 1000


def test_networks_are_the_same_bits(python, tmp_path):
    """All precisions and kinds of cells."""
    folders = []
    for architecture in ARCHITECTURES[:3]:
        place = tmp_path / architecture.rnn_type
        place.mkdir()
        for precision in instructions.SEQUENCES:
            open_session(place, architecture, precision).close()
            folders.append(place / precision)
    ours = call(sys.executable, "-c", NETWORK, *folders)
    assert emulated(python, "-c", NETWORK, *folders, cpu="max") == ours


def test_two_utterances(python, tmp_path):
    """From audio to scores, by the workflow on both."""
    rows = TABLE.read_text(encoding="utf-8").splitlines()[:3]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        (folder / "audio").mkdir(parents=True)
        for row in rows[1:]:
            path = row.split("\t")[0]
            shutil.copyfile(TABLE.parent / path, folder / path)
        (folder / "two.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (folder / "config.json").write_text(json.dumps({
            "datasets": {"two": {"layout": "tsv", "path": "two.tsv"}},
            "run": {"datasets": ["two"], "engines": ENGINES, "batch_sizes": [2]},
        }))  # fmt: skip
    goals = [f"results/two/embedded/{engine}/bs2/greedy/score.json" for engine in ENGINES]
    run = ["-s", ROOT / "Snakefile", "--configfile", "config.json", "--cores", 1, "--", *goals]
    planned = emulated(python, "-m", "snakemake", "-n", *run, cwd=theirs)
    assert planned.count("\nrule infer:") == len(ENGINES)
    emulated(python, "-m", "snakemake", *run, cwd=theirs)
    snakemake(ours, *run)
    of = Path("results/two/embedded")
    for spectrogram in (ours / of / "features").rglob("data?.bin"):
        close(spectrogram, theirs / spectrogram.relative_to(ours), 2e-6)
    for engine in ENGINES:
        one, other = (folder / of / engine / "bs2" for folder in (ours, theirs))
        assert (one / "transcripts.jsonl").read_text() == (other / "transcripts.jsonl").read_text()
        close(one / "posteriors.bin", other / "posteriors.bin", TOLERANCES[engine])
        entry = {"backend": "native", "precision": engine[-4:], "padding": "batch"}
        emulated(
            *(python, "-m", "deepspeech2.engines.infer", "--engine", json.dumps(entry)),
            *("--features", of / "features", "--features-index", of / "features.json"),
            *("--artefact", one / "compiled", "--artefact-index", one / "compiled.json"),
            *("--batch-size", 2, "--threads", 1),
            *("--posteriors", other / "again.bin", "--index", other / "again.json"),
            cwd=ours,
        )
        assert (other / "again.bin").read_bytes() == (one / "posteriors.bin").read_bytes()


def close(one, other, tolerance):
    """Files of float32."""
    found = (np.fromfile(path, np.float32) for path in (one, other))
    assert np.abs(np.subtract(*found)).max() <= tolerance
