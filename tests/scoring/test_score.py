"""Scores: error rates, intervals, parts of a set, and the files that they are made from."""

import csv
import json
import os
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from deepspeech2.cli import UserError
from deepspeech2.files import read_sealed, sha256
from deepspeech2.scoring import rates, score
from deepspeech2.scoring import transcripts as transcripts_file
from deepspeech2.scoring.classes import length_class, text_class
from helpers import assert_one_line_error, run_stage, write_sealed, write_transcripts


@pytest.mark.parametrize(
    ("text", "kind"),
    [  # all but the last three are AN4's
        ("YES", "command"),
        ("HELP", "command"),
        ("ENTER SIX TWO FOUR", "command"),
        ("RUBOUT T G J W B SEVENTY NINE FIFTY NINE", "command"),
        ("ERASE T M A Z X TWO THOUSAND FIVE HUNDRED AND FIFTY TWO", "command"),
        ("TWO SIX EIGHT FOUR FOUR ONE EIGHT", "number"),
        ("ONE SIX OH SIX THREE", "number"),
        ("FIVE TWENTY SIX FORTY FIVE", "number"),
        ("A M Y", "spelling"),
        ("U M N Y H SIX", "spelling"),
        ("A G L G A SIX HUNDRED FORTY NINE", "spelling"),
        ("F R A N C E S M A R Y", "spelling"),
        ("MARCH THIRD NINETEEN TWENTY EIGHT", "other"),
        ("TWELVE NINE OF SIXTY", "other"),
        ("E A S T EIGHTY FIFTH S T R E E T", "other"),
        ("enter  six", "command"),
        ("three  Point five", "number"),
        ("b", "spelling"),
    ],
)
def test_kinds_of_text(text, kind):
    assert text_class(text) == kind
    assert (text.upper() != text or len(text) == 1) or text in texts_of_an4("train", "test")


def texts_of_an4(*splits):
    with open(ROOT / "resources/an4/pcm_sha256.tsv", newline="") as file:
        return {
            r["transcript"] for r in csv.DictReader(file, delimiter="\t") if r["split"] in splits
        }


def test_kinds_of_text_are_the_styles_of_the_sample():
    with open(ROOT / "resources/sample/transcripts.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert Counter(row["style"] for row in rows).keys() == {
        "spelling", "number", "command", "date", "address"
    }  # fmt: skip
    for row in rows:
        expected = {"date": "other", "address": "other"}.get(row["style"], row["style"])
        assert text_class(row["transcript"]) == expected, row["transcript"]


def test_the_training_texts_are_those_of_an4():
    text = (ROOT / "resources/an4/training_texts.txt").read_text(encoding="utf-8")
    assert text.splitlines() == sorted(texts_of_an4("train"))
    assert texts_of_an4("test") & set(text.splitlines())  # what seen and unseen is about


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(0.0, "0 to 2 s"), (1.999, "0 to 2 s"), (2.0, "2 to 4 s"), (7.99, "4 to 8 s"),
     (8, "8 to 16 s"), (16.0, "16 s and more"), (900, "16 s and more")],
)  # fmt: skip
def test_classes_of_length(seconds, name):
    assert length_class(seconds) == name


SET = [  # id, speaker, seconds, reference, hypothesis
    ("long", "zoe", 16.5, "K SIX FOUR", "K SIX"),
    ("yes", "zoe", 9.0, "YES", " YES "),
    ("date", "ann", 3.5, "MAY  FIRST", "NOW MAY THIRST"),
    ("go", None, 3.0, "GO ON", ""),
    ("six", "", 0.5, "SIX", "  "),
]
UTTERANCES = [dict(zip(("id", "speaker", "seconds", "reference"), row)) for row in SET] + [
    {"id": "lost", "speaker": "zoe", "seconds": 0.1, "reference": "NO"}
]
TEXTS = "\ufeffyes\r\n\r\nMay first \nK SIX\n"


def hypotheses(*names):
    """Transcripts of SET, of all or of some."""
    return {
        name: {"reference": reference, "hypothesis": hypothesis}
        for name, _, _, reference, hypothesis in SET
        if name in names or not names
    }


