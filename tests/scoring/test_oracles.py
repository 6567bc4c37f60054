"""Error rates against jiwer and sclite's rules, under a normaliser, and as sclite's files."""

import random
import re
from collections import Counter

import jiwer
import pytest
from deepspeech2.scoring import score
from deepspeech2.scoring.alignment import TOKENS, count_errors, words
from deepspeech2.scoring.rates import rates
from deepspeech2.scoring.sclite import plain_ids
from helpers import assert_one_line_error, run_stage, write_transcripts

WORDS = "A B C AA AB BA THE THE THE É O'CLOCK".split()


def pairs(count=1000, seed=0):
    """Random references and hypotheses, some empty, some equal, most alike."""
    rng = random.Random(seed)
    for _ in range(count):
        reference = rng.choices(WORDS, k=rng.choice((0, 1, 1, 2, 3, 5, 8, 12)))
        hypothesis = []
        for word in reference:
            roll = rng.random()
            hypothesis += [] if roll < 0.1 else [rng.choice(WORDS)] if roll < 0.25 else [word]
            hypothesis += rng.choices(WORDS, k=rng.random() < 0.1)
        yield " ".join(reference), " ".join(hypothesis or rng.choices(WORDS, k=rng.choice((0, 1))))


def test_wer_and_cer_are_jiwers():
    given = list(pairs())
    ours = rates([{"reference": r, "hypothesis": h} for r, h in given], intervals=False)
    texts = [r for r, _ in given], [h for _, h in given]
    theirs = jiwer.process_words(*texts)
    found = ours["wer"]
    assert found["percent"] == pytest.approx(100 * theirs.wer, abs=1e-12)
    for key in ("substitutions", "deletions", "insertions"):
        assert found[key] == getattr(theirs, key), key
    # CER here leaves spaces out, as deepspeech.pytorch's does; jiwer's counts them.
    joined = [["".join(text.split()) for text in side] for side in texts]
    characters = jiwer.process_characters(*joined)
    assert ours["cer"]["percent"] == pytest.approx(100 * characters.cer, abs=1e-12)
    for reference, hypothesis in given[:300]:
        mine = count_errors([(words(reference), words(hypothesis))])
        one = jiwer.process_words(reference, hypothesis)
        assert mine[:3] == (one.substitutions, one.deletions, one.insertions)


def sclite(reference, hypothesis):
    """Substitutions, deletions, insertions of sclite's alignment: costs 4, 3, 3."""
    best = {(0, 0): (0, (0, 0, 0))}
    for i in range(len(reference) + 1):
        for j in range(len(hypothesis) + 1):
            ways = []
            if i and j:
                cost, (s, d, n) = best[i - 1, j - 1]
                wrong = reference[i - 1] != hypothesis[j - 1]
                ways.append((cost + 4 * wrong, (s + wrong, d, n)))
            if i:
                cost, (s, d, n) = best[i - 1, j]
                ways.append((cost + 3, (s, d + 1, n)))
            if j:
                cost, (s, d, n) = best[i, j - 1]
                ways.append((cost + 3, (s, d, n + 1)))
            if ways:
                best[i, j] = min(ways, key=lambda way: way[0])
    return best[len(reference), len(hypothesis)][1]


def test_errors_against_sclites_rules():
    """Ours are as few as any alignment has. sclite's weights may choose one with more, or another
    of as many, with fewer substitutions.
    """
    more, same = Counter(), 0
    for reference, hypothesis in pairs():
        ours = count_errors([(words(reference), words(hypothesis))])
        theirs = sclite(words(reference), words(hypothesis))
        more[sum(theirs) - ours.count] += 1
        assert theirs[2] - theirs[1] == ours.insertions - ours.deletions  # the lengths say it
        assert theirs[0] <= ours.substitutions
        same += theirs == ours[:3]
    assert min(more) == 0 and more[0] >= 990 and sum(more.values()) == 1000 and same >= 900


def test_trn_files_give_the_same_rate(tmp_path):
    given = {
        f"speaker-{n // 10}/u {n}": {"reference": r, "hypothesis": h}
        for n, (r, h) in enumerate(pairs(100, 1))
    }
    given["a b"] = given["a_b"] = {"reference": "ÉÉ", "hypothesis": ""}
    path = write_transcripts(tmp_path / "t.jsonl", given)
    result = run_stage(
        "scoring.trn", "--transcripts", path, "--transcripts-index", tmp_path / "t.json",
        "--references", tmp_path / "ref.trn", "--hypotheses", tmp_path / "hyp.trn",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    sides = []
    for name in ("ref", "hyp"):
        lines = (tmp_path / f"{name}.trn").read_text(encoding="utf-8").splitlines()
        read = [re.fullmatch(r"(.*) \(([A-Za-z0-9_.-]+)\)", line).groups() for line in lines]
        sides.append({name: text for text, name in read})
    assert sides[0].keys() == sides[1].keys() and len(sides[0]) == len(given)
    found = [{"reference": t, "hypothesis": sides[1][name]} for name, t in sides[0].items()]
    assert rates(found, intervals=False) == rates(given.values(), intervals=False)


@pytest.mark.parametrize("text", ["(UH) YES", "{A / B}", "@", "; X", "<unk>"])
def test_what_sclite_takes_for_markup_is_refused(tmp_path, text):
    path = write_transcripts(tmp_path / "t.jsonl", {"u": {"reference": "A", "hypothesis": text}})
    result = run_stage(
        "scoring.trn", "--transcripts", path, "--transcripts-index", tmp_path / "t.json",
        "--references", tmp_path / "ref.trn", "--hypotheses", tmp_path / "hyp.trn",
    )  # fmt: skip
    assert_one_line_error(result, "t.jsonl", "markup")


def test_ids_stay_apart():
    assert plain_ids(["a b", "a_b", "a/b", "a_b_2", "é"]) == [
        "a_b", "a_b_2", "a_b_3", "a_b_2_2", "_"
    ]  # fmt: skip


def test_rates_under_whispers_rules():
    pytest.importorskip("whisper_normalizer", reason="needs envs/text.txt")
    given = {
        "a": {"reference": "IT'S TWENTY ONE", "hypothesis": "IT IS 21"},
        "b": {"reference": "MY COLOUR", "hypothesis": "my color"},
        "c": {"reference": "UH", "hypothesis": "STOP"},
    }
    found = score.normalised(given, "whisper")
    assert found["version"].startswith("whisper-normalizer ") and found["name"] == "whisper"
    assert found["empty_references"] == 1 and found["wer"]["insertions"] == 1
    assert found["wer"]["substitutions"] == found["wer"]["deletions"] == 0
    assert found["wer"]["reference_length"] == 5


def test_tokens_are_what_they_say():
    assert TOKENS["wer"]("A  B") == ["A", "B"] and TOKENS["cer"]("A B") == ["A", "B"]
    with pytest.raises(KeyError):
        score.normalised({}, "none")
