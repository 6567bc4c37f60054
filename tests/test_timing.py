"""The timing loop, its figures and its verdicts, with a clock that the test holds."""

import subprocess
import sys
import time

import numpy as np
import pytest
from deepspeech2 import machine, timing

FULL = timing.Settings(5, 10, 10.0, None, 0.2, 0.1)


class Features:
    """Utterances of 100, 90, 80, ... frames, a hundredth of a second each."""

    bins, frames_max = 3, 100

    def __init__(self, count):
        self.utterances = [
            {"id": str(i), "frames": 100 - 10 * i, "seconds": 1 - 0.1 * i} for i in range(count)
        ]

    def __len__(self):
        return len(self.utterances)

    def load(self, position):
        return np.full((3, 100), position, np.float32)


class Clock:
    """A clock that only the session moves: each phase takes its own time."""

    now = 0.0

    def __call__(self):
        return self.now


class Session:
    """Records what it is asked to do; upload takes 1 s, forward 2, synchronize 3, download 4."""

    def __init__(self, clock):
        self.clock, self.events = clock, []

    def _do(self, event, seconds):
        self.events.append(event)
        self.clock.now += seconds

    def upload(self, spectrograms, lengths):
        self._do("upload", 1)
        return spectrograms.shape

    def forward(self, shape):
        self._do("forward", 2)
        return shape

    def synchronize(self):
        self._do("synchronize", 3)

    def download(self, shape):
        self._do("download", 4)


@pytest.fixture
def session(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return Session(clock)


def test_the_region_is_forward_and_synchronize(session):
    times = timing.time_batch(session, Features(3), 0, 2, "longest")
    assert session.events == ["upload", "forward", "synchronize", "download"]
    assert (times.assemble, times.upload, times.forward, times.download) == (0, 1, 5, 4)
    assert (times.utterances, times.audio_seconds) == (2, pytest.approx(1.9))
    assert (times.real_frames, times.padded_frames) == (190, 200)


@pytest.mark.parametrize(
    ("settings", "batches"),
    [  # three utterances in batches of two: two batches a pass
        (FULL._replace(min_seconds=0), 10),
        (FULL._replace(min_seconds=0, min_batches=9), 10),  # whole passes
        (FULL._replace(min_seconds=61, min_batches=1), 14),  # 5 s each: 13 batches, 14 are whole
        (FULL._replace(multi=3), 6),
        (FULL._replace(multi=1, min_seconds=1000), 2),
    ],
)
def test_how_long_it_measures(session, settings, batches):
    times = timing.measure(session, Features(3), 2, "longest", settings)
    assert len(times) == batches
    assert times[0].utterances == 2  # whatever warmed up, the set is measured from its start
    assert session.events.count("forward") == batches + settings.warmup_batches
    assert [t.utterances for t in times] == [2, 1] * (batches // 2)


def test_only_real_utterances_count(session):
    times = timing.measure(session, Features(3), 8, "batch", FULL._replace(multi=2))
    figures = timing.summarise(times)
    assert figures["batches"] == 2 and figures["utterances"] == 6
    assert figures["seconds"] == 10 and figures["utterances_per_s"] == 0.6
    assert figures["rtfx"] == pytest.approx(2 * 2.7 / 10)
    assert figures["end_to_end_utterances_per_s"] == pytest.approx(6 / 20)
    assert figures["padding_share"] == pytest.approx(1 - 270 / 800)
    assert figures["phase_seconds"] == {"assemble": 0, "upload": 2, "forward": 10, "download": 8}


def make(seconds, frames=100):
    return timing.Times(0.0, 0.0, seconds, 0.0, 1, 1.0, frames, frames)


def test_percentiles_and_spread():
    figures = timing.summarise([make(0.001 * i) for i in range(1, 102)])
    assert figures["latency_ms"] == {
        "mean": 51.0,
        "std": pytest.approx(29.3, abs=0.01),
        "p50": 51.0,
        "p90": 91.0,
        "p95": 96.0,
        "p99": 100.0,
    }
    assert timing.summarise([make(1.0)] * 99)["latency_ms"]["p99"] is None
    # Wider batches take longer without being less steady.
    assert timing.summarise([make(1.0, 100), make(2.0, 200)])["spread"] == 0
    assert timing.summarise([make(1.0)])["spread"] == 0


GOOD = {"spread": 0.05, "batches": 10, "seconds": 10.0}


@pytest.mark.parametrize(
    ("figures", "settings", "load", "verdict", "reason"),
    [
        (GOOD, FULL, 0.0, "VALID", ""),
        (GOOD, FULL._replace(multi=4, min_batches=1), 0.0, "VALID", ""),
        ({**GOOD, "batches": 9}, FULL._replace(multi=1), 0.0, "INVALID", "9 of 10 batches"),
        ({**GOOD, "seconds": 9.9}, FULL._replace(multi=1), 0.0, "INVALID", "9.9 of 10 s"),
        ({**GOOD, "spread": 0.21}, FULL, 0.0, "INVALID", "spread 21% above 20%"),
        (GOOD, FULL, 0.11, "INVALID", "other load 11% above 10%"),
        (GOOD, FULL._replace(multi=1, warmup_batches=4), 0.0, "INVALID", "4 of 5 warm-up"),
        (GOOD, FULL._replace(min_seconds=1), 0.0, "QUICK", ""),
        (GOOD, FULL._replace(warmup_batches=1), 0.0, "QUICK", "1 of 5 warm-up"),
        (GOOD, FULL._replace(max_spread=1000.0), 0.0, "QUICK", ""),
        (GOOD, FULL._replace(max_other_load=1.0), 0.9, "QUICK", ""),
        ({**GOOD, "spread": 0.5}, FULL._replace(min_batches=2), 0.0, "QUICK", "spread 50%"),
    ],
)
def test_verdicts(figures, settings, load, verdict, reason):
    judged = timing.verdict(figures, settings, load, fake=False)
    assert judged["verdict"] == verdict
    assert (reason in "; ".join(judged["reasons"])) and bool(reason) == bool(judged["reasons"])


def test_a_fake_is_never_valid():
    assert timing.verdict(GOOD, FULL, 0.0, fake=True)["verdict"] == "FAKE"


def test_load_of_other_processes_is_seen():
    spin = "import time; end = time.time() + 1.5\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin]):
        time.sleep(0.3)
        load = machine.OtherLoad()
        time.sleep(0.8)
        assert load.share() > 0.5 / machine.psutil.cpu_count()


def test_own_work_is_no_other_load(monkeypatch):
    """Two cores, ten seconds: 12 busy core seconds, 9 of them our own, leave 3 of 20."""
    now = {"clock": 0.0, "busy": 100.0, "own": 50.0}
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now["clock"])
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(machine, "_busy_seconds", lambda: now["busy"])
    monkeypatch.setattr(machine.OtherLoad, "_own_seconds", lambda _: now["own"])
    load = machine.OtherLoad()
    now.update(clock=10.0, busy=112.0, own=59.0)
    assert load.share() == pytest.approx(0.15)
    now.update(busy=105.0)  # clocks tick apart
    assert load.share() == 0


def test_peak_memory_is_in_bytes():
    import resource

    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert machine.peak_memory_bytes() == pytest.approx(1024 * kib, rel=0.01)