def test_a_score(tmp_path):
    (tmp_path / "texts").write_text(TEXTS, encoding="utf-8", newline="")
    texts = transcripts_file.read_training_texts(tmp_path / "texts")
    assert texts == {"YES", "MAY FIRST", "K SIX"}
    result = score.figures(hypotheses(), UTTERANCES, texts)
    counts = {"substitutions": 1, "deletions": 4, "insertions": 1, "reference_length": 9}
    assert result["utterances"] == 5 and counts.items() <= result["wer"].items()
    assert result["wer"]["percent"] == pytest.approx(100 * 6 / 9)
    # KSIXFOUR, YES, MAYFIRST, GOON, SIX: 4 + 4 + 3 letters missing, F for TH, NOW too many
    counts = {"substitutions": 1, "deletions": 11, "insertions": 4, "reference_length": 26}
    assert counts.items() <= result["cer"].items()
    assert result["ser"] == {"percent": 80.0, "sentences": 4}  # spaces are no error
    assert result["coverage"] == {"scored": 5, "of": 6, "empty": 2}
    for name in ("wer", "cer"):
        assert result[name]["low"] <= result[name]["percent"] <= result[name]["high"]
    found = {
        kind: [
            (p["name"], p["utterances"], round(p["wer"]["percent"], 2), p["ser"]["percent"])
            for p in parts
        ]
        for kind, parts in result["parts"].items()
    }
    assert found == {
        "speaker": [("ann", 1, 100.0, 100.0), ("zoe", 2, 25.0, 50.0)],
        "length": [  # shortest first
            ("0 to 2 s", 1, 100.0, 100.0),
            ("2 to 4 s", 2, 100.0, 100.0),
            ("8 to 16 s", 1, 0.0, 0.0),
            ("16 s and more", 1, 33.33, 100.0),
        ],
        "text": [
            ("command", 2, 66.67, 50.0),
            ("number", 1, 100.0, 100.0),
            ("other", 1, 100.0, 100.0),
            ("spelling", 1, 33.33, 100.0),
        ],
        "seen": [("seen in training", 2, 66.67, 50.0), ("unseen", 3, 66.67, 100.0)],
        "language model": [],
    }
    assert {"low", "high"} <= set(result["parts"]["seen"][1]["wer"])
    assert result["confusions"]["words"] == [
        ("", "NOW", 1), ("FIRST", "THIRST", 1), ("FOUR", "", 1), ("GO", "", 1), ("ON", "", 1),
        ("SIX", "", 1),
    ]  # fmt: skip
    assert result["confusions"]["characters"][0] == ("O", "", 3)
    # Without a list of training texts, nothing is said about them.
    assert score.figures(hypotheses(), UTTERANCES, None)["parts"]["seen"] == []
    assert score.figures(hypotheses(), UTTERANCES, set())["parts"]["seen"][0]["name"] == "unseen"


def test_one_utterance_and_all_hypotheses_empty():
    result = score.figures(hypotheses("go"), UTTERANCES, None)
    assert result["wer"]["percent"] == result["cer"]["percent"] == result["ser"]["percent"] == 100
    assert result["coverage"] == {"scored": 1, "of": 6, "empty": 1}
    assert result["parts"]["speaker"] == []


def test_transcripts_of_other_utterances_are_refused():
    stranger = {"stranger": {"reference": "A", "hypothesis": "A"}}
    with pytest.raises(UserError, match="'stranger': not in these features"):
        score.figures(stranger, UTTERANCES, None)
    other = {"go": {"reference": "GO", "hypothesis": "GO"}}
    with pytest.raises(UserError, match="'go'.*its reference differs"):
        score.figures(other, UTTERANCES, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no transcripts"),
        ("{}\n", "line 1"),
        ('{"id": "a"', "line 1"),
        ("[1]\n", "line 1"),
        ("[" * 100_000, "line 1"),
        ('{"id": "a", "reference": "A", "hypothesis": null}', "line 1"),
        ('{"id": 1, "reference": "A", "hypothesis": "A"}', "line 1"),
        (
            2 * '{"id": "ü", "reference": "A", "hypothesis": "A"}\n',
            "line 2: 'ü' appears twice",
        ),
    ],
)
def test_bad_transcript_files(tmp_path, text, words):
    path = tmp_path / "t.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        transcripts_file.read(path)
    assert f"t.jsonl: {words}" in str(error.value)


def test_line_separators_inside_a_text_are_no_line_ends(tmp_path):
    path = tmp_path / "t.jsonl"
    line = {"id": "a\u2028b\x85", "reference": "YES\u2028", "hypothesis": "YES"}
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(transcripts_file.read(path)) == ["a\u2028b\x85"]


