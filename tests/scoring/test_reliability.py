"""Calibration and errors of times, against values computed by hand."""

import json

import pytest
from deepspeech2.cli import UserError
from deepspeech2.scoring import reliability
from helpers import LABELS, run_stage, write_sealed, write_transcripts


def entry(reference, hypothesis, confidences, starts=None):
    words = hypothesis.split()
    starts = starts or range(len(words))
    return {
        "reference": reference,
        "hypothesis": hypothesis,
        "words": [[w, s, s + 0.5, c] for w, s, c in zip(words, starts, confidences)],
    }


def test_a_word_is_right_where_the_alignment_has_it_as_equal():
    assert reliability.right("A B C D", "A X C E D") == [True, False, True, False, True]
    assert reliability.right("A B", "") == [] and reliability.right("", "A") == [False]


def test_calibration():
    given = [
        entry("A B C", "A B X", [0.95, 0.85, 0.85]),  # right, right, wrong
        entry("A", "A Y", [1.0, 0.05]),
        entry("A", "", []),
    ]
    found = reliability.confidence(given)
    assert (found["words"], found["right"]) == (5, 3)
    assert found["mean"] == pytest.approx((0.95 + 0.85 + 0.85 + 1.0 + 0.05) / 5)
    # By hand: 0.9 to 1 has 0.975 and 2 of 2, 0.8 to 0.9 has 0.85 and 1 of 2, 0 to 0.1 0.05 and 0.
    expected = (2 * 0.025 + 2 * 0.35 + 1 * 0.05) / 5
    assert found["expected_calibration_error"] == pytest.approx(expected)
    brier = (0.05**2 + 0.15**2 + 0.85**2 + 0 + 0.05**2) / 5
    assert found["brier"] == pytest.approx(brier)
    assert [b["words"] for b in found["bins"]] == [1, 0, 0, 0, 0, 0, 0, 0, 2, 2]
    assert [b["right"] for b in found["bins"]] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    assert found["bins"][1] == {"low": 0.1, "high": 0.2, "words": 0, "confidence": None, "right": 0}
    assert json.loads(json.dumps(found)) == found


def test_what_tells_no_confidence_has_no_calibration():
    old = {"reference": "A", "hypothesis": "A"}
    assert reliability.confidence([entry("A", "A", [1.0]), old]) is None
    assert reliability.confidence([entry("A", "", [])]) is None
    assert reliability.start_errors({"u": old}, {"u": [("A", 0.0, 1.0)]}) is None


def truth(*starts, words="ABCDEFGH"):
    return [(word, start, start + 0.5) for word, start in zip(words, starts)]


def test_errors_of_starts():
    given = {
        "s/1": entry("A B C", "A X C", [1, 1, 1], [0.125, 1.0, 1.75]),  # +125, -, -250 ms
        "s/2": entry("A B", "X A B", [1, 1, 1], [0.0, 0.5, 1.0]),  # -, 0, 0
        "s/3": entry("A", "A", [1], [0.5]),  # the truth does not know it
        "s/4": entry("B", "B", [1], [0.5]),  # nor this text
    }
    known = {"s_1": truth(0, 1, 2), "s_2": truth(0.5, 1.0), "s_4": truth(0)}
    found = reliability.start_errors(given, known)
    assert found == {
        "words": 4,
        "mean": pytest.approx(0.375 / 4),
        "median": pytest.approx(0.0625),
        "p95": pytest.approx(0.125 + 0.85 * 0.125),  # between the third and the fourth of four
        "signed_mean": pytest.approx(-0.125 / 4),
    }
    assert reliability.start_errors(given, {}) is None


def test_reading_truth(tmp_path):
    path = tmp_path / "t.ctm"
    path.write_text(";; made by hand\nu 1 0.5 0.25 GO\nu 1 1.0 0.5 ON 0.9\n\nv 1 0 0 É\n")
    assert reliability.read_ctm(path) == {
        "u": [("GO", 0.5, 0.75), ("ON", 1.0, 1.5)], "v": [("É", 0.0, 0.0)]
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    ["u 1 0.5 GO", "u 1 x 0.5 GO", "u 1 -1 2 GO", "u 1 0 -1 GO", "u 1 nan 1 A", "u 1 0 inf A"],
)
def test_broken_truth_is_refused(tmp_path, line):
    (tmp_path / "t.ctm").write_text(f"u 1 0 1 A\n{line}\n")
    with pytest.raises(UserError, match=r"t\.ctm: line 2: not id"):
        reliability.read_ctm(tmp_path / "t.ctm")


def test_the_score_has_both(tmp_path):
    entries = {"u": entry("A B", "A C", [0.9, 0.2], [0.25, 1])}
    path = write_transcripts(tmp_path / "t.jsonl", entries)
    utterances = [{"id": "u", "seconds": 1.5, "reference": "A B"}]
    write_sealed(tmp_path / "f.json", {"labels": LABELS, "utterances": utterances})
    (tmp_path / "w.ctm").write_text("u 1 0 0.5 A\nu 1 0.5 0.5 B\n")
    arguments = (
        "--transcripts", path, "--transcripts-index", tmp_path / "t.json",
        "--features-index", tmp_path / "f.json", "--training-texts", "",
        "--score", tmp_path / "s.json", "--alignments", tmp_path / "a.jsonl",
    )  # fmt: skip
    done = run_stage("scoring.score", *arguments, "--word-times", tmp_path / "w.ctm")
    assert done.returncode == 0, done.stderr
    score = json.loads((tmp_path / "s.json").read_text())
    assert score["confidence"]["words"] == 2 and score["times"]["mean"] == 0.25
    assert len(score["word_times_sha256"]) == 64
    assert run_stage("scoring.score", *arguments).returncode == 0
    score = json.loads((tmp_path / "s.json").read_text())
    assert score["times"] is score["word_times_sha256"] is None
