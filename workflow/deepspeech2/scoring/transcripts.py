"""Transcripts: JSON lines with id, duration, reference and hypothesis; and texts of a training.

`words` and `characters`, lists of text, start (s), end (s) and confidence, are missing in those of
versions that had none.
"""

from __future__ import annotations

from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.files import parse_json, read_sealed, read_text, require_unaltered
from deepspeech2.scoring import alignment

LONGEST = 1e9  # seconds; a larger number is no time
SPANS = {"words": alignment.words, "characters": alignment.characters}


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
        for key, tokens in SPANS.items():
            if key in entry:
                if not _are_spans(entry[key], tokens(texts["hypothesis"])):
                    raise UserError(
                        f"{path}: line {number}: its {key} are not those of the hypothesis, each "
                        "with start, end and a confidence"
                    )
                texts[key] = entry[key]
        found[entry["id"]] = texts
    if not found:
        raise UserError(f"{path}: holds no transcripts")
    return found


def _are_spans(spans: object, tokens: list[str]) -> bool:
    if not isinstance(spans, list) or not all(isinstance(s, list) and len(s) == 4 for s in spans):
        return False
    if [span[0] for span in spans] != tokens:
        return False
    return all(
        all(type(value) in (int, float) for value in (start, end, confidence))
        and 0 <= start <= end < LONGEST
        and 0 <= confidence <= 1
        for _, start, end, confidence in spans
    )


def read_training_texts(path: str | Path | None) -> set[str] | None:
    """The texts that a model was trained on, from a file with one on each line."""
    if path is None:
        return None
    return {normal(line) for line in read_text(path).split("\n") if line.strip()}


def normal(text: str) -> str:
    """A text as it is compared with training texts: upper case, single spaces."""
    return " ".join(text.upper().split())
