"""Paths and fixtures that the tests share."""

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


def copy_project(target: Path) -> Path:
    """A fresh checkout of the project as it is now, without results."""
    ignore = shutil.ignore_patterns(
        *(".git", ".venv", ".aarch64", ".snakemake", "results"),
        *("__pycache__", ".pytest_cache", ".ruff_cache"),
    )
    shutil.copytree(ROOT, target, ignore=ignore)
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
    *("test_ascend", "test_export", "test_fuzz"),
)


# First: pytest-xdist reads the marks in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))
    for item in items:
        if item.path.stem not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_testnodedown(node, error):
    """Say how a worker died: pytest-xdist does not, and ends the suite for it."""
    if error:
        print(f"\n{node.gateway.id}: ended with status {node.gateway._io.popen.wait()}", flush=True)
