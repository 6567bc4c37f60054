"""Batches of features: how wide they are, what they hold, and that one is made ahead."""

import threading

import numpy as np
import pytest
from deepspeech2.features.batches import Batches
from helpers import Loaded


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("padding", "alone"), [("longest", 700), ("batch", 490), ([45, 80], 565)])
def test_the_padding_share_is_that_of_the_assembled_batches(batch_size, padding, alone):
    """By counting: what holds no frame of an utterance of its own is padding."""
    frames = [100, 90, 80, 70, 60, 50, 40]
    batches = Batches(Loaded(frames), batch_size, padding)
    total = own = 0
    for start in range(0, 7, batch_size):
        batch = batches.assemble(start)
        total += batch.spectrograms[:, 0, 0].size
        own += np.count_nonzero(batch.spectrograms[: len(batch.positions), 0, 0])
    assert own == sum(frames)
    share = batches.padding_share()
    assert share == pytest.approx(1 - own / total)
    if batch_size == 1:
        assert share == pytest.approx(1 - 490 / alone)


@pytest.mark.parametrize("padding", ["batch", "longest", [5, 8]])
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_batches_ahead_are_those_assembled_in_place(size, padding):
    batches = Batches(Loaded([9, 7, 7, 4, 2, 1, 1]), size, padding)
    expected = [batches.assemble(start) for start in range(0, 7, size)]
    made = list(batches)
    assert len(made) == len(batches)
    assert [b.positions for b in made] == [b.positions for b in expected]
    for one, other in zip(made, expected):
        assert one.spectrograms.tobytes() == other.spectrograms.tobytes()
        assert one.lengths.tobytes() == other.lengths.tobytes()


def test_one_batch_is_made_ahead_and_no_more():
    found = Loaded([5] * 10)
    made = iter(Batches(found, 1, "batch"))
    next(made)
    next(made)
    made.close()  # waits for the thread
    assert [position for position, _ in found.loaded] == [0, 1, 2]
    assert threading.main_thread() not in {thread for _, thread in found.loaded}
    assert not any(thread.is_alive() for _, thread in found.loaded)


def test_what_fails_ahead_is_raised_where_its_batch_is_due():
    made = iter(Batches(Loaded([5] * 6, fail=3), 2, "batch"))
    assert next(made).positions == [0, 1]
    with pytest.raises(OSError, match="no 3"):
        next(made)
    assert list(made) == []


@pytest.mark.parametrize("frames", [[], [3], "a", None])
def test_frames_of_another_kind_are_refused(frames):
    features = Loaded([3])
    features.utterances[0]["frames"] = frames
    with pytest.raises((TypeError, ValueError)):
        Batches(features, 1, "longest").assemble(0)
