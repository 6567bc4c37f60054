"""The machine that measures: what it is, and what else it is doing meanwhile."""

from __future__ import annotations

import platform
import resource
import sys
import time

import psutil


class OtherLoad:
    """Share of the machine's cores that other processes use between `start` and `share`."""

    def __init__(self):
        self._process = psutil.Process()
        self.start()

    def start(self) -> None:
        self._wall, self._busy = time.perf_counter(), _busy_seconds()
        self._own = self._own_seconds()

    def share(self) -> float:
        """The share since `start`, from 0 to 1."""
        seconds = (time.perf_counter() - self._wall) * psutil.cpu_count()
        others = (_busy_seconds() - self._busy) - (self._own_seconds() - self._own)
        return min(1.0, max(0.0, others / seconds))

    def _own_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def environment(threads: int) -> dict:
    """The machine and interpreter that measured."""
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(),
        "threads": threads,
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
