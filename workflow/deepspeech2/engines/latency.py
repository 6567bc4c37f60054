"""Percentiles of latencies, with what their sample can say of them."""

from __future__ import annotations

import functools
import math

import numpy as np

from deepspeech2.engines.verdicts import BOUNDED

P99_BATCHES = 100  # below this many batches the 99th percentile is the maximum, so it is left out


@functools.cache
def ranks(count: int, percent: int) -> tuple[int, int] | None:
    """Which of `count` sorted times, from 1, a percentile lies between with 95 % confidence.

    Whatever their distribution (order statistics): how many lie below it is binomial. None where
    even the longest may be below it.
    """
    share, below = percent / 100, np.arange(count + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    likely = factorials[-1] - factorials - factorials[::-1]
    likely += below * math.log(share) + below[::-1] * math.log(1 - share)
    cumulative = np.cumsum(np.exp(likely))
    low, high = (int(np.searchsorted(cumulative, bound)) for bound in (0.025, 0.975))
    return (low, high + 1) if low >= 1 and high < count else None


def latencies(seconds: np.ndarray) -> dict[str, float | None]:
    """Mean, standard deviation and percentiles of times (n,) in seconds, in milliseconds.

    Those of `BOUNDED` come with their 95 % interval, as `p90_low` and `p90_high`.
    """
    values = {
        "mean": seconds.mean(),
        "std": seconds.std(ddof=1) if len(seconds) > 1 else 0.0,
        **{f"p{p}": np.percentile(seconds, p) for p in (50, 90, 95, 99)},
    }
    found: dict = {key: round(1000 * float(value), 4) for key, value in values.items()}
    if len(seconds) < P99_BATCHES:
        found["p99"] = None
    ordered = np.sort(seconds)
    for percent in BOUNDED:
        places = ranks(len(seconds), percent)
        for name, place in zip(("low", "high"), places or (None, None)):
            bound = place and round(1000 * float(ordered[place - 1]), 4)
            found[f"p{percent}_{name}"] = bound
    return found
