"""Energy that a timed run takes, where the machine tells: joules of CPU packages and of a device.

CPU packages have counters (RAPL, in Linux's powercap; often for root only). An NVIDIA device's
power is sampled from nvidia-smi, an Ascend device's from npu-smi. What the machine takes when it
does nothing is measured just before, and subtracted. Memory, fans and power supplies are not in it.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

POWERCAP = "/sys/class/powercap"
IDLE_SECONDS = 1.0
SAMPLE_SECONDS = 0.5
MOST_WATTS = 1000  # of a package: a counter that could have come round twice is not believed


class Reading(NamedTuple):
    """Joules by source, and the seconds in which they were taken."""

    joules: dict[str, float]
    seconds: float


class Package:
    """A CPU package's counter of microjoules, which comes round to zero."""

    def __init__(self, zone: Path):
        self.name = f"RAPL {(zone / 'name').read_text(encoding='ascii').strip()}"
        self._counter = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
        self._read()

    def _read(self) -> int:
        return int(self._counter.read_text(encoding="ascii"))

    def start(self) -> None:
        """Begin to count."""
        self._first = self._read()

    def stop(self, seconds: float) -> float:
        """Joules since `start`, which was so many seconds ago. `ValueError` if it cannot tell."""
        if seconds * MOST_WATTS * 1e6 > self._range:
            raise ValueError(f"{self.name} may have come round more than once")
        return ((self._read() - self._first) % (self._range + 1)) / 1e6


class Sampled:
    """A device's power in watts, asked for again and again by a program of the vendor's."""

    def __init__(self, name: str, command: Sequence[str], parse: Callable[[str], float]):
        self.name, self._command, self._parse = name, command, parse
        self._ask()

    def _ask(self) -> float:
        done = subprocess.run(self._command, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise ValueError(f"{self._command[0]} ended with status {done.returncode}")
        watts = self._parse(done.stdout)
        if not 0 <= watts < 1e6:
            raise ValueError(f"{self._command[0]} tells {watts:g} W")
        return watts

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            try:
                self._watts.append(self._ask())
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                self._wrong = str(error)
                return

    def start(self) -> None:
        """Begin to sample, in a thread."""
        self._over, self._wrong = threading.Event(), ""
        self._watts = [self._ask()]
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> float:
        """Joules since `start`, which was so many seconds ago. `ValueError` if it cannot tell."""
        self._over.set()
        self._thread.join()
        if self._wrong:
            raise ValueError(self._wrong)
        return seconds * sum(self._watts) / len(self._watts)


def npu_watts(text: str, number: int) -> float:
    """Power of a device in what `npu-smi info` prints, counted over chips as `npu:N` is."""
    # A chip's first line has number, name, health, power and temperature.
    rows = re.findall(r"(?m)^\|\s*\d+\s+\S+\s*\|\s*[A-Za-z]+\s*\|\s*(NA|[\d.]+)\s+\d+\s", text)
    if number >= len(rows) or rows[number] == "NA":
        raise ValueError("npu-smi tells no power of it")
    return float(rows[number])


def sources_of(device: str, powercap: str = POWERCAP) -> tuple[list, list[str]]:
    """What tells energy for an engine on `device`; and why others do not, a line each."""
    found, lacking = [], []
    zones = sorted(Path(powercap).glob("intel-rapl:*"))
    zones = [zone for zone in zones if zone.name.count(":") == 1]
    if not zones:
        lacking.append(f"no RAPL counters in {powercap}")
    for zone in zones:
        try:
            package = Package(zone)
        except (OSError, ValueError) as error:
            lacking.append(f"{zone}: {getattr(error, 'strerror', None) or error}")
        else:
            found += [package] if "package" in package.name else []
    kind, _, number = device.partition(":")
    number = number if number.isdecimal() else "0"
    query = ["--query-gpu=power.draw", "--format=csv,noheader,nounits", f"--id={number}"]
    asked = {
        "cuda": (["nvidia-smi", *query], float),
        "npu": (["npu-smi", "info"], lambda text: npu_watts(text, int(number))),
    }
    if kind in asked:
        command, parse = asked[kind]
        try:
            found.append(Sampled(f"{command[0]} {device}", command, parse))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            lacking.append(f"{command[0]}: {getattr(error, 'strerror', None) or error}")
    return found, lacking


class Meter:
    """Reads all sources of an engine's device together."""

    def __init__(self, device: str, powercap: str = POWERCAP):
        self.sources, self.lacking = sources_of(device, powercap)

    def start(self) -> None:
        """Begin to count."""
        for source in self.sources:
            source.start()
        self._began = time.perf_counter()

    def stop(self) -> Reading:
        """What was taken since `start`. Sources that cannot tell are dropped from here on."""
        seconds = time.perf_counter() - self._began
        joules = {}
        for source in list(self.sources):
            try:
                joules[source.name] = source.stop(seconds)
            except (OSError, ValueError) as error:
                self.sources.remove(source)
                self.lacking.append(f"{source.name}: {error}")
        return Reading(joules, seconds)

    def idle(self) -> Reading:
        """What it takes to do nothing; at once, where nothing can be read."""
        self.start()
        if self.sources:
            time.sleep(IDLE_SECONDS)
        return self.stop()


def figures(idle: Reading, used: Reading, utterances: int, audio_seconds: float) -> dict:
    """Joules above idle of a run, per utterance and per hour of audio, by what can be read."""
    names = sorted(idle.joules.keys() & used.joules.keys())
    if not names:
        return {"sources": [], "joules_per_utterance": None, "joules_per_audio_hour": None}
    idle_watts = sum(idle.joules[name] for name in names) / idle.seconds
    joules = sum(used.joules[name] for name in names)
    above = joules - idle_watts * used.seconds
    return {
        "sources": names,
        "idle_watts": round(idle_watts, 3),
        "seconds": round(used.seconds, 4),
        "joules": round(joules, 3),
        "joules_above_idle": round(above, 3),
        "joules_per_utterance": round(above / utterances, 6),
        "joules_per_audio_hour": round(above / audio_seconds * 3600, 3),
    }
