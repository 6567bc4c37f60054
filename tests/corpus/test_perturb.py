"""Recordings made worse: by how much they say, and always alike."""

import numpy as np
import pytest
from deepspeech2.corpus.audio import SAMPLE_RATE
from deepspeech2.corpus.perturb import NOISES, Perturbation, perturbed

TIMES = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE


def tone(hertz=1000, level=0.1):
    return (level * np.sin(2 * np.pi * hertz * TIMES)).astype(np.float32)


def power(samples, low=0, high=SAMPLE_RATE / 2):
    """Mean power between two frequencies."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return spectrum[(low <= hertz) & (hertz < high)].sum() * 2 / len(samples) ** 2


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("snr", [-20, 0, 10, 40])
@pytest.mark.parametrize("level", [0.001, 0.5])
def test_noise_has_the_level_that_is_asked_for(noise, snr, level):
    clean = tone(level=level)
    added = perturbed(clean, "u", Perturbation(snr=snr, noise=noise)) - clean
    assert 10 * np.log10(np.mean(clean**2) / np.mean(added**2)) == pytest.approx(snr, abs=0.02)


def test_pink_noise_has_as_much_in_each_octave_and_white_as_much_in_each_hertz():
    for noise, expected in (("pink", 1), ("white", 2)):
        added = perturbed(tone(), "u", Perturbation(snr=-60, noise=noise))
        octaves = [power(added, low, 2 * low) for low in (100, 200, 400, 1600, 3200)]
        ratios = [b / a for a, b in zip(octaves, octaves[1:])]
        assert ratios[0] == pytest.approx(expected, rel=0.3)
        assert ratios[1] == pytest.approx(expected, rel=0.3)


def test_int16_is_as_float():
    counts = (tone() * 32768).astype(np.int16)
    found = perturbed(counts, "u", Perturbation(snr=10))
    again = perturbed(counts.astype(np.float32) / 32768, "u", Perturbation(snr=10))
    assert found.dtype == np.float32 and (found == again).all()


def test_a_room_decays_by_60_db_in_its_time_and_keeps_the_power():
    click = np.zeros(2 * SAMPLE_RATE, np.float32)
    click[0] = 0.5
    for seconds in (0.3, 1.0):
        found = perturbed(click, "u", Perturbation(reverberation=seconds)).astype(float)
        assert np.mean(found**2) == pytest.approx(np.mean(click**2), rel=1e-5)
        at = round(seconds * SAMPLE_RATE)
        early, late = (
            np.mean(found[place : place + 800] ** 2) for place in (at // 10, at // 10 + at // 2)
        )
        assert 10 * np.log10(early / late) == pytest.approx(30, abs=2.5)  # in half of the time
        assert not found[at:].any() or np.abs(found[at + 1 :]).max() < 1e-6


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.1, 1.234, 2])
def test_speed_moves_length_and_pitch(speed):
    found = perturbed(tone(1000), "u", Perturbation(speed=speed))
    assert len(found) == pytest.approx(len(TIMES) / speed, abs=1)
    inner = found[800:-800] * np.hanning(len(found) - 1600)
    peak = np.argmax(np.abs(np.fft.rfft(inner))) * SAMPLE_RATE / len(inner)
    assert peak == pytest.approx(1000 * speed, rel=0.002)


def test_a_telephone_has_its_band_and_no_other():
    loud = {hertz: power(perturbed(tone(hertz), "u", Perturbation(telephone=True)))
            for hertz in (50, 1000, 2000, 3900, 6000)}  # fmt: skip
    for hertz in (1000, 2000):
        assert loud[hertz] == pytest.approx(power(tone(hertz)), rel=0.1)
    for hertz in (50, 6000):
        assert loud[hertz] < 0.01 * power(tone(hertz))
    assert loud[3900] < 0.3 * power(tone(3900))


def test_an_utterance_is_the_same_whatever_else_there_is():
    settings = Perturbation(snr=5, reverberation=0.4)
    one = perturbed(tone(), "a", settings)
    assert (perturbed(tone(), "a", settings) == one).all()
    for other in (
        perturbed(tone(), "b", settings),
        perturbed(tone(), "a", settings._replace(seed=1)),
    ):
        assert np.abs(other - one).max() > 0.01


@pytest.mark.parametrize("count", [1, 2, 15, 321])
def test_short_recordings_come_through(count):
    everything = Perturbation(10, "pink", 0.5, 1.3, True, 7)
    found = perturbed(tone()[5 : 5 + count], "a", everything)
    assert len(found) and np.isfinite(found).all()


def test_it_says_what_it_did():
    assert Perturbation(10, "pink", 0.5, 1.1, True, 7).words() == (
        "made worse: speed 1.1, reverberation 0.5 s, pink noise at 10 dB, telephone band, seed 7"
    )
    assert Perturbation().words() == "made worse: nothing, seed 0"
