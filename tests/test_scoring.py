"""Posteriors' file, decoder, alignments, scores, agreement with eager, the guide's text files."""

import csv
import json
import os
from collections import Counter

import Levenshtein
import numpy as np
import pytest
from conftest import ROOT
from deepspeech2 import agreement, alignment, decode, posteriors_file, score
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
    assert score.text_class(text) == kind
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
        assert score.text_class(row["transcript"]) == expected, row["transcript"]


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
    assert score.length_class(seconds) == name


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
    texts = score.read_training_texts(tmp_path / "texts")
    assert texts == {"YES", "MAY FIRST", "K SIX"}
    result = score.score(hypotheses(), UTTERANCES, texts)
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
    }
    assert {"low", "high"} <= set(result["parts"]["seen"][1]["wer"])
    assert result["confusions"]["words"] == [
        ("", "NOW", 1), ("FIRST", "THIRST", 1), ("FOUR", "", 1), ("GO", "", 1), ("ON", "", 1),
        ("SIX", "", 1),
    ]  # fmt: skip
    assert result["confusions"]["characters"][0] == ("O", "", 3)
    # Without a list of training texts, nothing is said about them.
    assert score.score(hypotheses(), UTTERANCES, None)["parts"]["seen"] == []
    assert score.score(hypotheses(), UTTERANCES, set())["parts"]["seen"][0]["name"] == "unseen"


def test_one_utterance_and_all_hypotheses_empty():
    result = score.score(hypotheses("go"), UTTERANCES, None)
    assert result["wer"]["percent"] == result["cer"]["percent"] == result["ser"]["percent"] == 100
    assert result["coverage"] == {"scored": 1, "of": 6, "empty": 1}
    assert result["parts"]["speaker"] == []


def test_transcripts_of_other_utterances_are_refused():
    stranger = {"stranger": {"reference": "A", "hypothesis": "A"}}
    with pytest.raises(UserError, match="'stranger': not of these features"):
        score.score(stranger, UTTERANCES, None)
    other = {"go": {"reference": "GO", "hypothesis": "GO"}}
    with pytest.raises(UserError, match="'go'.*its reference is other"):
        score.score(other, UTTERANCES, None)


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
            "line 2: 'ü' stands there twice",
        ),
    ],
)
def test_bad_transcript_files(tmp_path, text, words):
    path = tmp_path / "t.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        score.read_transcripts(path)
    assert f"t.jsonl: {words}" in str(error.value)


def write_lines(path, transcripts):
    lines = [json.dumps({"id": name, **entry}) + "\n" for name, entry in transcripts.items()]
    path.write_text("".join(lines))
    return path


def test_the_stage_writes_the_same_bytes_whatever_the_hash_seed(tmp_path):
    transcripts = write_lines(tmp_path / "t.jsonl", hypotheses())
    (tmp_path / "f.json").write_text(json.dumps({"utterances": UTTERANCES}))
    (tmp_path / "texts").write_text("YES\n")
    common = ("--transcripts", transcripts, "--features-index", tmp_path / "f.json")
    for seed in "01":
        result = run_stage(
            "score", *common, "--training-texts", tmp_path / "texts",
            "--score", tmp_path / f"s{seed}.json", "--alignments", tmp_path / f"a{seed}.jsonl",
            env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert result.stderr.splitlines()[0] == "scored 5 of 6, empty 2"
    for name in ("s{}.json", "a{}.jsonl"):
        assert (tmp_path / name.format(0)).read_bytes() == (tmp_path / name.format(1)).read_bytes()
    found = json.loads((tmp_path / "s0.json").read_text())
    for name, path in (
        ("transcripts", transcripts), ("training_texts", tmp_path / "texts"),
        ("alignments", tmp_path / "a0.jsonl"),
    ):  # fmt: skip
        assert found.pop(f"{name}_sha256") == score.sha256(path)
    assert len(found.pop("code_sha256")) == 64 and "kaldialign" in found.pop("libraries")
    plain = json.loads(json.dumps(score.score(hypotheses(), UTTERANCES, {"YES"})))
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
    result = run_stage("score", *common, "--training-texts", tmp_path / "texts", *more)
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
    found = score.improvement(references, before, after)
    assert found == pytest.approx(expected, abs=0.04)
    assert score.improvement(references, after, before) == pytest.approx(found[::-1])
    assert score.improvement(references, before, before) == (0, 0)
    # One error less in one utterance of many: better whenever that one is drawn, never worse.
    worst = int(first.argmax())
    mended = [*before[:worst], references[worst], *before[worst + 1 :]]
    better, worse = score.improvement(references, before, mended)
    assert better == pytest.approx(1 - np.exp(-1), abs=0.05) and worse == 0


def write_posteriors(folder, name, given):
    """A file of posteriors and its index; returns both paths."""
    paths = folder / f"{name}.bin", folder / f"{name}.json"
    posteriors_file.write(*paths, iter(given.items()), {})
    return paths


def test_agreement_of_transcripts():
    eager = {f"u{n}": {"reference": "A B", "hypothesis": "A"} for n in range(14)}
    ours = {name: dict(entry) for name, entry in eager.items()}
    assert agreement.transcripts_agree(ours, eager) == {
        "utterances": 14, "identical_transcripts": 14, "first_differing": []
    }  # fmt: skip
    for n in range(2, 14):
        ours[f"u{n}"]["hypothesis"] = f"B {n}"
    found = agreement.transcripts_agree(ours, eager)
    assert found["utterances"] == 14 and found["identical_transcripts"] == 2
    assert found["first_differing"] == [
        {"id": f"u{n}", "reference": "A B", "hypothesis": f"B {n}", "eager": "A"}
        for n in range(2, 12)
    ]
    spaces = {name: {**entry, "hypothesis": "A "} for name, entry in eager.items()}
    assert agreement.transcripts_agree(spaces, eager)["identical_transcripts"] == 0
    for other in ({}, {"u0": eager["u0"]}, {**eager, "u0": {"reference": "A", "hypothesis": "A"}}):
        with pytest.raises(UserError, match="not of the same utterances"):
            agreement.transcripts_agree(other, eager)


def test_agreement_of_posteriors():
    eager = {"a": posteriors("AB_"), "b": posteriors("CD")}
    none = {"largest_posterior_difference": 0.0, "largest_posterior_difference_in": None}
    assert agreement.posteriors_agree(eager.items(), eager.items(), "i.json") == {
        **none, "other_lengths": 0
    }  # fmt: skip
    ours = {name: rows.copy() for name, rows in eager.items()}
    ours["a"][1, 5] += 0.25
    ours["b"][0, 0] -= 0.5  # more, and in the other direction
    assert agreement.posteriors_agree(ours.items(), eager.items(), "i.json") == {
        "largest_posterior_difference": 0.5,
        "largest_posterior_difference_in": "b",
        "other_lengths": 0,
    }
    # Other lengths: the frames in common are compared.
    for rows in (eager["b"][:1], np.concatenate([eager["b"], posteriors("Z")]), eager["b"][:0]):
        assert agreement.posteriors_agree({"b": rows}.items(), list(eager.items())[1:], "i") == {
            **none, "other_lengths": 1
        }  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"b": posteriors("CD"), "a": posteriors("AB")},
        {"a": posteriors("AB"), "c": posteriors("CD")},
        {"a": posteriors("AB"), "b": posteriors("CD", LABELS[:-1])},
        {"a": posteriors("AB")},
        {"a": posteriors("AB"), "b": posteriors("CD"), "c": posteriors("E")},
    ],
)
def test_posteriors_of_other_utterances_are_refused(other):
    eager = {"a": posteriors("AB"), "b": posteriors("CD")}
    with pytest.raises(UserError, match=r"i.json.*not the eager run's; rebuild it with.*i.json"):
        agreement.posteriors_agree(other.items(), eager.items(), "i.json")


