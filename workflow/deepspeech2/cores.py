"""The cores that this process may use, and the time that its control groups (cgroups) took from it.

A container's quota is such a group's: a process with more threads than it grants is stopped for a
part of each period, whatever the number of cores that it sees.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

MOUNTED, LISTED = "/sys/fs/cgroup", "/proc/self/cgroup"


def granted(mounted: str = MOUNTED, listed: str = LISTED) -> int:
    """Threads that run at once here: by the cores, taskset, quotas and OMP_THREAD_LIMIT."""
    limits: list[float] = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    for folder in _groups(mounted, listed):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            limits.append(_quota(folder))
    with contextlib.suppress(KeyError, ValueError):
        limits.append(int(os.environ["OMP_THREAD_LIMIT"]))
    return max(1, int(min(limits)))


def found() -> str:
    """What there is, in words."""
    usable, there = granted(), os.cpu_count() or 1
    return f"{there} cores" if usable == there else f"{usable} of {there} cores"


def throttled_seconds(mounted: str = MOUNTED, listed: str = LISTED) -> float:
    """For how long control groups have stopped their processes so far; 0 where none says so."""
    total = 0.0
    for folder in _groups(mounted, listed):
        with contextlib.suppress(OSError, ValueError):
            stat = dict(map(str.split, (folder / "cpu.stat").read_text("ascii").splitlines()))
            total += int(stat.get("throttled_usec", 0)) / 1e6
            total += int(stat.get("throttled_time", 0)) / 1e9  # version 1
    return total


def _quota(folder: Path) -> float:
    """Cores that a group grants: a quota of a period, both in microseconds."""
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text("ascii").split()
    else:  # version 1, where -1 is no quota
        names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
        quota, period = ((folder / name).read_text("ascii") for name in names)
    if not int(quota) > 0:
        raise ValueError("no quota")
    return int(quota) / int(period)


def _groups(mounted: str, listed: str) -> Iterator[Path]:
    """Folders of the groups with a say over CPU time, from the process's own upwards.

    They are those of version 2, or of version 1's controller cpu. A container sees its own group as
    the highest: where what is listed is not there, that is the one.
    """
    lines: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        lines = Path(listed).read_text("utf-8").splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = Path(mounted, controllers)
        group = top / path.strip("/")
        if ".." in group.parts or not group.is_dir():
            group = top
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))
