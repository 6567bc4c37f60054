"""From where on a row fails against a baseline's."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """A share of draws, points of WER, and a share of the speed."""

    confidence: float = 0.95
    max_wer_increase: float = 0.0
    max_slowdown: float = 0.1
