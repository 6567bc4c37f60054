"""The characters that a model can write, and texts as their ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.files import read_json

BLANK = 0  # id of the CTC blank, the first label


def check(labels, where: str | Path) -> list[str]:
    """`labels` if they are two or more different single characters, else a `UserError`."""
    if not isinstance(labels, list) or not all(isinstance(x, str) and len(x) == 1 for x in labels):
        raise UserError(f"{where}: labels must be a list of single characters, the blank first")
    if not all(label.isprintable() for label in labels):
        raise UserError(f"{where}: labels must be printable characters")
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise UserError(f"{where}: labels must be two or more, each only once")
    return labels


def read(path: str | Path) -> list[str]:
    """The labels in a file like deepspeech.pytorch's labels.json."""
    return check(read_json(path), path)


def encode(text: str, labels: Sequence[str], drop_unknown: bool, where: str) -> list[int]:
    """Label ids of a text. A character without one stops, or is dropped if that is wanted."""
    ids = {label: index for index, label in enumerate(labels) if index != BLANK}
    unknown = [character for character in text if character not in ids]
    if unknown and not drop_unknown:
        raise UserError(
            f"{where}: the transcript has the character {unknown[0]!r}, which is none of the "
            "model's labels; correct it, or set text_case or unknown_characters of the dataset"
        )
    return [ids[character] for character in text if character in ids]
