"""Paths and fixtures that the tests share."""

import compileall
import functools
import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
FAKES = ROOT / "tests" / "fakes"  # stand-ins for hardware
sys.path[:0] = [str(ROOT / "workflow"), str(FAKES)]
# The workers share the cores: threads that wait for others must not spin meanwhile.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# For the stages that tests start as programs, and for the forks of `forked`.
os.environ["PYTHONPATH"] = f"{ROOT / 'workflow'}{os.pathsep}{ROOT / 'tests'}"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference files beside the checkout. Without it a test skips."""
    if not SHARED.is_dir():
        reason = f"needs the reference files in {SHARED.name}/ beside the checkout"
        if os.environ.get("REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED


@pytest.fixture(scope="session")
def an4_archive(shared) -> Path:
    """AN4 in the packaging of CMU's archive."""
    return shared / "data" / "an4" / "an4_raw.bigendian.tar.gz"


NATIVE = "workflow/deepspeech2/engines/native"


@functools.cache
def compiled() -> None:
    """Have the package's bytecode."""
    compileall.compile_dir(ROOT / "workflow", quiet=2)


def copy_project(target: Path) -> Path:
    """A fresh checkout of the project as it is now, without results.

    With the bytecode and machine code, which each checkout would else compile anew.
    """
    compiled()
    ignore = shutil.ignore_patterns(
        *(".git", ".venv", ".aarch64", ".snakemake", "results", ".pytest_cache", ".ruff_cache"),
        *("*.nbc.tmp.*", "*.nbi.tmp.*"),  # others may compile now
    )
    shutil.copytree(ROOT, target, ignore=ignore)
    # numba keeps machine code by the folder of its source.
    old, new = (hashlib.sha1(f"{top}/{NATIVE}".encode()).hexdigest() for top in (ROOT, target))
    for kept in (target / NATIVE / "__pycache__").glob(f"kernels-*/native_{old}"):
        kept.rename(kept.with_name(f"native_{new}"))
    return target


# What takes minutes comes first, or one worker ends with it while the others have nothing to do.
SLOW = (
    *("test_staleness", "test_parity", "test_native", "test_workflow", "test_contributing"),
    *("test_report", "test_ascend_workflow", "test_training", "test_baseline", "test_ascend"),
    *("test_stages", "test_clusters", "test_check", "test_names", "test_shards", "test_transcribe"),
    *("test_kubernetes", "test_acl_workflow", "test_power_cut"),
)
# Files whose tests share nothing: any worker takes any of them. The others stay whole.
SPREAD = (
    *("test_workflow", "test_training", "test_compare", "test_cli", "test_network", "test_config"),
    *("test_ascend", "test_export", "test_fuzz", "test_native"),
)


# A file in which a run writes what passed, and which the next run of the same suite leaves out.
PASSED = Path(os.environ.get("PASSED") or os.devnull)
FAILED = set()


def pytest_runtest_logreport(report):
    if report.failed:
        FAILED.add(report.nodeid)
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # the one who started it hears of all
    if report.when == "teardown" and report.nodeid not in FAILED and not is_worker:
        with open(PASSED, "a") as file:
            file.write(f"{report.nodeid}\n")


# First: pytest-xdist reads the marks in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    passed = set(PASSED.read_text().splitlines())
    # Those of a group are reported with its name.
    items[:] = [i for i in items if not {i.nodeid, f"{i.nodeid}@{i.path.stem}"} & passed]
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))
    for item in items:
        if item.path.stem not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_testnodedown(node, error):
    """Say how a worker died: pytest-xdist does not, and ends the suite for it."""
    if error:
        print(f"\n{node.gateway.id}: ended with status {node.gateway._io.popen.wait()}", flush=True)
