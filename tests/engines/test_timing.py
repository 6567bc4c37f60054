"""The timing loop, its figures and its verdicts, with a clock that the test holds; the machine."""

import json
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from deepspeech2 import cli, engines, files, machine, node, sources
from deepspeech2.cli import UserError
from deepspeech2.engines import latency, timing, verdicts
from deepspeech2.features import batches as features
from deepspeech2.features.batches import Batches
from deepspeech2.model import posteriors
from helpers import Clock, Features

FULL = timing.Settings(5, 10, 10.0, None, 0.2, 0.1, ["performance"])
QUIET = timing.Conditions(0.0, 0.0, "performance")


class Session:
    """Records what it is asked to do; upload takes 1 s, forward 2, synchronize 3, download 4."""

    notes = {"left_to_torch": ["aten::lstm"]}  # noqa: RUF012

    def __init__(self, clock):
        self.clock, self.events, self.first = clock, [], []

    def _do(self, event, seconds):
        self.events.append(event)
        self.clock.now += seconds

    def upload(self, spectrograms, lengths):
        self._do("upload", 1)
        self.first.append(int(spectrograms[0, 0, 0, 0]) - 1)  # position of the first utterance
        return spectrograms.shape

    def forward(self, shape):
        self._do("forward", 2)
        return shape

    def synchronize(self):
        self._do("synchronize", 3)

    def download(self, shape):
        self._do("download", 4)
        return np.full((shape[0], 2, 2), 0.5, np.float32), np.full(shape[0], 2)

    def peak_memory_bytes(self):
        return 12345

    def close(self):
        self.events.append("close")


