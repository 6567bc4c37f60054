"""Devices that stages take from one another: never two on one, none lost, whichever is free."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from deepspeech2 import engines, machine
from deepspeech2.cli import UserError
from deepspeech2.engines import pool
from deepspeech2.engines.artefact import require_artefact
from deepspeech2.files import write_json

# Takes a device, writes when it had it, and holds it for a while.
HOLD = """
import sys, time
from pathlib import Path
from deepspeech2 import engines
from deepspeech2.engines import Finding, pool
kind = sys.argv[1].partition(":")[0]
found = {f"{kind}:{n}": "one" for n in range(int(sys.argv[2]))}
backend = engines.backend_class("torchscript")
backend.examine = classmethod(lambda cls, device=None: Finding("torchscript", found, [], []))
placed = pool.place(engines.complete({"backend": "torchscript", "device": sys.argv[1]}))
start = time.time()
Path(sys.argv[3]).write_text(f"{placed.device} {start} {start + float(sys.argv[4])}")
time.sleep(float(sys.argv[4]))
"""


@pytest.fixture
def hold(tmp_path):
    """Starts a process that holds a device, with locks of this test's own."""
    made = []

    def start(device="cuda:*", count=2, seconds=0.5, **environment):
        path = tmp_path / f"held{len(made)}"
        own = {"PYTHONPATH": str(ROOT / "workflow"), "TMPDIR": str(tmp_path), **environment}
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, device, str(count), path, str(seconds)],
            env={**os.environ, **own},
        )
        made.append(process)
        return process, path

    yield start
    for process in made:
        process.kill()
        process.wait()


def held(path):
    """The device, and from when until when it was held."""
    device, *times = path.read_text().split()
    return device, *map(float, times)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return held(path)


def overlap(one, other):
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


@pytest.mark.parametrize("kind", ["cuda", "npu"])
def test_jobs_share_devices_and_never_one_of_them(hold, kind):
    started = [hold(f"{kind}:*") for _ in range(5)]
    for process, _ in started:
        assert process.wait(timeout=120) == 0
    found = [held(path) for _, path in started]
    assert {device for device, *_ in found} == {f"{kind}:0", f"{kind}:1"}
    pairs = [(a, b) for n, a in enumerate(found) for b in found[:n]]
    assert not any(overlap(*pair) for pair in pairs)


def test_a_named_device_is_waited_for_though_others_are_free(hold):
    _, first = hold("cuda:1", seconds=2)
    until = wait_for(first)[2]
    process, second = hold("cuda:1", seconds=0)
    _, other = hold("cuda:*", seconds=0)
    assert wait_for(other)[0] == "cuda:0"
    assert process.wait(timeout=60) == 0 and held(second)[1] >= until - 0.05


def test_a_killed_job_gives_its_device_back(hold):
    process, path = hold(count=1, seconds=600)
    wait_for(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process, path = hold(count=1, seconds=0)
    assert process.wait(timeout=60) == 0 and held(path)[0] == "cuda:0"


def test_locks_have_the_whole_machines_names(hold):
    """Two schedulers' jobs that were given different devices both call theirs cuda:0."""
    _, first = hold(count=1, seconds=600, CUDA_VISIBLE_DEVICES="3")
    wait_for(first)
    process, second = hold(count=1, seconds=0, CUDA_VISIBLE_DEVICES="5")
    assert process.wait(timeout=60) == 0 and held(second)[0] == "cuda:0"
    process, third = hold(count=1, seconds=0, CUDA_VISIBLE_DEVICES="3")
    time.sleep(1)
    assert process.poll() is None and not third.exists()


def test_the_cpu_is_nobodys():
    engine = engines.complete({"backend": "torchscript"})
    assert pool.place(engine) is engine


@pytest.mark.parametrize("visible", [None, "", "-1", "NoDevFiles"])
def test_no_device_is_one_line(monkeypatch, visible):
    nothing = engines.Finding("torchscript", {}, [], [])
    backend = engines.backend_class("torchscript")
    monkeypatch.setattr(backend, "examine", classmethod(lambda cls, device=None: nothing))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    engine = engines.complete({"backend": "torchscript", "device": "cuda:*"})
    assert engine.device == "cuda:*"  # in the configuration, and in all that is compared with it
    with pytest.raises(UserError, match=r"device cuda:\*: none is found here; name one"):
        pool.place(engine)


@pytest.mark.parametrize(
    "made_for, used_on, fits",
    [
        ("cuda:*", "cuda:1", True), ("cuda:*", "cuda:0", True), ("cuda:1", "cuda:1", True),
        ("cuda:1", "cuda:0", False), ("npu:*", "cuda:0", False),
    ],
)  # fmt: skip
def test_what_is_compiled_for_any_device_runs_on_each(tmp_path, made_for, used_on, fits):
    made, used = (
        engines.complete({"backend": "torchscript", "device": device})
        for device in (made_for, used_on)
    )
    backend = engines.backend_class("torchscript")(used)
    backend.versions = lambda: {"device": "one kind"}
    index = {
        "engine": made._asdict(),
        "shapes": [],
        "files": {},
        "versions": {"device": "one kind"},
    }
    write_json(tmp_path / "index.json", index)
    if fits:
        require_artefact(tmp_path, tmp_path / "index.json", backend, 1)
        backend.versions = lambda: {"device": "another kind"}
        with pytest.raises(UserError, match="made with device one kind, and here is another kind"):
            require_artefact(tmp_path, tmp_path / "index.json", backend, 1)
    else:
        with pytest.raises(UserError, match="made for other settings of the engine"):
            require_artefact(tmp_path, tmp_path / "index.json", backend, 1)


def test_clocks_are_read_where_they_can_be(tmp_path):
    for number, now in enumerate((1_200_000, 3_400_000)):
        folder = tmp_path / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{now}\n")
        (folder / "cpuinfo_max_freq").write_text("3600000\n")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '1980, 1980'\necho '345, 1980'\n")
    program.chmod(0o755)
    assert machine.clocks(str(tmp_path), str(program)) == {
        "least": 1200, "most": 3400, "limit": 3600, "devices": [[1980, 1980], [345, 1980]],
    }  # fmt: skip
    nothing = dict.fromkeys(("least", "most", "limit", "devices"))
    assert machine.clocks(str(tmp_path / "none"), str(tmp_path / "none")) == nothing
    (tmp_path / "cpu0/cpufreq/scaling_cur_freq").write_text("<unknown>\n")
    program.write_text("#!/bin/sh\necho '[N/A], [N/A]'\n")
    found = machine.clocks(str(tmp_path), str(program))
    assert found["limit"] == 3600 and found["devices"] is None
