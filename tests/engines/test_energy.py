"""Energy, from made-up counters and programs: this machine may have none."""

import os

import pytest
from conftest import FAKES
from deepspeech2.engines import energy
from deepspeech2.engines.energy import Reading


def zone(folder, number, name="package-0", counter=1_000_000, most=262_143_328_850):
    place = folder / number
    place.mkdir(parents=True)
    for file, content in (("name", name), ("energy_uj", counter), ("max_energy_range_uj", most)):
        (place / file).write_text(f"{content}\n")
    return place


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(energy, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(energy, "IDLE_SECONDS", 0.05)
    return tmp_path / "bin"


def test_packages_are_added_and_their_parts_are_not(tmp_path):
    first = zone(tmp_path, "intel-rapl:0")
    second = zone(tmp_path, "intel-rapl:1", "package-1")
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:2", "psys")  # the platform, with the packages in it
    (tmp_path / "other").mkdir()
    meter = energy.Meter("cpu", str(tmp_path))
    assert [s.name for s in meter.sources] == ["RAPL package-0", "RAPL package-1"]
    assert not meter.lacking
    meter.start()
    (first / "energy_uj").write_text("3500000\n")
    (second / "energy_uj").write_text("1000001\n")
    assert meter.stop().joules == {"RAPL package-0": 2.5, "RAPL package-1": 1e-6}


def test_a_counter_comes_round(tmp_path):
    place = zone(tmp_path, "intel-rapl:0", counter=999_999_000, most=999_999_999)
    package = energy.Package(place)
    package.start()
    (place / "energy_uj").write_text("999000\n")
    assert package.stop(0.5) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ValueError, match="come round more than once"):
        package.stop(1.1)  # at 1000 W


@pytest.mark.parametrize("broken", ["absent", "unreadable", "text", "empty"])
def test_counters_that_cannot_be_read_are_told(tmp_path, broken):
    if broken != "absent":
        place = zone(tmp_path, "intel-rapl:0")
        counter = place / "energy_uj"
        if broken == "unreadable":
            counter.unlink()
            counter.mkdir()  # root reads anything else
        else:
            counter.write_text("many\n" if broken == "text" else "")
    meter = energy.Meter("cpu", str(tmp_path))
    assert not meter.sources and len(meter.lacking) == 1
    meter.start()
    found = energy.figures(meter.idle(), meter.stop(), 130, 360.0)
    assert found == {"sources": [], "joules_per_utterance": None, "joules_per_audio_hour": None}


def test_a_counter_that_vanishes_meanwhile_is_dropped(tmp_path):
    place = zone(tmp_path, "intel-rapl:0")
    meter = energy.Meter("cpu", str(tmp_path))
    idle = Reading({"RAPL package-0": 1.0}, 1.0)
    meter.start()
    (place / "energy_uj").unlink()
    assert energy.figures(idle, meter.stop(), 1, 1.0)["sources"] == []
    assert "RAPL package-0" in meter.lacking[0]


def test_idle_is_subtracted():
    idle = Reading({"a": 10.0, "gone": 5.0}, 2.0)
    found = energy.figures(idle, Reading({"a": 100.0}, 8.0), 30, 120.0)
    assert found == {
        "sources": ["a"], "idle_watts": 5.0, "seconds": 8.0, "joules": 100.0,
        "joules_above_idle": 60.0, "joules_per_utterance": 2.0, "joules_per_audio_hour": 1800.0,
    }  # fmt: skip


def test_a_gpus_power_is_sampled(tmp_path, programs):
    program(programs, "nvidia-smi", 'echo "$@" >> "$0.calls"; echo 250.5')
    meter = energy.Meter("cuda:1", str(tmp_path / "none"))
    assert [s.name for s in meter.sources] == ["nvidia-smi cuda:1"]
    assert "--id=1" in (programs / "nvidia-smi.calls").read_text()
    found = meter.idle()
    assert found.joules["nvidia-smi cuda:1"] / found.seconds == pytest.approx(250.5)
    assert len((programs / "nvidia-smi.calls").read_text().splitlines()) >= 3


@pytest.mark.parametrize(
    "text", ["echo N/A", "echo '[Not Supported]'", "exit 9", "echo -5", "echo nan", "echo inf", ""]
)
def test_a_gpu_that_tells_nothing(tmp_path, programs, text):
    program(programs, "nvidia-smi", text)
    meter = energy.Meter("cuda", str(tmp_path / "none"))
    assert not meter.sources and meter.lacking[1].startswith("nvidia-smi: ")


def test_a_program_that_fails_meanwhile_is_dropped(tmp_path, programs):
    program(programs, "nvidia-smi", "echo 100")
    meter = energy.Meter("cuda:0", str(tmp_path / "none"))
    meter.start()
    program(programs, "nvidia-smi", "exit 1")
    meter.sources[0]._thread.join()
    assert meter.stop().joules == {} and "ended with status 1" in meter.lacking[1]


def test_an_npus_power_is_read_of_the_table(tmp_path, programs):
    text = (FAKES / "npu_smi.txt").read_text()
    assert "| OK            | NA " in text
    with pytest.raises(ValueError, match="tells no power"):
        energy.npu_watts(text, 0)
    told = text.replace("NA ", "12.8", 1).replace(
        "| Warning       | NA  ", "| Warning       | 93.5"
    )
    assert energy.npu_watts(told, 0) == 12.8 and energy.npu_watts(told, 1) == 93.5
    for number in (2, 99):
        with pytest.raises(ValueError, match="tells no power"):
            energy.npu_watts(told, number)
    (tmp_path / "table").write_text(told)
    program(programs, "npu-smi", f"cat '{tmp_path / 'table'}'")
    meter = energy.Meter("npu:1", str(tmp_path / "none"))
    found = meter.idle()
    assert found.joules["npu-smi npu:1"] / found.seconds == pytest.approx(93.5)


def test_this_machine_says_what_it_can():
    meter = energy.Meter("cpu")
    assert meter.sources or meter.lacking
    assert os.path.isdir(energy.POWERCAP) or "no RAPL counters" in meter.lacking[0]
