"""Error rates of transcripts, with bootstrap intervals, and a paired test of two sets of them.

WER is the summed edit distance over words by the summed reference words, CER the same over
characters with spaces removed, SER the share of utterances with any wrong word; all over the whole
set, in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import kaldialign

from deepspeech2.scoring.alignment import TOKENS, Pair, count_errors, words

REPLICATIONS = 1000  # of the bootstrap
SEED = 0


def interval(pairs: Sequence[Pair]) -> tuple[float | None, float | None]:
    """95 % bootstrap interval of the error rate over utterances, in percent.

    None where it has no bound: draws of utterances with empty references only have no rate.
    """
    references, hypotheses = zip(*pairs)
    found = kaldialign.bootstrap_wer_ci(
        references, hypotheses, replications=REPLICATIONS, seed=SEED
    )
    if not (math.isfinite(found["ci95min"]) and math.isfinite(found["ci95max"])):
        return None, None
    return max(0.0, 100 * found["ci95min"]), 100 * found["ci95max"]


def improvement(references, before, after) -> tuple[float, float]:
    """Paired bootstrap test: how often `after` has fewer errors than `before`, and how often more.

    All three are lists of token lists. The shares are of replications over the same draws of
    utterances; what is missing to 1 are ties.
    """

    def share(first, second):
        return kaldialign.bootstrap_wer_ci(
            references, first, second, replications=REPLICATIONS, seed=SEED
        )["p_s2_improv_over_s1"]

    return share(before, after), share(after, before)


def rates(transcripts: Iterable[dict], intervals: bool = True) -> dict:
    """WER, CER and SER of some transcripts, with counts of errors.

    A rate is None where all references are empty.
    """
    transcripts = list(transcripts)
    result: dict = {"utterances": len(transcripts)}
    for name, tokens in TOKENS.items():
        pairs = [(tokens(t["reference"]), tokens(t["hypothesis"])) for t in transcripts]
        errors = count_errors(pairs)
        result[name] = {
            "percent": errors.rate if errors.length else None,
            **{key: value for key, value in errors._asdict().items() if key != "length"},
            "reference_length": errors.length,
        }
        if intervals:
            bounds = interval(pairs) if errors.length else (None, None)
            result[name]["low"], result[name]["high"] = bounds
    wrong = sum(words(t["reference"]) != words(t["hypothesis"]) for t in transcripts)
    result["ser"] = {"percent": 100 * wrong / len(transcripts), "sentences": wrong}
    return result