@pytest.fixture
def session(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return Session(clock)


def test_the_region_is_forward_and_synchronize(session):
    times = timing.time_batch(session, Batches(Features(3), 2, "longest"), 0)
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
    times = timing.measure(session, Batches(Features(3), 2, "longest"), settings)
    assert len(times) == batches
    assert times[0].utterances == 2  # whatever warmed up, the set is measured from its start
    assert session.events.count("forward") == batches + settings.warmup_batches
    assert [t.utterances for t in times] == [2, 1] * (batches // 2)


def test_a_single_stream_comes_in_the_order_of_the_manifest(session):
    order = [3, 0, 2, 1]  # the longest utterance is the last of the manifest
    settings = FULL._replace(multi=2, warmup_batches=5)
    batches = Batches(Features(4, order), 1, "batch")
    times = timing.measure(session, batches, settings, "single_stream")
    assert session.first == [1, 3, 2, 0, 1] + 2 * [1, 3, 2, 0]
    assert [t.padded_frames for t in times] == 2 * [90, 70, 80, 100]
    assert [t.utterances for t in times] == 8 * [1]


@pytest.mark.parametrize(
    ("batch_size", "scenario", "starts"),
    [
        (1, "offline", [0, 1, 2, 3, 4]),
        (2, "offline", [0, 2, 4]),
        (8, "offline", [0]),
        (1, "single_stream", [2, 4, 0, 3, 1]),
    ],
)
def test_batches_of_a_pass(batch_size, scenario, starts):
    batches = Batches(Features(5, [2, 4, 0, 3, 1]), batch_size, "longest")
    assert timing.starts_of(batches, scenario) == starts


def test_only_real_utterances_count(session):
    times = timing.measure(session, Batches(Features(3), 8, "longest"), FULL._replace(multi=2))
    figures = timing.summarise(times)
    assert figures["batches"] == 2 and figures["utterances"] == 6
    assert figures["seconds"] == 10 and figures["utterances_per_s"] == 0.6
    assert figures["rtfx"] == pytest.approx(2 * 2.7 / 10)
    assert figures["end_to_end_utterances_per_s"] == pytest.approx(6 / 20)
    assert figures["padding_share"] == pytest.approx(1 - 270 / 800)
    assert figures["phase_seconds"] == {"assemble": 0, "upload": 2, "forward": 10, "download": 8}
    assert figures["latency_ms"]["p50"] == 5000 and figures["end_to_end_latency_ms"]["p50"] == 10000


def make(seconds, frames=100, rows=1):
    return timing.Times(0.25, 0.5, seconds, 1.0, 1, 1.0, frames, frames, rows)


@pytest.mark.parametrize("percent", verdicts.BOUNDED)
@pytest.mark.parametrize("count", [1, 7, 35, 36, 100, 368, 500, 20_000])
def test_percentiles_lie_between_ranks_with_the_confidence_that_is_told(count, percent):
    below = scipy.stats.binom(count, percent / 100)
    found = latency.ranks(count, percent)
    if found is None:
        assert below.sf(count - 1) > 0.025 or below.cdf(0) > 0.025
        return
    low, high = found
    assert 1 <= low < high <= count
    assert below.cdf(low - 1) < 0.025 <= below.cdf(low)
    assert below.cdf(high - 2) < 0.975 <= below.cdf(high - 1)
    draws = np.random.default_rng(0).exponential(size=(2000, min(count, 500)))
    if count <= 500:
        draws.sort(axis=1)
        true = -np.log(1 - percent / 100)
        covered = np.mean((draws[:, low - 1] <= true) & (true <= draws[:, high - 1]))
        assert covered >= 0.94


def test_times_are_read_as_they_were_written(tmp_path):
    times = [make(0.1 + 0.2, 7), make(1e-9)]
    assert timing.write_times(tmp_path / "t.tsv", times) == files.sha256(tmp_path / "t.tsv")
    assert timing.read_times(tmp_path / "t.tsv") == times
    text = (tmp_path / "t.tsv").read_text()
    for wrong in ("", "\n", text.replace("1e-09", "nan"), text.replace("1e-09", "x"), text + "1\n",
                  text.replace("1e-09", "-1"), text.splitlines()[0], text.replace("rows", "row"),
                  text[:-1] + "\t1\n"):  # fmt: skip
        (tmp_path / "t.tsv").write_text(wrong)
        with pytest.raises(UserError, match="not a table of times"):
            timing.read_times(tmp_path / "t.tsv")


def test_percentiles_and_spread():
    figures = timing.summarise([make(0.001 * i) for i in range(1, 102)])
    assert figures["latency_ms"] == {
        "mean": 51.0,
        "std": pytest.approx(29.3, abs=0.01),
        "p50": 51.0,
        "p90": 91.0,
        "p95": 96.0,
        "p99": 100.0,
        # Of 101 times the 85th to the 97th, and no limit above the 99th percentile.
        "p90_low": 85.0,
        "p90_high": 97.0,
        "p99_low": None,
        "p99_high": None,
    }
    for name, mean in (("latency_ms", 51.0), ("end_to_end_latency_ms", 1801.0)):
        assert figures[name]["mean"] == mean
        assert figures[name]["p99"] - figures[name]["mean"] == pytest.approx(49.0)
        for count, known in ((99, False), (100, True)):
            p99 = timing.summarise([make(1.0)] * count)[name]["p99"]
            assert (p99 is not None) == known
    assert figures["batch_ms"] == [float(i) for i in range(1, 102)]
    many = timing.summarise([make(0.001)] * 2001 + [make(0.002)])
    assert many["batch_ms"] == [1.0] * 2000 and many["batches"] == 2002
    # Wider batches take longer without being less steady.
    assert timing.summarise([make(1.0, 100), make(2.0, 200)])["spread"] == 0
    assert timing.summarise([make(1.0)])["spread"] == 0
    # A batch of fewer rows has another pace; one that copies fill up has not, and counts.
    short = [make(1.0, rows=4), make(1.0, rows=4), make(9.0, rows=2)]
    assert timing.summarise(short)["spread"] == 0
    filled = [t._replace(rows=4) for t in short[:2]] + [short[2]._replace(rows=4, utterances=0)]
    assert timing.summarise(filled)["spread"] > 1


GOOD = {"spread": 0.05, "batches": 10, "seconds": 10.0}
LOADED = QUIET._replace(other_load=0.11)
BUSY_BEFORE = QUIET._replace(load_before=0.5)
SLOW = QUIET._replace(governor="powersave")
QUICK = FULL._replace(warmup_batches=1)


@pytest.mark.parametrize(
    ("figures", "settings", "conditions", "verdict", "short", "disturbed"),
    [
        (GOOD, FULL, QUIET, "VALID", "", ""),
        (GOOD, FULL._replace(multi=4, min_batches=1), QUIET, "VALID", "", ""),
        ({**GOOD, "batches": 9}, FULL._replace(multi=1), QUIET, "INVALID", "9 of 10 batches", ""),
        ({**GOOD, "seconds": 9.9}, FULL._replace(multi=1), QUIET, "INVALID", "9.9 of 10 s", ""),
        ({**GOOD, "spread": 0.21}, FULL, QUIET, "INVALID", "", "spread 21% above 20%"),
        (GOOD, FULL, LOADED, "INVALID", "", "other load 11% above 10%"),
        (GOOD, FULL, BUSY_BEFORE, "INVALID", "", "load before the run 50% above 10%"),
        (GOOD, FULL, SLOW, "INVALID", "", "frequency governor powersave, not performance"),
        (
            GOOD, FULL, QUIET._replace(governor="performance, powersave, schedutil"), "INVALID",
            "", "frequency governor powersave, schedutil, not performance",
        ),
        (
            GOOD, FULL._replace(governors=["performance", "schedutil"]), SLOW, "INVALID",
            "", "frequency governor powersave, not performance or schedutil",
        ),
        (GOOD, FULL._replace(governors=["powersave"]), SLOW, "VALID", "", ""),
        (GOOD, FULL, QUIET._replace(throttled_seconds=0.1), "VALID", "", ""),
        (
            GOOD, FULL, QUIET._replace(throttled_seconds=0.3), "INVALID", "",
            "throttled for 0.3 s by a quota of CPU time",
        ),
        (GOOD, FULL._replace(governors=None), SLOW, "VALID", "", ""),
        (GOOD, FULL._replace(governors=[]), SLOW, "VALID", "", ""),
        (GOOD, FULL, QUIET._replace(governor=None), "VALID", "", ""),  # none is readable
        (GOOD, FULL._replace(multi=1, warmup_batches=4), QUIET, "INVALID", "4 of 5 warm-up batches",
         ""),
        (GOOD, FULL._replace(min_seconds=1), QUIET, "QUICK", "", ""),
        (GOOD, QUICK, QUIET, "QUICK", "1 of 5 warm-up batches", ""),
        (GOOD, FULL._replace(max_spread=1000.0), QUIET, "QUICK", "", ""),
        (GOOD, FULL._replace(max_other_load=1.0), QUIET._replace(other_load=0.9), "QUICK", "", ""),
        ({**GOOD, "spread": 0.5}, FULL._replace(min_batches=2), QUIET, "QUICK", "",
         "spread 50% above 20%"),
        (
            {**GOOD, "batches": 3, "spread": 0.5}, QUICK, SLOW._replace(load_before=1.0), "QUICK",
            "1 of 5 warm-up batches; 3 of 10 batches",
            "spread 50% above 20%; load before the run 100% above 10%; "
            "frequency governor powersave, not performance",
        ),
    ],
)  # fmt: skip
def test_verdicts(figures, settings, conditions, verdict, short, disturbed):
    """`disturbed` are the reasons that the settings did not ask for."""
    judged = timing.verdict(figures, settings, conditions, fake=False)
    assert judged["verdict"] == verdict
    assert judged["reasons"] == [r for r in (short + "; " + disturbed).split("; ") if r]
    assert judged["disturbed"] == [r for r in disturbed.split("; ") if r]


@pytest.mark.parametrize("settings", [FULL, QUICK])
def test_wrong_outputs_are_no_measurement(settings):
    judged = timing.verdict(GOOD, settings, QUIET, fake=False, wrong="wrong numbers")
    assert judged["verdict"] == "INVALID" and judged["disturbed"] == ["wrong numbers"]


def test_a_fake_is_never_valid():
    for conditions in (QUIET, SLOW):
        judged = timing.verdict(GOOD, FULL, conditions, fake=True)
        assert judged["verdict"] == "FAKE" and judged["reasons"] and judged["disturbed"] == []


class Backend:
    """A stand-in for torch: opens the session that the test watches."""

    fake = same_bits = fixed_shapes = False

    def __init__(self, session):
        self.session = session

    engine = engines.complete({"backend": "torchscript", "padding": "batch"})

    def prepare(self):
        self.session.events.append("prepare")

    def open(self, folder, threads):
        self.session.events.append("open")
        return self.session

    def versions(self):
        return {"stand-in": "1", "driver": "driver 7"}


@pytest.fixture
def stage(tmp_path, session, monkeypatch):
    """Runs the stage on three utterances with a session of the test's; returns what it wrote."""
    (tmp_path / "features/spect").mkdir(parents=True)
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled/model.bin").write_bytes(b"x")
    shown = Features(3, [2, 0, 1])
    for position, utterance in enumerate(shown.utterances):
        data = shown.load(position).tobytes()
        (tmp_path / f"features/spect/data{position + 1}.bin").write_bytes(data)
        utterance["spect_sha256"] = files.sha256_bytes(data)
    engine = Backend.engine
    for name, content in {
        "features": {
            "bins": 3, "frames_max": 100, "manifest": "m.json", "manifest_sha256": "d" * 64,
            "utterances": shown.utterances,
        },
        "model": {"checkpoint": "a.ckpt", "checkpoint_sha256": "c" * 64, "parameters": 9},
        "compiled": {
            "engine": engine._asdict(), "compile_seconds": 1.5, "bytes": 1, "notes": {},
            "versions": {"stand-in": "1", "driver": "driver 7"},
            "files": {"model.bin": files.sha256_bytes(b"x")},
        },
    }.items():  # fmt: skip
        files.write_json(tmp_path / f"{name}.json", content)
    run_of = {"features_sha256": files.sha256(tmp_path / "features.json")}
    expected = ((name, np.full((2, 2), 0.5, np.float32)) for name in "012")
    posteriors.write(tmp_path / "posteriors.bin", tmp_path / "posteriors.json", expected, run_of)

    def read(path, *arguments):
        session.events.append(f"read {os.path.basename(path)}")
        return require_unaltered(path, *arguments)

    require_unaltered = features.require_unaltered
    monkeypatch.setattr(features, "require_unaltered", read)
    monkeypatch.setattr(engines, "create", lambda _: Backend(session))
    clock = {"perf_counter": session.clock, "sleep": lambda s: session._do("wait", s)}
    monkeypatch.setattr(machine, "time", SimpleNamespace(**clock))
    # Until the first batch, others use a twentieth of the cores.
    cores = machine.psutil.cpu_count()
    monkeypatch.setattr(
        machine,
        "_busy_seconds",
        lambda: 0.05 * cores * min(session.clock.now, machine.LOOK_SECONDS),
    )
    monkeypatch.setattr(machine.OtherLoad, "_own_seconds", lambda _: 0.0)
    monkeypatch.setattr(machine, "governor", lambda: "powersave")
    monkeypatch.setattr(cli, "CORES", 2)

    def run(*more):
        arguments = ["--engine", json.dumps({"backend": "torchscript", "padding": "batch"})]
        arguments += ["--timing", str(tmp_path / "timing.json")]
        arguments += ["--model", str(tmp_path / "model.json")]
        for name, place in (
            ("features", "features"), ("artefact", "compiled"), ("posteriors", "posteriors.bin"),
        ):  # fmt: skip
            arguments += [f"--{name}", str(tmp_path / place)]
            arguments += [f"--{name}-index", str((tmp_path / place).with_suffix(".json"))]
        cli.call(timing.main, [*arguments, *more, "--log", str(tmp_path / "log")])
        return json.loads((tmp_path / "timing.json").read_text())

    return run


def test_every_hash_is_checked_before_the_clock_starts(stage, session):
    stage("--batch-size", "2", "--multi", "2", "--warmup-batches", "1")
    reads = ["read data1.bin", "read data2.bin", "read data3.bin"]
    batch = ["upload", "forward", "synchronize", "download"]
    assert session.events == ["prepare", "open", *reads, "wait", *(5 * batch), "wait", "close"]


def test_of_a_large_set_a_sample_is_timed_and_a_small_one_is_quick(stage, session):
    found = stage("--batch-size", "1", "--sample", "2", "--multi", "3")
    assert found["sample"] == 2 and found["utterances"] == found["batches"] == 6
    assert "read data1.bin" in session.events and session.events.count("read data3.bin") <= 1
    assert sum(event.startswith("read") for event in session.events) == 2
    assert found["settings"]["sample"] == 2 and found["verdict"] == "INVALID"
    assert "a sample of 2 of 1000 utterances" in found["reasons"]
    found = stage("--batch-size", "1", "--sample", "2", "--min-batches", "1", "--min-seconds", "0")
    assert found["verdict"] == "QUICK"
    found = stage("--batch-size", "1", "--sample", "3", "--multi", "1")  # all of the set
    assert found["settings"]["sample"] == 1000 and "sample" not in str(found["reasons"])


def test_an_artefact_of_other_versions_is_refused(stage, tmp_path):
    index = files.read_sealed(tmp_path / "compiled.json")
    index["versions"] = {"stand-in": "1", "driver": "driver 6"}
    files.write_json(tmp_path / "compiled.json", index)
    with pytest.raises(
        UserError, match=r"compiled.json: made with driver driver 6, and here is dri"
    ):
        stage("--batch-size", "1", "--multi", "1")


def test_an_altered_feature_stops_it_and_the_device_is_freed(stage, session, tmp_path):
    (tmp_path / "features/spect/data3.bin").write_bytes(bytes(1200))
    with pytest.raises(UserError, match="data3.bin: altered"):
        stage("--batch-size", "2")
    assert "upload" not in session.events and session.events[-1] == "close"
    assert not (tmp_path / "timing.json").exists()


def test_what_the_stage_writes(stage, session, tmp_path):
    found = stage("--batch-size", "2", "--multi", "3", "--warmup-batches", "4", "--threads", "3")
    assert found["scenario"] == "offline" and found["batches"] == 6 and found["utterances"] == 9
    assert found["fill_up_rows"] == 0 and found["batch_size"] == 2
    assert found["padding_share"] == found["padding_shares"]["batch"] == pytest.approx(1 - 27 / 28)
    assert found["padding_shares"]["longest"] == pytest.approx(1 - 27 / 40)
    conditions = [found[name] for name in timing.Conditions._fields]
    assert conditions == [pytest.approx(0.05), 0, "powersave", 0]
    assert found["verdict"] == "INVALID"
    assert found["disturbed"] == ["frequency governor powersave, not performance"]
    assert found["reasons"] == [
        "4 of 5 warm-up batches", "6 of 10 batches", *found["disturbed"]
    ]  # fmt: skip
    assert found["settings"] == {
        "warmup_batches": 4, "min_batches": 10, "min_seconds": 10.0, "multi": 3,
        "max_spread": 0.2, "max_other_load": 0.1, "governors": ["performance"], "sample": 1000,
    }  # fmt: skip
    environment = found["environment"]
    assert environment["threads"] == 2 and environment["driver"] == "driver 7"  # no more cores
    assert environment["libraries"]["numpy"] == np.__version__
    assert found["versions"] == {"stand-in": "1", "driver": "driver 7"}
    assert found["peak_device_memory_bytes"] == 12345 and found["peak_memory_bytes"] > 1e6
    assert found["compile_seconds"] == 1.5 and found["artefact_bytes"] == 1
    assert found["engine"]["padding"] == "batch"
    assert [found[k][0] for k in ("checkpoint_sha256", "dataset_sha256")] == ["c", "d"]
    assert found["code_sha256"] == sources.digest(
        "deepspeech2.engines.timing", "deepspeech2.engines.torchscript", *engines.BEFORE_A_RUN
    )
    assert (tmp_path / "log").read_text() == "offline, INVALID: 0.30 utterances/s, p90 5000.0 ms\n"
    found = stage("--batch-size", "2", "--multi", "1", "--governors")
    assert found["disturbed"] == [] and found["settings"]["governors"] == []
    found = stage("--batch-size", "2", "--multi", "1", "--governors", "schedutil", "powersave")
    assert found["disturbed"] == []


def test_the_timed_outputs_are_compared(stage, session, tmp_path):
    """With the accuracy run's, outside of what is timed; a difference ends in the verdict."""
    options = ("--batch-size", "2", "--multi", "4", "--warmup-batches", "5", "--governors")
    assert stage(*options)["proof"] == {
        "utterances": 1, "outputs": 4, "largest_difference": 0, "tolerance": 1e-4, "wrong": ""
    }  # fmt: skip
    download = session.download

    def other(shape):
        probabilities, lengths = download(shape)
        return probabilities + np.float32(0.25), lengths

    session.download = other
    found = stage(*options)
    assert found["verdict"] == "INVALID" and found["seconds"] == 8 * 5
    (reason,) = found["disturbed"]
    assert re.fullmatch(
        r"the timed run's posteriors differ from the accuracy run's by 2\.5e-01 in [012], above "
        r"0\.0001",
        reason,
    )


def test_posteriors_of_other_features_are_refused(stage, tmp_path):
    index = files.read_sealed(tmp_path / "posteriors.json")
    index["run"]["features_sha256"] = "e" * 64
    files.write_json(tmp_path / "posteriors.json", index)
    with pytest.raises(UserError, match=r"posteriors.json: made from other features; "):
        stage("--batch-size", "1", "--multi", "1")


def test_the_single_stream_of_the_stage(stage, session, tmp_path):
    stream = ("--scenario", "single_stream", "--multi", "2", "--warmup-batches", "0")
    found = stage("--batch-size", "1", *stream)
    assert found["compile_notes"] == {"left_to_torch": ["aten::lstm"]}
    assert session.first == 2 * [1, 2, 0]
    assert found["scenario"] == "single_stream" and found["batch_ms"] == 6 * [5000.0]
    assert found["end_to_end_latency_ms"]["p90"] == 10000 and found["padding_share"] == 0
    assert (tmp_path / "log").read_text().startswith("single stream, INVALID: ")
    (tmp_path / "timing.json").unlink()
    events = len(session.events)
    with pytest.raises(UserError, match="--batch-size: a single stream has batches of 1, not 2"):
        stage("--batch-size", "2", *stream)
    assert len(session.events) == events and not (tmp_path / "timing.json").exists()


def test_load_before_the_run_is_looked_for_long_enough(monkeypatch):
    """One of two cores busy elsewhere; the run starts 0.2 s after the stage, so it waits 0.3 s."""
    now = {"clock": 0.0}

    def sleep(seconds):
        now["clock"] += seconds

    clock = {"perf_counter": lambda: now["clock"], "sleep": sleep}
    monkeypatch.setattr(machine, "time", SimpleNamespace(**clock))
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(machine, "_busy_seconds", lambda: now["clock"])
    monkeypatch.setattr(machine.OtherLoad, "_own_seconds", lambda _: 0.0)
    load = machine.OtherLoad()
    sleep(0.2)
    assert load.share(0.5) == pytest.approx(0.5) and now["clock"] == pytest.approx(0.5)
    assert load.share(0.5) == pytest.approx(0.5) and now["clock"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("loads", "last", "looks"),
    [([0.05], 0.05, 1), ([0.9, 0.3, 0.1], 0.1, 3), ([0.5] * 99, 0.5, machine.LOOKS)],
)
def test_short_load_before_the_run_is_waited_for(loads, last, looks):
    class Load:
        seen = starts = 0

        def start(self):
            self.starts += 1

        def share(self, seconds):
            assert seconds == machine.LOOK_SECONDS
            self.seen += 1
            return loads[self.seen - 1]

    load = Load()
    assert machine.quiet(load, 0.1) == last and load.seen == looks
    assert load.starts == looks - 1  # the first look was under way since the stage's start


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


def test_peak_memory_is_of_this_process_in_bytes(monkeypatch):
    """Linux's VmHWM: getrusage's would be at least that of the program that started the stage."""
    ballast = np.ones(200 << 20, np.uint8)
    code = "from deepspeech2 import machine; print(machine.peak_memory_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    assert machine.peak_memory_bytes() == pytest.approx(1024 * int(line.split()[1]), rel=0.01)
    assert 5 << 20 < int(child.stdout) < ballast.nbytes < machine.peak_memory_bytes()

    def unreadable(*_, **__):
        raise OSError

    monkeypatch.setattr(machine, "open", unreadable, raising=False)
    assert machine.peak_memory_bytes() >= ballast.nbytes


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ({}, None),
        ({"cpu0": "performance\n", "cpu1": "performance\n"}, "performance"),
        ({"cpu0": "schedutil\n", "cpu12": "performance\n"}, "performance, schedutil"),
        ({"cpu0": b"\xff\xff", "cpufreq": "ondemand"}, None),
    ],
)
def test_the_governor_of_the_cores(tmp_path, cores, expected):
    for name, text in cores.items():
        (tmp_path / name / "cpufreq").mkdir(parents=True)
        path = tmp_path / name / "cpufreq/scaling_governor"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert machine.governor(str(tmp_path)) == expected
    assert machine.governor(str(tmp_path / "absent")) is None


