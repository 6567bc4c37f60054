"""The characters that a model can write, and texts as their ids.

Texts and labels are compared in Unicode's form NFC. Characters that people and programs write for
others are those: apostrophes the labels' apostrophe, hyphens, dashes and spaces of all kinds a
space; characters without width are none. A label stands for itself.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.files import read_json

BLANK = 0  # id of the CTC blank, the first label
BLANK_SIGN = "_"  # what deepspeech.pytorch knows it by, wherever it stands
APOSTROPHES = "\u2019\u2018\u02bc\u02b9\u2032\uff07\u00b4\u0060"
# Unicode's categories of hyphens and dashes, of spaces, of controls, and of what has no width.
PARTING, WITHOUT_WIDTH = ("Pd", "Zs", "Zl", "Zp", "Cc"), "Cf"
MINUS = "\u2212"


def check(labels, where: str | Path) -> list[str]:
    """`labels` in NFC if they are two or more different characters, else a `UserError`."""
    if isinstance(labels, list):
        labels = [unicodedata.normalize("NFC", x) if isinstance(x, str) else x for x in labels]
    if not isinstance(labels, list) or not all(isinstance(x, str) and len(x) == 1 for x in labels):
        raise UserError(f"{where}: labels must be a list of single characters, the blank first")
    if not all(label.isprintable() for label in labels):
        raise UserError(f"{where}: labels must be printable characters")
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise UserError(f"{where}: labels must be two or more, each only once")
    if BLANK_SIGN in labels[1:]:
        raise UserError(
            f"{where}: label {labels.index(BLANK_SIGN)} is {BLANK_SIGN}, which deepspeech.pytorch "
            "takes for the blank; only models whose blank is the first label are served"
        )
    return labels


def read(path: str | Path) -> list[str]:
    """The labels in a file like deepspeech.pytorch's labels.json."""
    return check(read_json(path), path)


def encode(
    text: str, labels: Sequence[str], drop_unknown: bool, where: str
) -> tuple[list[int], list[str]]:
    """Label ids of a text, and the characters that were dropped from it.

    A character without a label stops, or is dropped if that is wanted. A digit always stops: to
    drop it would take a word out of the reference.
    """
    ids = {label: index for index, label in enumerate(labels) if index != BLANK}
    text = unicodedata.normalize("NFC", text)
    text = " ".join("".join(_meant(character, ids) for character in text).split())
    unknown = [character for character in text if character not in ids]
    digit = next((character for character in unknown if character.isnumeric()), None)
    if digit:
        raise UserError(
            f"{where}: the transcript has the digit {digit!r}, which is none of the model's "
            "labels; write numbers as words"
        )
    if unknown and not drop_unknown:
        raise UserError(
            f"{where}: the transcript has the character {unknown[0]!r}, which is none of the "
            "model's labels; correct it, or set text_case or unknown_characters of the dataset"
        )
    kept = "".join(character for character in text if character in ids)
    return [ids[character] for character in " ".join(kept.split())], unknown


def _meant(character: str, ids: dict[str, int]) -> str:
    if character in ids:
        return character
    kind = unicodedata.category(character)
    if character in APOSTROPHES and "'" in ids:
        return "'"
    if kind in PARTING or character == MINUS:
        return " "
    return "" if kind == WITHOUT_WIDTH else character
