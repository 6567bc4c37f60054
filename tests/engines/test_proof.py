"""The comparison of the timed run's outputs with the accuracy run's."""

from types import SimpleNamespace

import numpy as np
import pytest
from deepspeech2.engines.proof import Proof
from deepspeech2.model import posteriors

COUNT, FRAMES, CLASSES = 41, 3, 5


def expected(position):
    return np.random.default_rng(position).random((FRAMES, CLASSES), np.float32)


@pytest.fixture
def proof_for(tmp_path):
    """Makes the proof of a batch size, for utterances of three frames each."""
    features = SimpleNamespace(
        utterances=[{"id": f"u{n}"} for n in range(COUNT)], index_sha256="f" * 64
    )
    features = type("Set", (SimpleNamespace,), {"__len__": lambda _: COUNT})(**vars(features))
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    written = ((f"u{n}", expected(n)) for n in range(COUNT))
    posteriors.write(*paths, written, {"features_sha256": "f" * 64})
    return lambda batch_size: Proof(*paths, features, batch_size)


def batch(positions, change=lambda position, numbers: numbers, width=FRAMES + 2):
    """Outputs of a batch with two rows that fill it up, as `Session.download` has them."""
    probabilities = np.full((len(positions) + 2, width, CLASSES), 9, np.float32)
    lengths = np.full(len(probabilities), FRAMES)
    for row, position in enumerate(positions):
        numbers = change(position, expected(position))
        probabilities[row, : len(numbers)], lengths[row] = numbers, len(numbers)
    return positions, probabilities, lengths


def result(proof, same_bits=False, precision="fp32"):
    engine = SimpleNamespace(precision=precision)
    return proof.result(SimpleNamespace(same_bits=same_bits, engine=engine))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_tenth_of_the_utterances_is_compared_each_time(proof_for, batch_size):
    proof = proof_for(batch_size)
    for _ in range(3):
        for start in range(0, COUNT, batch_size):
            proof.compare(*batch(list(range(start, min(COUNT, start + batch_size)))))
    found = result(proof, same_bits=True)
    assert found == {
        "utterances": 5, "outputs": 15, "largest_difference": 0, "tolerance": 0, "wrong": ""
    }  # fmt: skip


def drawn(proof_for, batch_size):
    """Positions that a batch size draws, found from outside."""
    found = set()
    for position in range(COUNT):
        proof = proof_for(batch_size)
        proof.compare(*batch([position]))
        if result(proof)["outputs"]:
            found.add(position)
    return found


def test_each_batch_size_draws_its_own_and_always_the_same(proof_for):
    first, again, other = (drawn(proof_for, size) for size in (4, 4, 16))
    assert len(first) == 5 and first == again != other


def add(amount):
    return lambda position, numbers: numbers + np.float32(amount)


@pytest.mark.parametrize(
    ("change", "precision", "same_bits", "wrong"),
    [
        (add(1e-6), "fp32", False, False),
        (add(1e-6), "fp32", True, True),  # one that promises the same bits
        (add(2e-4), "fp32", False, True),
        (add(0.01), "fp16", False, False),
        (add(0.03), "fp16", False, True),
        (add(0.2), "bf16", False, True),
        (lambda _, numbers: numbers * np.float32("nan"), "bf16", False, True),
        (lambda _, numbers: numbers * np.float32("inf"), "bf16", False, True),
        (lambda _, numbers: numbers[:-1], "fp32", False, True),  # another number of frames
        (lambda _, numbers: numbers[::-1], "fp32", False, True),
        (lambda position, _: expected(position + 1), "fp32", False, True),  # another's answer
    ],
)  # fmt: skip
def test_what_counts_as_wrong(proof_for, change, precision, same_bits, wrong):
    proof = proof_for(1)
    proof.compare(*batch(list(range(COUNT)), change))
    proof.compare(*batch(list(range(COUNT))))  # right once more: that does not mend it
    found = result(proof, same_bits, precision)
    assert bool(found["wrong"]) == wrong and found["outputs"] == 10
    if wrong:
        assert found["wrong"].startswith(
            "the timed run's posteriors differ from the accuracy run's"
        )
        assert 0 < found["largest_difference"] <= 1
