"""Transcripts: JSON lines with id, duration, reference and hypothesis; and texts of a training."""

from __future__ import annotations

from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.files import parse_json, read_sealed, read_text, require_unaltered


def read(path: str | Path, index: str | Path | None = None) -> dict[str, dict]:
    """Transcripts by utterance id, in the file's order. They must have the hash in `index`."""
    if index:
        require_unaltered(path, read_sealed(index)["sha256"], index)
    found: dict[str, dict] = {}
    lines = read_text(path).rstrip("\n").split("\n")
    for number, line in enumerate(filter(None, lines), 1):
        try:
            entry = parse_json(line)
            texts = {key: entry[key] for key in ("reference", "hypothesis")}
            if not all(isinstance(text, str) for text in (entry["id"], *texts.values())):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{path}: line {number}: not a JSON object with id, reference and hypothesis"
            ) from None
        if entry["id"] in found:
            raise UserError(f"{path}: line {number}: {entry['id']!r} appears twice")
        found[entry["id"]] = texts
    if not found:
        raise UserError(f"{path}: holds no transcripts")
    return found


def read_training_texts(path: str | Path | None) -> set[str] | None:
    """The texts that a model was trained on, from a file with one on each line."""
    if path is None:
        return None
    return {normal(line) for line in read_text(path).split("\n") if line.strip()}


def normal(text: str) -> str:
    """A text as it is compared with training texts: upper case, single spaces."""
    return " ".join(text.upper().split())
