"""Forced alignment: at which frames a known text was said, by its most probable CTC path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepspeech2.corpus import labels
from deepspeech2.scoring import decoders
from deepspeech2.scoring.decoders import Decoded


def decode(posteriors: np.ndarray, targets: Sequence[int], alphabet: Sequence[str]) -> Decoded:
    """The text of `targets` (labels of the alphabet), as a decoder that can say nothing else
    finds it in posteriors (T', classes). Raises `ValueError` where the frames are too few.
    """
    path = np.full(len(posteriors), labels.BLANK)
    if len(targets):
        for target, (first, last) in zip(targets, ctc_path(posteriors, targets)):
            path[first : last + 1] = target
    return decoders.of_path(path, posteriors, alphabet)


def ctc_path(posteriors: np.ndarray, targets: Sequence[int]) -> list[tuple[int, int]]:
    """First and last frame of every target on the most probable CTC path (Viterbi).

    Raises `ValueError` where the frames are too few for the targets.
    """
    states = np.full(2 * len(targets) + 1, labels.BLANK)
    states[1::2] = targets
    scores = np.log(np.maximum(posteriors, 1e-30))[:, states]
    # A label may be reached past a blank, unless the label before it is the same.
    skip = np.zeros(len(states), bool)
    skip[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, :2]
    back = np.zeros(scores.shape, np.int64)
    for frame in range(1, len(scores)):
        stay, step, jump = best, np.full_like(best, -np.inf), np.full_like(best, -np.inf)
        step[1:] = best[:-1]
        jump[2:] = np.where(skip[2:], best[:-2], -np.inf)
        choices = np.stack([stay, step, jump])
        back[frame] = choices.argmax(axis=0)
        best = choices.max(axis=0) + scores[frame]
    state = len(states) - (1 if best[-1] >= best[-2] else 2)
    if not np.isfinite(best[state]):
        raise ValueError("too few frames for the targets")
    spans: list[tuple[int, int]] = [(-1, -1)] * len(targets)
    for frame in range(len(scores) - 1, -1, -1):
        if state % 2:
            last = spans[state // 2][1]
            spans[state // 2] = (frame, frame if last < 0 else last)
        state -= back[frame, state]
    return spans
