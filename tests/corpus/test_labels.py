# ruff: noqa: RUF001  characters that look like others are what it is about
"""Transcripts as people write them, labels as files hold them."""

import pytest
from deepspeech2.cli import UserError
from deepspeech2.corpus import labels
from deepspeech2.corpus.utterance import Utterance
from deepspeech2.features.measure import Measured, dropped_from
from deepspeech2.report.rows import dropped
from helpers import LABELS

FRENCH = [*LABELS, "É", "Ç"]
RUSSIAN = ["_", *"АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ "]


def encoded(text, alphabet=LABELS, drop=True):
    ids, dropped = labels.encode(text, labels.check(alphabet, "l"), drop, "a.txt")
    return "".join(labels.check(alphabet, "l")[i] for i in ids), "".join(dropped)


@pytest.mark.parametrize(
    ("text", "expected", "dropped"),
    [
        ("GO ON", "GO ON", ""),
        ("S-M-Y-T-H", "S M Y T H", ""),
        *[(f"GO{dash}BACK", "GO BACK", "") for dash in "-‐‑‒–—―−﹣－"],
        *[(f"GO {dash} BACK", "GO BACK", "") for dash in "-–—"],
        ("- GO BACK -", "GO BACK", ""),
        *[(f"DON{mark}T", "DON'T", "") for mark in "'’‘ʼ＇´`′"],
        *[(f"GO{space}ON", "GO ON", "")
          for space in "\u00a0\u202f\u2009\u3000\u2028\u2003\t\n\r\x0b\x85"],
        *[(f"GO{nothing}ING", "GOING", "")
          for nothing in "\u200b\u200c\u200d\u00ad\ufeff\u2060\u200e"],
        ("GO, ON.", "GO ON", ",."),
        ("“JULY FOURTH” – NINETEEN SIXTY-TWO!", "JULY FOURTH NINETEEN SIXTY TWO", "“”!"),
        ("GO , ON", "GO ON", ","),
        ("CAFÉ", "CAF", "É"),
        ("CAFE\u0301", "CAF", "É"),
    ],
)  # fmt: skip
def test_what_is_meant(text, expected, dropped):
    assert encoded(text) == (expected, dropped)
    if not dropped:
        assert encoded(text, drop=False) == (expected, "")
    else:
        with pytest.raises(UserError, match="is none of the model's labels"):
            encoded(text, drop=False)


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("text", ["FOUR 2", "8", "A1B", "٣", "½", "x²"])
def test_digits_are_never_dropped(text, drop):
    with pytest.raises(UserError, match="digit.*write numbers as words"):
        encoded(text, drop=drop)


@pytest.mark.parametrize(
    ("alphabet", "text", "expected"),
    [
        ([*LABELS, "2"], "FOUR 2", "FOUR 2"),
        ([*LABELS, "-"], "S-M", "S-M"),
        ([*LABELS, "’"], "DON’T", "DON’T"),
        (FRENCH, "E\u0301TE\u0301", "ÉTÉ"),
        (FRENCH, "ÉTÉ", "ÉTÉ"),
        ([*LABELS, "E\u0301"], "ÉTÉ", "ÉTÉ"),
        ([*LABELS, "E\u0301"], "E\u0301TE\u0301", "ÉTÉ"),
        (RUSSIAN, "Й", "Й"),
        (RUSSIAN, "И\u0306-А", "Й А"),
        (["_", "가", " "], "\u1100\u1161", "가"),
    ],
)
def test_labels_stand_for_themselves(alphabet, text, expected):
    assert encoded(text, alphabet, drop=False) == (expected, "")


def test_labels_that_are_one_character_twice_are_refused():
    with pytest.raises(UserError, match="only once"):
        labels.check([*LABELS, "É", "E\u0301"], "l.json")


def test_what_is_dropped_is_told():
    """Per character: how many, and from how many utterances."""
    found = [
        Measured(Utterance(str(n), "a"), n, 1, 1.0, [], [], list(encoded(text)[1]))
        for n, text in enumerate(("GO, ON, NOW!", "NO, SIR", "YES"))
    ]
    assert dropped_from(found) == {",": [3, 2], "!": [1, 1]}
    record = {"corpus": {"dropped": dropped_from(found)}}
    assert dropped(record) == (
        "dropped from the transcripts: ',' 3 times in 2 utterances, '!' 1 time in 1 utterance"
    )
    assert dropped({}) == ""
