"""The cores that a process may use: quotas of control groups, made up and one real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from deepspeech2 import cli, cores

V1, V2 = "4:cpu,cpuacct:{}\n3:memory:/elsewhere\n0::/other\n", "0::{}\n"
QUOTA = {V2: ("cpu.max", "{0} {1}"), V1: ("cpu.cfs_quota_us", "{0}")}


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)


@pytest.fixture
def tree(tmp_path, eight_cores):
    """Makes control groups: texts by path of the file; returns what to look them up with."""

    def make(version, group, files):
        (tmp_path / "listed").write_text(version.format(group))
        top = tmp_path / "mounted" / ("cpu,cpuacct" if version == V1 else "")
        top.mkdir(parents=True)
        for name, text in files.items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(text)
        return str(tmp_path / "mounted"), str(tmp_path / "listed")

    return make


def quota(version, folder, cores_of_it):
    """The files of a group that grants so many cores (None: as many as there are)."""
    if version == V2:
        text = "max 100000" if cores_of_it is None else f"{cores_of_it * 100000:.0f} 100000"
        return {f"{folder}cpu.max": text}
    text = "-1" if cores_of_it is None else f"{cores_of_it * 50000:.0f}"
    return {f"{folder}cpu.cfs_quota_us": text, f"{folder}cpu.cfs_period_us": "50000"}


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize(
    ("group", "quotas", "granted"),
    [
        ("/a/b", {"a/b/": 3}, 3),
        ("/a/b", {"a/b/": 3.9}, 3),
        ("/a/b", {"a/b/": 0.5}, 1),  # and it will be throttled
        ("/a/b", {"a/b/": 20}, 8),
        ("/a/b", {"a/b/": None}, 8),
        ("/a/b", {"a/b/": None, "a/": 2, "": 5}, 2),  # the strictest of those above
        ("/a/b", {"a/b/": 4, "a/": 2, "": None}, 2),
        ("/", {"": 2}, 2),  # a container's namespace
        ("/docker/0123", {"": 2}, 2),  # what the host calls it is not seen in the container
        ("/../other", {"": 2}, 2),
        ("/a", {"a/": 3, "b/": 1}, 3),  # others' quotas are not ours
        ("/a", {}, 8),
    ],
)
def test_quotas(tree, version, group, quotas, granted):
    files = {}
    for folder, of_it in quotas.items():
        files |= quota(version, folder, of_it)
    assert cores.granted(*tree(version, group, files)) == granted


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("text", ["", "torn", "100000", "0 0", "1 2 3", "-5 100000", "\udcff"])
def test_what_is_no_quota_is_none(tree, version, text):
    name, _ = QUOTA[version]
    places = tree(version, "/a", {"a/cpu.cfs_period_us": "0"})
    for folder in Path(places[0]).rglob("a"):
        (folder / name).write_bytes(os.fsencode(text))
    assert cores.granted(*places) == 8


def test_without_control_groups(tmp_path, eight_cores):
    missing = str(tmp_path / "none")
    assert cores.granted(missing, missing) == 8 and cores.throttled_seconds(missing, missing) == 0
    (tmp_path / "broken").write_text("no colons\n\n::\n")
    assert cores.granted(missing, str(tmp_path / "broken")) == 8


def test_other_limits(eight_cores, monkeypatch, tmp_path):
    nothing = str(tmp_path), str(tmp_path / "none")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {1, 5, 6})
    assert cores.granted(*nothing) == 3
    for limit, granted in (("2", 2), ("many", 3), ("0", 1), ("9", 3)):
        monkeypatch.setenv("OMP_THREAD_LIMIT", limit)
        assert cores.granted(*nothing) == granted


def test_words(eight_cores, monkeypatch):
    monkeypatch.setattr(cores, "_groups", lambda *_: [])
    assert cores.found() == "8 cores"
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 1})
    assert cores.found() == "2 of 8 cores"


@pytest.mark.parametrize(
    ("version", "stat", "seconds"),
    [
        (V2, "usage_usec 9\nnr_throttled 3\nthrottled_usec 1500000", 1.5),
        (V1, "nr_periods 9\nnr_throttled 3\nthrottled_time 2500000000", 2.5),
        (V2, "usage_usec 9", 0),
        (V2, "torn", 0),
        (V2, "throttled_usec much", 0),
    ],
)
def test_throttled_seconds(tree, version, stat, seconds):
    places = tree(version, "/a/b", {"a/b/cpu.stat": stat, "a/cpu.stat": "nr_periods 1"})
    assert cores.throttled_seconds(*places) == seconds


def test_no_stage_uses_more(monkeypatch):
    monkeypatch.setattr(cli, "CORES", 2)
    assert [cli.Cores.parse(text) for text in ("1", "2", "1024")] == [1, 2, 2]


BUSY = """
import threading, time
from deepspeech2 import cores
before, end = cores.throttled_seconds(), time.time() + 2
while time.time() < end:
    sum(range(10000))
print(cores.granted(), cores.throttled_seconds() - before)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_real_quota():
    """A process in a real control group of a tenth of a core: one thread, mostly stopped."""
    for top, text, name in (
        ("/sys/fs/cgroup/cpu", "10000", "cpu.cfs_quota_us"),
        ("/sys/fs/cgroup", "10000 100000", "cpu.max"),
    ):
        group = Path(top, "deepspeech2_test")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / name).exists():
                continue
            (group / name).write_text(text)
            into = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -c '{BUSY}'"
            made = subprocess.run(["sh", "-c", into], capture_output=True, text=True, check=True)
        finally:
            group.rmdir()
        granted, seconds = made.stdout.split()
        assert granted == "1" and 0.1 < float(seconds) < 2.2
        return
    pytest.skip("no control group with a quota of CPU time can be made here")
