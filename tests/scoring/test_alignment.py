"""Edit operations, what is counted from them, and confusions."""

from collections import Counter

import Levenshtein
import numpy as np
import pytest
from deepspeech2.scoring import alignment


@pytest.mark.parametrize(
    ("reference", "hypothesis", "wer", "cer"),
    [  # (substitutions, deletions, insertions, reference length)
        ("A B C", "A B C", (0, 0, 0, 3), (0, 0, 0, 3)),
        ("A B C", "A X C", (1, 0, 0, 3), (1, 0, 0, 3)),
        ("A B C", "A C", (0, 1, 0, 3), (0, 1, 0, 3)),
        ("A B C", "A B B C", (0, 0, 1, 3), (0, 0, 1, 3)),
        ("A B C", "", (0, 3, 0, 3), (0, 3, 0, 3)),
        ("GO ON", "GOON", (1, 1, 0, 2), (0, 0, 0, 4)),
        ("GO", "G O", (1, 0, 1, 1), (0, 0, 0, 2)),
        ("ERASE IT", "RACE  IT ", (1, 0, 0, 2), (1, 1, 0, 7)),
    ],
)
def test_errors(reference, hypothesis, wer, cer):
    for name, expected in (("wer", wer), ("cer", cer)):
        tokens = alignment.TOKENS[name]
        assert alignment.count_errors([(tokens(reference), tokens(hypothesis))]) == expected


def test_rates_are_of_the_corpus_not_means_of_utterances():
    pairs = [(list("ABCDEFGHI"), list("ABCDEFGHI")), (["A"], ["B"])]
    assert alignment.count_errors(pairs).rate == 10.0
    assert np.isnan(alignment.count_errors([([], ["A"])]).rate)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "steps"),
    [
        ("A B C", "A B C", "A B C"),
        ("A B C", "A X C", "A B>X C"),
        ("A B C", "A C", "A -B C"),
        ("A C", "A B C", "A +B C"),
        ("A B C", "B C D", "-A B C +D"),
        ("GO ON", "GOON", "GO>GOON -ON"),
        ("A A", "A", "A -A"),
        ("A B", "", "-A -B"),
        ("", "A B", "+A +B"),
        ("", "", ""),
    ],
)
def test_alignments(reference, hypothesis, steps):
    marks = {"equal": "{0}", "replace": "{0}>{1}", "delete": "-{0}", "insert": "+{1}"}
    found = alignment.align(reference.split(), hypothesis.split())
    assert " ".join(marks[operation].format(*tokens) for operation, *tokens in found) == steps


def test_steps_turn_any_reference_into_its_hypothesis():
    random = np.random.default_rng(0)
    for _ in range(500):
        a, b = (random.choice(["A", "B", "CC"], random.integers(0, 9)).tolist() for _ in range(2))
        steps = alignment.align(a, b)
        assert [old for _, old, _ in steps if old] == a and [new for *_, new in steps if new] == b
        kinds = {
            (True, True, True): "equal",
            (True, True, False): "replace",
            (True, False, False): "delete",
            (False, True, False): "insert",
        }
        for operation, old, new in steps:
            assert operation == kinds[bool(old), bool(new), old == new]
        counts = Counter(operation for operation, *_ in steps)
        errors = alignment.count_errors([(a, b)])
        assert errors == (counts["replace"], counts["delete"], counts["insert"], len(a))
        assert errors.count == Levenshtein.distance(a, b)


def test_confusions_are_ranked_and_ties_are_in_order_of_tokens():
    pairs = [("Z", "Y"), ("A B", "A C"), ("B", ""), ("", "B"), ("B A", "C"), ("Z", "X"), ("D", "D")]
    assert alignment.confusions((a.split(), b.split()) for a, b in pairs) == [
        ("B", "C", 2),
        ("", "B", 1),
        ("A", "", 1),
        ("B", "", 1),
        ("Z", "X", 1),
        ("Z", "Y", 1),
    ]
    assert alignment.confusions([]) == alignment.confusions([(["A"], ["A"])]) == []
