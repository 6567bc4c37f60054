"""Forced alignment: the best path of all, and where it says that a known text was said."""

import itertools

import numpy as np
import pytest
from deepspeech2.scoring import forced
from deepspeech2.scoring.decoders.greedy import Decoder as Greedy
from helpers import LABELS, posteriors_of


def all_paths(frames, targets):
    """Every CTC path of so many frames that reads as the targets."""
    alphabet = sorted({0, *targets})
    for path in itertools.product(alphabet, repeat=frames):
        read = [x for x, _ in itertools.groupby(path) if x]
        if read == list(targets):
            yield path


@pytest.mark.parametrize("targets", [[1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 1]])
@pytest.mark.parametrize("frames", [5, 6])
def test_the_ctc_path_is_the_best_of_all(targets, frames):
    posteriors = np.random.default_rng(frames + len(targets)).dirichlet(np.ones(4), frames)
    logs = np.log(posteriors)
    best = max(all_paths(frames, targets), key=lambda p: sum(logs[t, x] for t, x in enumerate(p)))
    spans, frame = [], 0
    for label, run in itertools.groupby(best):
        length = len(list(run))
        if label:
            spans.append((frame, frame + length - 1))
        frame += length
    assert forced.ctc_path(posteriors, targets) == spans


@pytest.mark.parametrize(("frames", "targets"), [(1, [1, 2]), (2, [1, 1]), (4, [1, 1, 1])])
def test_too_few_frames_have_no_ctc_path(frames, targets):
    with pytest.raises(ValueError, match="too few frames"):
        forced.ctc_path(np.full((frames, 3), 1 / 3), targets)


def test_a_text_that_greedy_hears_is_where_greedy_hears_it():
    posteriors = posteriors_of("__GG_O_ __O_NNN")
    heard = Greedy(LABELS)(posteriors)
    found = forced.decode(posteriors, [LABELS.index(c) for c in "GO ON"], LABELS)
    assert found.text == heard.text == "GO ON"
    for ours, theirs in zip(found[1:], heard[1:]):
        np.testing.assert_array_equal(ours, theirs)


def test_a_text_that_is_not_heard_is_found_all_the_same():
    posteriors = posteriors_of("_YY_EE__")
    posteriors[6, LABELS.index("S")] = 0.05
    found = forced.decode(posteriors, [LABELS.index(c) for c in "YES"], LABELS)
    assert found.text == "YES" and found.starts.tolist() == [1, 4, 6]
    assert found.ends.tolist() == [3, 6, 7]
    assert found.confidences == pytest.approx([0.9, 0.9, 0.05])


def test_no_text_needs_no_frames():
    assert forced.decode(np.zeros((0, 3)), [], "_AB").text == ""