def test_the_revision_of_the_checkout(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "checkout/workflow").mkdir(parents=True)
    source = tmp_path / "checkout/workflow/machine.py"
    source.write_text("x")
    monkeypatch.setattr(machine, "__file__", str(source))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert machine.git_revision() is None

    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.check_output(command, cwd=source.parent, text=True).strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    git("tag", "--annotate", "v1", "--message", "v1")
    revision = git("rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", revision) and machine.git_revision() == revision
    monkeypatch.chdir("/")
    assert machine.git_revision() == revision
    source.write_text("y")
    assert machine.git_revision() == f"{revision}+changes"
    monkeypatch.setenv("PATH", "")  # no git
    assert machine.git_revision() is None


def test_libraries_and_environment():
    found = machine.libraries()
    assert {"torch", "numpy", "Levenshtein", "kaldialign"} <= set(found) <= set(machine.LIBRARIES)
    assert all(version == metadata.version(name) for name, version in found.items())
    environment = machine.environment(3)
    assert environment["threads"] == 3 and environment["cores"] == os.cpu_count()
    assert environment["cpu"] and environment["memory_bytes"] > 1 << 28
    assert environment["libraries"] == found and environment["governor"] == machine.governor()
    assert {"system", "python", "git_revision"} <= set(environment)


def test_the_name_of_a_cpu(tmp_path):
    """Arm's has numbers; a machine with two kinds of cores names both."""
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nflags\t: a b\n" * 2)
    assert node.cpu_name(file) == "A CPU @ 3 GHz"
    core = "processor\t: 0\nCPU implementer\t: 0x{}\nCPU variant\t: 0x1\nCPU part\t: 0x{}\n\n"
    file.write_text(core.format("48", "d01") * 3)
    assert node.cpu_name(file) == "HiSilicon TaiShan-v110 (Kunpeng 920)"
    file.write_text((core.format("61", "022") + core.format("61", "023")) * 2)
    assert node.cpu_name(file) == "Apple Icestorm (M1), Apple Firestorm (M1)"
    file.write_text(core.format("41", "fff"))
    assert node.cpu_name(file) == "Arm 0x41 0xfff"
    assert node.cpu_name(tmp_path / "none")
