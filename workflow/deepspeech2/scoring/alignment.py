"""Edit operations between a reference and a hypothesis, and what is counted from them.

`Levenshtein.editops` is the only aligner: others split the same number of errors differently into
substitutions, deletions and insertions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import Levenshtein

Pair = tuple[list[str], list[str]]  # reference and hypothesis tokens


class Errors(NamedTuple):
    """Edit operations that turn references into hypotheses, and the references' length."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def count(self) -> int:
        """All errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per hundred tokens of the reference; NaN without a reference."""
        return 100 * self.count / self.length if self.length else float("nan")


def words(text: str) -> list[str]:
    """The tokens of WER."""
    return text.split()


def characters(text: str) -> list[str]:
    """The tokens of CER: spaces do not count."""
    return list("".join(text.split()))


TOKENS = {"wer": words, "cer": characters}


def count_errors(pairs: Iterable[Pair]) -> Errors:
    """Errors over pairs of reference and hypothesis tokens."""
    counts: Counter = Counter()
    length = 0
    for reference, hypothesis in pairs:
        counts.update(operation for operation, _, _ in Levenshtein.editops(reference, hypothesis))
        length += len(reference)
    return Errors(counts["replace"], counts["delete"], counts["insert"], length)


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str, str]]:
    """Steps (operation, reference token, hypothesis token) in order.

    Operations are equal, replace, delete and insert; the token that a step lacks is "".
    """
    steps = []
    for operation, i1, i2, j1, j2 in Levenshtein.opcodes(
        Levenshtein.editops(reference, hypothesis), len(reference), len(hypothesis)
    ):
        for k in range(max(i2 - i1, j2 - j1)):
            old = reference[i1 + k] if i1 + k < i2 else ""
            new = hypothesis[j1 + k] if j1 + k < j2 else ""
            steps.append((operation, old, new))
    return steps


def confusions(pairs: Iterable[Pair]) -> list[tuple[str, str, int]]:
    """How often which token became which, most frequent first; "" where one is missing."""
    counts = Counter(
        (old, new)
        for reference, hypothesis in pairs
        for operation, old, new in align(reference, hypothesis)
        if operation != "equal"
    )
    return [(*key, n) for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
