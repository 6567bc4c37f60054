"""Utterances that arrive at random, and the highest rate of them at which nearly all are in time.

Arrivals are a Poisson process: times between them are exponential, whatever came before. A rate
holds where so few of its utterances are late that, were as many of all late as may be, so few would
be seen with a probability of `DOUBT` at most: as MLPerf's LoadGen decides ("early stopping"). That
takes latencies for independent of each other, which those of a queue are not. So the highest rate
that holds, found by bisection, counts only once it holds with other and more arrivals, too: in
simulated queues (tests/serving/test_server.py) it is above the true limit by more than `NARROW` in
2 of 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepspeech2.cli import UserError
from deepspeech2.files import read_text, replacing, sha256

DOUBT = 0.05
LEAST = 5  # utterances at a rate that may be late by its percentile: 500 come where that is 99
NARROW = 0.05  # of its upper end: where the bisection ends, and by how much a rate is lowered
LOWEST = 0.05  # of the rate of full batches: below it no rate is looked for
MOST = 10_000_000  # in a trial
REPEATS = 2  # with other arrivals, and so many times as many:
MORE = 3
HEAD = "trial\trate\tcount\tarrived\tdone\tsize"
SHARES = (0.25, 0.5, 0.75)  # of the rate that was found, and of utterances, for the picture


class Rule(NamedTuple):
    """What counts as in time, and how utterances are batched.

    `percentile` of the utterances have to have their transcript within `latency_ms`. As soon as the
    device is free, and `max_batch` of them wait or the first has waited for `max_wait_ms`, as many
    as wait are taken, in their order, at most `max_batch`.
    """

    latency_ms: float
    max_batch: int
    max_wait_ms: float
    seconds: float
    percentile: float = 99.0

    @property
    def late(self) -> float:
        """Share of the utterances that may be late."""
        return 1 - self.percentile / 100

    def count(self, rate: float) -> int:
        """Utterances that arrive at a rate (1/s) in a trial: those of `seconds`, or LEAST."""
        return max(round(LEAST / self.late), math.ceil(rate * self.seconds))

    def allowed(self, count: int) -> int:
        """How many of `count` may be late; -1 if none, and even that would prove nothing."""
        share = self.late
        likely, total, late = count * math.log1p(-share), 0.0, -1
        while (total := total + math.exp(likely)) <= DOUBT:
            late += 1
            likely += math.log((count - late) / (late + 1) * share / (1 - share))
        return late


class Trial(NamedTuple):
    """What came of a rate, of `count` utterances: seconds from the start at which each arrived and
    had its transcript, and how many were in its batch, all (n,) in the order of arrival.

    It ends once it cannot hold any more; what came then is not in it. One of too few utterances to
    tell that goes to its end.
    """

    rate: float
    count: int
    arrived: np.ndarray
    done: np.ndarray
    sizes: np.ndarray

    @property
    def latencies(self) -> np.ndarray:
        """Seconds from each arrival to its transcript."""
        return self.done - self.arrived

    def late(self, rule: Rule) -> int:
        """Utterances that took longer than the rule allows."""
        return int((self.latencies > rule.latency_ms / 1000).sum())

    def holds(self, rule: Rule) -> bool:
        """Whether enough of the utterances are in time, of all that had to come: of few, never."""
        return len(self.done) == self.count and self.late(rule) <= rule.allowed(self.count)


def draw(rate: float, count: int, seed: int, utterances: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds at which `count` utterances arrive at a rate (1/s), ascending, and which of so many
    utterances each is; both (count,).
    """
    random = np.random.default_rng(seed).random((2, count))
    return np.cumsum(-np.log1p(-random[0])) / rate, (random[1] * utterances).astype(int)


def search(rule: Rule, capacity: float, run: Callable[[float, int, int], Trial]) -> tuple:
    """The highest rate (1/s) that holds, or None, and all trials, in their order.

    `run` makes a trial of a rate, a number of utterances and a seed, of which each is used once.
    Utterances of full batches are computed at the rate `capacity`.
    """
    trials: list[Trial] = []

    def held(rate: float, times: float = 1) -> bool:
        trials.append(run(rate, math.ceil(times * rule.count(rate)), len(trials)))
        return trials[-1].holds(rule)

    low, high = 0.0, capacity
    while high > LOWEST * capacity and high - low > NARROW * high:
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) else (low, middle)
    while low >= LOWEST * capacity and not all(held(low, MORE) for _ in range(REPEATS)):
        low *= 1 - NARROW
    if low < LOWEST * capacity:
        return None, trials
    for share in SHARES:
        held(share * low, share)
    return low, trials


def at(trials: Sequence[Trial], rate: float) -> list[Trial]:
    """The trials of a rate."""
    return [trial for trial in trials if trial.rate == rate]


def write(path: Path, trials: Sequence[Trial]) -> str:
    """Write what came of all trials as a table (TSV), a line an utterance; returns its SHA-256."""
    with replacing(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write(f"{HEAD}\n")
        for number, trial in enumerate(trials):
            for cells in zip(trial.arrived.tolist(), trial.done.tolist(), trial.sizes.tolist()):
                line = (number, trial.rate, trial.count, *cells)
                file.write("\t".join(map(repr, line)) + "\n")
    return sha256(path)


def read(path: Path) -> list[Trial]:
    """The trials of a table, as `write` wrote it. Raises `UserError` for all else."""
    head, *lines = read_text(path).rstrip("\n").split("\n")
    try:
        if head != HEAD or not lines:
            raise ValueError
        cells = np.array([line.split("\t") for line in lines], float)
        if cells.shape[1] != len(HEAD.split("\t")):
            raise ValueError
        counts = cells[:, [2, 5]]
        if not ((cells >= 0).all() and cells.max() < MOST and counts.min() >= 1):
            raise ValueError
        numbers = cells[:, 0].astype(int)
        if (np.diff(numbers, prepend=0) > 1).any() or (np.diff(numbers) < 0).any():
            raise ValueError
    except ValueError:
        raise UserError(f"{path}: not a table of arrivals that serving.server wrote") from None
    parts = (cells[numbers == number] for number in range(numbers[-1] + 1))
    return [
        Trial(float(p[0, 1]), int(p[0, 2]), p[:, 3], p[:, 4], p[:, 5].astype(int)) for p in parts
    ]
