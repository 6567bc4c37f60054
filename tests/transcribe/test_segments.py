"""Where recordings are cut, and that nothing that was said is lost or said twice."""

import numpy as np
import pytest
from deepspeech2.transcribe import segments
from deepspeech2.transcribe.segments import FRAME, MOST, OVERLAP, pieces

RATE = 16000


def spoken(seconds, seed=0):
    """Noise that grows and falls three times a second, as syllables do."""
    random = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    voice = np.sin(2 * np.pi * 1500 * times + random.uniform(0, 6))
    return (0.3 * voice * (0.5 - 0.45 * np.cos(2 * np.pi * 8 * times))).astype("f4")


def silence(seconds, level=1e-4, seed=1):
    return (np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * level).astype("f4")


def in_blocks(samples, size=50_000):
    return (samples[start : start + size] for start in range(0, len(samples), size))


def test_a_short_recording_is_one_piece_as_it_is():
    sound = np.concatenate([silence(0.3), spoken(2), silence(0.4)])
    (piece,) = pieces([sound])
    assert np.array_equal(piece.samples, sound)
    assert piece[1:] == (0, 0, len(sound), False)


def test_pieces_end_at_pauses_and_long_silence_is_left_out():
    parts = [silence(30), spoken(4), silence(1), spoken(3), silence(40), spoken(2), silence(20)]
    found = list(pieces(in_blocks(np.concatenate(parts))))
    begins = np.cumsum([0, *map(len, parts)])[1::2] / RATE
    assert len(found) == 3
    for piece, begin, speech in zip(found, begins, parts[1::2]):
        seconds = len(piece.samples) / RATE
        assert -0.4 <= piece.start / RATE - begin <= 0
        assert len(speech) / RATE <= seconds <= len(speech) / RATE + 0.8
        assert not piece.joined and (piece.first, piece.last) == (0, len(piece.samples))


def test_a_long_recording_is_cut_at_its_longest_pauses():
    parts = []
    for number in range(30):
        parts += [spoken(2, number), silence(0.3 if number % 3 == 2 else 0.2, seed=number)]
    sound = np.concatenate(parts)
    found = list(pieces(in_blocks(sound)))
    assert all(2 <= len(p.samples) / RATE <= 10 for p in found)
    # No pause is long, so that all of the sound is there, once.
    assert np.array_equal(np.concatenate([p.samples for p in found]), sound)
    assert [p.start for p in found] == list(np.cumsum([0, *(len(p.samples) for p in found)])[:-1])


def test_what_has_no_pause_is_cut_into_windows_that_overlap():
    sound = spoken(100)
    found = list(pieces(in_blocks(sound)))
    assert len(found) == 5 and [p.joined for p in found] == [False, *[True] * 4]
    counted = [p.samples[p.first : p.last] for p in found]
    assert np.array_equal(np.concatenate(counted), sound)
    for before, after in zip(found, found[1:]):
        assert len(before.samples) == MOST * FRAME
        assert after.start + after.first == before.start + before.last
        assert after.first == OVERLAP * FRAME == len(before.samples) - before.last


def test_only_so_many_windows_are_joined(monkeypatch):
    monkeypatch.setattr(segments, "WINDOWS", 3)
    sound = spoken(120)
    found = list(pieces(in_blocks(sound)))
    assert [p.joined for p in found] == [False, True, True, False, True, True]
    assert np.array_equal(np.concatenate([p.samples[p.first : p.last] for p in found]), sound)


@pytest.mark.parametrize("level", [0, 1e-4, 1e-2, 0.3])
def test_noise_and_silence_are_no_speech(level):
    assert not list(pieces(in_blocks(silence(70, level))))


def test_blocks_do_not_matter():
    parts = [spoken(3, 1), silence(0.8), spoken(11, 2), silence(2), spoken(30, 3)]
    sound = np.concatenate(parts)
    ways = [list(pieces(in_blocks(sound, size))) for size in (997, 65536, len(sound))]
    for way in ways[1:]:
        assert [p[1:] for p in way] == [p[1:] for p in ways[0]]
        assert all(np.array_equal(a.samples, b.samples) for a, b in zip(way, ways[0]))


@pytest.mark.parametrize("samples", [0, 1, 160, 319, 321])
def test_next_to_nothing(samples):
    assert sum(len(p.samples) for p in pieces([spoken(1)[:samples]])) in (0, samples)