def test_agreement_stage(tmp_path):
    eager = {"yes": posteriors("Y_ES"), "go": posteriors("GO")}
    ours = {"yes": posteriors("Y_EE"), "go": eager["go"]}
    arguments = []
    for kind, given in (("", ours), ("eager-", eager)):
        texts = {
            name: {"reference": name, "hypothesis": decode.greedy(rows, LABELS)}
            for name, rows in given.items()
        }
        paths = write_posteriors(tmp_path, f"{kind}p", given)
        lines = write_lines(tmp_path / f"{kind}t.jsonl", texts)
        arguments += [f"--{kind}transcripts", lines, f"--{kind}posteriors", paths[0]]
        arguments += [f"--{kind}posteriors-index", paths[1]]
    arguments += ["--agreement", tmp_path / "agreement.json"]
    result = run_stage("agreement", *arguments)
    assert result.returncode == 0 and result.stderr == "identical transcripts 1/2\n", result.stderr
    assert json.loads((tmp_path / "agreement.json").read_text()) == {
        "utterances": 2,
        "identical_transcripts": 1,
        "first_differing": [{"id": "yes", "reference": "yes", "hypothesis": "YE", "eager": "YES"}],
        "largest_posterior_difference": pytest.approx(0.89),
        "largest_posterior_difference_in": "yes",
        "other_lengths": 0,
    }
    (tmp_path / "eager-p.bin").write_bytes(bytes(10))
    (tmp_path / "agreement.json").unlink()
    assert_one_line_error(run_stage("agreement", *arguments), "eager-p.bin: altered", "--force")
    assert not (tmp_path / "agreement.json").exists()


def test_dumpout(tmp_path):
    """As the guide has it, to the bit, and blank after an utterance's own frames."""
    random = np.random.default_rng(0)
    given = {
        name: np.exp(random.uniform(-90, 0, (frames, len(LABELS)))).astype("f4")
        for name, frames in (("long", 7), ("ü", 4), ("short", 1))
    }
    given["ü"][0, :4] = [1 / 3, np.float32(1e-45), 1, 0]  # the smallest float32 there is
    paths = write_posteriors(tmp_path, "p", given)
    arguments = ("--posteriors", paths[0], "--posteriors-index", paths[1])
    out = tmp_path / "dumpout"
    result = run_stage("dumpout", *arguments, "--dumpout", out)
    assert result.returncode == 0, result.stderr
    assert {p.name for p in out.iterdir()} == {
        f"data{i}_{k}.txt" for i in (1, 2, 3) for k in (0, 1)
    }
    for number, (name, rows) in enumerate(given.items(), 1):
        found = np.loadtxt(out / f"data{number}_0.txt", dtype=np.float32)
        assert found.shape == (7, len(LABELS))
        assert found[: len(rows)].tobytes() == rows.tobytes(), name
        assert np.loadtxt(out / f"data{number}_1.txt", dtype=int) == len(rows)
        assert set(found[len(rows) :].argmax(axis=1)) <= {0}
        # A script that decodes all rows gets the same text.
        assert decode.greedy(found, LABELS) == decode.greedy(rows, LABELS)
    assert (out / "data2_1.txt").read_text() == "4\n"
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = run_stage("dumpout", *arguments, "--dumpout", out)
    assert_one_line_error(result, "p.bin: altered", "snakemake --cores all --force", "p.json")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


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
    rates = errors[draws(200)].sum(axis=1) / 20
    low, high = score.interval(pairs)
    assert low == pytest.approx(np.percentile(rates, 2.5), abs=0.5)
    assert high == pytest.approx(np.percentile(rates, 97.5), abs=0.5)
