"""Posteriors' file, decoder, scores."""

import json

import numpy as np
import pytest
from deepspeech2 import decode, posteriors_file, score
from deepspeech2.posteriors import infer
from deepspeech2.stage import UserError
from helpers import LABELS, assert_one_line_error, run_stage


def posteriors(path, labels=LABELS):
    """Posteriors (T', classes) whose best labels spell `path`."""
    rows = np.full((len(path), len(labels)), 0.01, np.float32)
    rows[np.arange(len(path)), [labels.index(c) for c in path]] = 0.9
    return rows


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("AAA", "A"),
        ("A_A", "AA"),
        ("__A__B__", "AB"),
        ("AABB_B", "ABB"),
        ("_", ""),
        ("____", ""),
        ("A", "A"),
        ("  A  ", " A "),
        ("YY_ES_", "YES"),
        ("IT''S", "IT'S"),
    ],
)
def test_greedy(path, text):
    assert decode.greedy(posteriors(path), LABELS) == text


def test_posteriors_file_keeps_what_it_is_given(tmp_path):
    given = {"a": posteriors("ABC"), "ü b": posteriors("D"), "c": posteriors("EF_F")}
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    assert posteriors_file.write(*paths, iter(given.items()), {"engine": "x"}) == 3
    found = dict(posteriors_file.read(*paths))
    assert list(found) == list(given)
    for name, rows in given.items():
        np.testing.assert_array_equal(found[name], rows)
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[:-1] + b"\x00")
    with pytest.raises(UserError, match=r"p.bin: altered.*snakemake --cores all --force .*p.json"):
        dict(posteriors_file.read(*paths))


def test_nan_in_the_output_leaves_no_file(tmp_path):
    bad = posteriors("AB")
    bad[1, 3] = np.nan
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    with pytest.raises(UserError, match=r"utterance b.*NaN"):
        posteriors_file.write(*paths, iter([("a", posteriors("A")), ("b", bad)]), {})
    assert not list(tmp_path.iterdir())


class Odd:
    """A session whose output lengths are not what they should be."""

    def __init__(self, length):
        self.length = length

    def upload(self, spectrograms, lengths):
        return len(lengths)

    def forward(self, rows):
        return rows

    def synchronize(self):
        pass

    def download(self, rows):
        return np.ones((rows, 4, 3), np.float32), np.full(rows, self.length, np.int32)


class OneUtterance:
    """A stand-in for a FeatureSet with one utterance."""

    utterances = ({"id": "u", "frames": 7},)
    bins, frames_max = 161, 7

    def __len__(self):
        return 1

    def load(self, position):
        return np.zeros((161, 7), np.float32)


def test_impossible_output_lengths_are_refused():
    assert [p.shape for _, p in infer(Odd(3), OneUtterance(), 2, "batch")] == [(3, 3)]
    for length in (0, 5, -1):
        with pytest.raises(UserError, match=f"utterance u.*{length}"):
            list(infer(Odd(length), OneUtterance(), 2, "batch"))


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
    for tokens, expected in ((score.words, wer), (score.characters, cer)):
        assert score.count_errors([(tokens(reference), tokens(hypothesis))]) == expected


def test_rates_are_of_the_corpus_not_means_of_utterances():
    pairs = [(list("ABCDEFGHI"), list("ABCDEFGHI")), (["A"], ["B"])]
    assert score.count_errors(pairs).rate == 10.0


def transcripts(pairs):
    return {str(i): {"reference": r, "hypothesis": h} for i, (r, h) in enumerate(pairs)}


def test_score_and_agreement():
    ours = transcripts([("A B", "A B"), ("C", "D"), ("E", "")])
    eager = transcripts([("A B", "A B"), ("C", "E"), ("E", "")])
    result = score.score(ours, eager)
    assert result["utterances"] == 3 and result["identical_transcripts"] == 2
    assert result["wer"]["percent"] == 50 and result["wer"]["reference_length"] == 4
    assert 0 <= result["wer"]["low"] <= 50 <= result["wer"]["high"]
    assert score.score(ours, eager) == result  # the bootstrap is seeded


def test_one_utterance_and_all_hypotheses_empty():
    one = transcripts([("A B", "")])
    result = score.score(one, one)
    assert result["wer"]["percent"] == result["cer"]["percent"] == 100


def test_transcripts_of_other_utterances_are_refused():
    with pytest.raises(UserError, match="same utterances"):
        score.score(transcripts([("A", "A")]), transcripts([("B", "A")]))


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no transcripts"), ("{}\n", "line 1"), ('{"id": "a"', "line 1"), ("[1]\n", "line 1")],
)
def test_bad_transcript_files(tmp_path, text, words):
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    result = run_stage("score", "--transcripts", path, "--eager", path, "--score", tmp_path / "s")
    assert_one_line_error(result, "t.jsonl", words)


def test_decode_stage(tmp_path):
    utterances = [
        {"id": "ü", "seconds": 1.5, "reference": "YES", "frames": 9},
        {"id": "b", "seconds": 0.5, "reference": "NO", "frames": 3},
    ]
    (tmp_path / "f.json").write_text(json.dumps({"labels": LABELS, "utterances": utterances}))
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    given = {"ü": posteriors("YE_SS"), "b": posteriors("N_")}
    posteriors_file.write(*paths, iter(given.items()), {})
    arguments = (
        "--posteriors", paths[0], "--posteriors-index", paths[1],
        "--features-index", tmp_path / "f.json", "--transcripts", tmp_path / "t.jsonl",
    )  # fmt: skip
    assert run_stage("decode", *arguments).returncode == 0
    assert (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines() == [
        '{"id": "ü", "duration": 1.5, "reference": "YES", "hypothesis": "YES"}',
        '{"id": "b", "duration": 0.5, "reference": "NO", "hypothesis": "N"}',
    ]
    posteriors_file.write(*paths, iter([("stranger", posteriors("A"))]), {})
    assert_one_line_error(run_stage("decode", *arguments), "'stranger'")


def test_line_separators_inside_a_text_are_no_line_ends(tmp_path):
    path = tmp_path / "t.jsonl"
    line = {"id": "a\u2028b\x85", "reference": "YES\u2028", "hypothesis": "YES"}
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(score.read_transcripts(path)) == ["a\u2028b\x85"]


def test_the_interval_is_that_of_the_bootstrap():
    """Against an independent bootstrap over utterances."""
    random = np.random.default_rng(1)
    pairs = [(list("ABCDEFGHIJ"), list("ABCDEFGHIJ"[: random.integers(4, 11)])) for _ in range(200)]
    errors = np.array([10 - len(hypothesis) for _, hypothesis in pairs])
    draws = errors[random.integers(0, 200, (4000, 200))].sum(axis=1) / 20
    low, high = score.interval(pairs)
    assert low == pytest.approx(np.percentile(draws, 2.5), abs=0.5)
    assert high == pytest.approx(np.percentile(draws, 97.5), abs=0.5)
