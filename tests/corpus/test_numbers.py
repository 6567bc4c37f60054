"""Numbers in transcripts as words."""

import json
import time

import pytest
import soundfile
from deepspeech2.corpus import numbers
from helpers import LABELS, python_without, run_corpus, tone

pytest.importorskip("num2words", reason="needs envs/text.txt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7", "seven"),
        ("21 cars", "twenty one cars"),
        ("go to 105", "go to one hundred and five"),
        ("1,234 of 1,000,000", "one thousand two hundred and thirty four of one million"),
        ("in 1999", "in one thousand nine hundred and ninety nine"),
        ("the 1st, 22nd and 113TH", "the first, twenty second and one hundred and thirteenth"),
        ("3.50 or 0.05", "three point five zero or zero point zero five"),
        ("007", "zero zero seven"),
        ("-5 and a-5, 3-4", "minus five and a-five, three-four"),
        ("\u22125", "minus five"),
        ("MP3 A4 4x4", "MP three A four four x four"),
        ("$5, 50% (6)", "$five, fifty% (six)"),
        ("10:30", "ten:thirty"),
        ("1,23", "one,twenty three"),
        ("\u0663\u0664", "thirty four"),
        ("3.", "three."),
        ("\u00bd \u2163 \u00b2", "\u00bd \u2163 \u00b2"),  # the label check refuses them
        ("no numbers", "no numbers"),
        ("", ""),
    ],
)
def test_numbers_are_spelled(text, words):
    assert numbers.spelled(text, upper=False) == words
    assert numbers.spelled(text, upper=True).upper() == words.upper()


def test_the_case_is_the_labels(text="take 21 the 3rd"):
    assert numbers.spelled(text, upper=True) == "take TWENTY ONE the THIRD"


def test_huge_numbers_end_soon():
    start = time.monotonic()
    said = numbers.spelled("9" * 100_000 + " 1" + ",000" * 10_000 + ".5", upper=False)
    assert said.startswith("nine nine") and time.monotonic() - start < 5
    assert len(said.split()) == 100_000 + 1 + 30_000 + 2


def test_the_stage_spells_and_counts(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, text in (("a", "TAKE 21"), ("b", "TAKE TWO"), ("c", "3 4")):
        soundfile.write(folder / f"{name}.wav", tone(0.5), 16000)
        (folder / f"{name}.txt").write_text(text)
    done = run_corpus("folder", folder, tmp_path / "out", "--digits=words")
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "out/corpus.json").read_text())
    texts = [u["transcript"] for u in index["utterances"]]
    assert texts == ["TAKE TWENTY ONE", "TAKE TWO", "THREE FOUR"]
    assert index["notes"] == {numbers.NOTE: 2} and set("".join(texts)) < set(LABELS)


def test_without_num2words_it_is_named():
    code = "from deepspeech2.corpus import numbers\nnumbers.spelled('1', True)"
    done = python_without(["num2words"], code)
    assert "needs num2words: pip install -r envs/text.txt" in done.stderr
