"""How good times and confidences of words are: calibration, and errors of the words' starts.

A word of a hypothesis is right where the alignment has it as equal. Bins of confidence have equal
widths: the few doubtful words, for which confidence is there, have bins of their own, and the
expected calibration error is what others call so. The Brier score needs no bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deepspeech2.cli import UserError
from deepspeech2.files import read_text
from deepspeech2.scoring.alignment import align, words
from deepspeech2.scoring.sclite import plain_ids

BINS = 10


def right(reference: str, hypothesis: str) -> list[bool]:
    """Of each word of a hypothesis, whether it is right."""
    steps = align(words(reference), words(hypothesis))
    return [operation == "equal" for operation, _, _ in steps if operation != "delete"]


def confidence(transcripts: Iterable[dict]) -> dict | None:
    """Calibration of the words of transcripts; None where these have no words, or no confidence.

    `expected_calibration_error` is the distance of a bin's mean confidence and its share of right
    words, the mean over all words. Each of `bins` has its bounds, the number of its words, their
    mean confidence (None without a word), and how many are right.
    """
    sure, correct = [], []
    for entry in transcripts:
        if "words" not in entry:
            return None
        sure += [word[3] for word in entry["words"]]
        correct += right(entry["reference"], entry["hypothesis"])
    if not sure:
        return None
    p, ok = np.array(sure), np.array(correct, float)
    places = np.minimum((p * BINS).astype(int), BINS - 1)
    bins = [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "words": int(inside.sum()),
            "confidence": float(p[inside].mean()) if inside.any() else None,
            "right": int(ok[inside].sum()),
        }
        for number in range(BINS)
        for inside in [places == number]
    ]
    gaps = [abs(b["confidence"] * b["words"] - b["right"]) for b in bins if b["words"]]
    return {
        "words": len(p),
        "right": int(ok.sum()),
        "mean": float(p.mean()),
        "expected_calibration_error": sum(gaps) / len(p),
        "brier": float(np.square(p - ok).mean()),
        "bins": bins,
    }


def start_errors(
    transcripts: dict[str, dict], truth: dict[str, list[tuple[str, float, float]]]
) -> dict | None:
    """Errors (s) of the starts of right words against the `truth` of `read_ctm`, by plain ids;
    None where there are none. Utterances that the truth has otherwise or not at all are left out.

    `signed_mean` is positive where words are found too late.
    """
    errors: list[float] = []
    for name, entry in zip(plain_ids(list(transcripts)), transcripts.values()):
        known = truth.get(name, [])
        if "words" not in entry or [word for word, *_ in known] != words(entry["reference"]):
            continue
        old, new = iter(known), iter(entry["words"])
        for operation, _, _ in align(words(entry["reference"]), words(entry["hypothesis"])):
            true = next(old) if operation != "insert" else None
            found = next(new) if operation != "delete" else None
            if operation == "equal":
                errors.append(found[1] - true[1])
    if not errors:
        return None
    sizes = np.abs(errors)
    return {
        "words": len(errors),
        "mean": float(sizes.mean()),
        "median": float(np.median(sizes)),
        "p95": float(np.percentile(sizes, 95)),
        "signed_mean": float(np.mean(errors)),
    }


def read_ctm(path: str | Path) -> dict[str, list[tuple[str, float, float]]]:
    """Words with start and end (s), by id, of a ctm file: id, channel, start, duration and word."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        try:
            name, _, start, duration, word, *_ = line.split()
            span = float(start), float(start) + float(duration)
            if not (0 <= span[0] <= span[1] < math.inf):
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}: line {number}: not id, channel, start, duration and word"
            ) from None
        found.setdefault(name, []).append((word, *span))
    return found