def test_the_stage_writes_the_same_bytes_whatever_the_hash_seed(tmp_path):
    transcripts = write_transcripts(tmp_path / "t.jsonl", hypotheses())
    write_sealed(tmp_path / "f.json", {"utterances": UTTERANCES})
    (tmp_path / "texts").write_text("YES\n")
    common = (
        "--transcripts", transcripts, "--transcripts-index", tmp_path / "t.json",
        "--features-index", tmp_path / "f.json",
    )  # fmt: skip
    for seed in "01":
        result = run_stage(
            "scoring.score", *common, "--training-texts", tmp_path / "texts",
            "--score", tmp_path / f"s{seed}.json", "--alignments", tmp_path / f"a{seed}.jsonl",
            env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert result.stderr.splitlines()[0] == "scored 5 of 6, empty 2"
    for name in ("s{}.json", "a{}.jsonl"):
        assert (tmp_path / name.format(0)).read_bytes() == (tmp_path / name.format(1)).read_bytes()
    found = read_sealed(tmp_path / "s0.json")
    for name, path in (
        ("transcripts", transcripts), ("training_texts", tmp_path / "texts"),
        ("alignments", tmp_path / "a0.jsonl"),
    ):  # fmt: skip
        assert found.pop(f"{name}_sha256") == sha256(path)
    for name in ("times", "word_times_sha256", "language_model_texts_sha256"):
        assert found.pop(name) is None
    assert len(found.pop("code_sha256")) == 64 and "kaldialign" in found.pop("libraries")
    plain = json.loads(json.dumps(score.figures(hypotheses(), UTTERANCES, {"YES"})))
    assert found == plain
    lines = [json.loads(line) for line in (tmp_path / "a0.jsonl").read_text().splitlines()]
    assert [(n["id"], n["errors"], n["reference_words"]) for n in lines] == [
        ("long", 1, 3), ("yes", 0, 1), ("date", 2, 2), ("go", 2, 2), ("six", 1, 1)
    ]  # fmt: skip
    assert lines[0]["words"] == [
        ["equal", "K", "K"],
        ["equal", "SIX", "SIX"],
        ["delete", "FOUR", ""],
    ]
    assert lines[3]["characters"] == [["delete", c, ""] for c in "GOON"]
    (tmp_path / "texts").unlink()
    more = ("--score", tmp_path / "s", "--alignments", tmp_path / "a")
    result = run_stage("scoring.score", *common, "--training-texts", tmp_path / "texts", *more)
    assert_one_line_error(result, "texts")
    assert not (tmp_path / "s").exists() and not (tmp_path / "a").exists()


def draws(count, replications=4000):
    """Utterances that a bootstrap draws, one row for each replication."""
    return np.random.default_rng(1).integers(0, count, (replications, count))


def test_improvement_is_a_paired_bootstrap():
    """Against an independent one: the same utterances are drawn for both systems."""
    random = np.random.default_rng(2)
    references = [list("ABCDE")] * 60
    first = random.integers(0, 3, 60)
    second = np.maximum(0, first - (random.random(60) < 0.1) + (random.random(60) < 0.05))
    before, after = ([["X"] * n + list("ABCDE")[n:] for n in errors] for errors in (first, second))
    drawn = draws(60)
    one, two = first[drawn].sum(axis=1), second[drawn].sum(axis=1)
    expected = (two < one).mean(), (two > one).mean()
    assert 0.5 < expected[0] < 0.95 and 0.02 < expected[1] < 0.4 and sum(expected) < 0.98  # ties
    found = rates.improvement(references, before, after)
    assert found == pytest.approx(expected, abs=0.04)
    assert rates.improvement(references, after, before) == pytest.approx(found[::-1])
    assert rates.improvement(references, before, before) == (0, 0)
    # One error less in one utterance of many: better whenever that one is drawn, never worse.
    worst = int(first.argmax())
    mended = [*before[:worst], references[worst], *before[worst + 1 :]]
    better, worse = rates.improvement(references, before, mended)
    assert better == pytest.approx(1 - np.exp(-1), abs=0.05) and worse == 0


def test_the_interval_is_that_of_the_bootstrap():
    """Against an independent bootstrap over utterances."""
    random = np.random.default_rng(1)
    pairs = [(list("ABCDEFGHIJ"), list("ABCDEFGHIJ"[: random.integers(4, 11)])) for _ in range(200)]
    errors = np.array([10 - len(hypothesis) for _, hypothesis in pairs])
    drawn = errors[draws(200)].sum(axis=1) / 20
    low, high = rates.interval(pairs)
    assert low == pytest.approx(np.percentile(drawn, 2.5), abs=0.5)
    assert high == pytest.approx(np.percentile(drawn, 97.5), abs=0.5)


def test_texts_that_the_language_model_has_are_scored_apart():
    parts = score.figures(hypotheses(), UTTERANCES, None, {"YES"})["parts"]
    found = {part["name"]: part["utterances"] for part in parts["language model"]}
    assert found == {"in its texts": 1, "not in its texts": 4} and parts["seen"] == []
