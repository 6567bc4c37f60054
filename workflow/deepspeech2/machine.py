"""The machine that measures: what it is, and what else it is doing meanwhile."""

from __future__ import annotations

import contextlib
import datetime
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import psutil

from deepspeech2.node import place
from deepspeech2.outside import outside

# What takes part in a result, as far as an engine's environment has it.
LIBRARIES = "torch numpy scipy librosa soxr soundfile Levenshtein kaldialign snakemake".split()
LOOK_SECONDS = 0.3  # other load is looked for before a run, from the start on,
LOOKS = 10  # and again, so often at most: what the scheduler still does for us is over soon
GOVERNORS = "/sys/devices/system/cpu"


class OtherLoad:
    """Share of the machine's cores that other processes use between `start` and `share`."""

    def __init__(self):
        self._process = psutil.Process()
        self.start()

    def start(self) -> None:
        self._wall, self._busy = time.perf_counter(), _busy_seconds()
        self._own = self._own_seconds()

    def share(self, least_seconds: float = 0) -> float:
        """The share since `start`, from 0 to 1. Waits until that is `least_seconds` ago."""
        time.sleep(max(0.0, least_seconds - (time.perf_counter() - self._wall)))
        seconds = (time.perf_counter() - self._wall) * psutil.cpu_count()
        others = (_busy_seconds() - self._busy) - (self._own_seconds() - self._own)
        return min(1.0, max(0.0, others / seconds))

    def _own_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def quiet(load: OtherLoad, enough: float) -> float:
    """Wait until others use a share of `enough` or less, though not for long; returns the last.

    `load` was started before: while this process was busy with itself, it could look already.
    """
    for look in range(LOOKS):
        if look:
            load.start()
        share = load.share(LOOK_SECONDS)
        if share <= enough:
            break
    return share


def now() -> str:
    """The time of day, as it is in a record."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def environment(threads: int, device: str = "cpu") -> dict:
    """The machine and interpreter that measured."""
    return {
        **place(device),
        "mhz": clocks(),
        "cores": psutil.cpu_count(),
        "threads": threads,
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "governor": governor(),
        "outside": outside(),
        "libraries": libraries(),
        "git_revision": git_revision(),
    }


def governor(folder: str = GOVERNORS) -> str | None:
    """The frequency governor of the cores, several as "a, b"; None where none can be read."""
    found = set()
    for path in Path(folder).glob("cpu[0-9]*/cpufreq/scaling_governor"):
        try:
            found.add(path.read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            continue
    return ", ".join(sorted(found)) or None


def clocks(folder: str = GOVERNORS, program: str = "nvidia-smi") -> dict:
    """MHz of the cores, at least and at most now and at most ever, and of NVIDIA's devices.

    None is what cannot be read.
    """
    found: dict = {"least": None, "most": None, "limit": None, "devices": None}
    for name, file, choose in (
        ("least", "scaling_cur_freq", min),
        ("most", "scaling_cur_freq", max),
        ("limit", "cpuinfo_max_freq", max),
    ):
        with contextlib.suppress(OSError, ValueError):
            paths = Path(folder).glob(f"cpu[0-9]*/cpufreq/{file}")
            found[name] = choose(int(path.read_text()) for path in paths) // 1000
    query = [program, "--query-gpu=clocks.sm,clocks.max.sm", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
        lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
        found["devices"] = [list(map(int, line.split(","))) for line in lines] or None
    return found


def libraries() -> dict[str, str]:
    """Versions of the LIBRARIES that are installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_revision() -> str | None:
    """The commit of the project's checkout, with "+changes" where files differ from it."""
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    # A copy without .git may lie inside of somebody else's repository, which is not asked.
    for command in (["ls-files", "--error-unmatch", __file__], describe):
        try:
            found = subprocess.run(
                ["git", *command],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if found.returncode:
            return None
    return found.stdout.strip()


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far.

    Linux's own count is preferred: getrusage's is at least that of the program that started us.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
