"""Score transcripts: WER, CER and SER with 95 % intervals, in parts, with confusions.

Rates are over the whole set, in percent (scoring/rates.py). Parts of the set are speakers,
lengths, kinds of text, and texts that are not in the model's training list. An utterance without a
transcript is not scored, and counted as missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from typing import Literal

from deepspeech2 import cli, sources
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import read_sealed, remedy, replacing, sha256, unchanged, write_json
from deepspeech2.scoring import reliability
from deepspeech2.scoring import transcripts as transcripts_file
from deepspeech2.scoring.alignment import align, characters, confusions, count_errors, words
from deepspeech2.scoring.classes import LENGTHS, length_class, text_class
from deepspeech2.scoring.normalisers import NORMALISERS
from deepspeech2.scoring.rates import rates

LIBRARIES = ("Levenshtein", "kaldialign")  # that align and draw


def figures(
    transcripts: dict[str, dict],
    utterances: Sequence[dict],
    training_texts: set[str] | None,
    language_model_texts: set[str] | None = None,
) -> dict:
    """All figures of one set of transcripts.

    `utterances` are those of the features: dicts with id, seconds, speaker and reference.
    """
    known = {utterance["id"]: utterance for utterance in utterances}
    for name, entry in transcripts.items():
        if name not in known or known[name]["reference"] != entry["reference"]:
            raise UserError(f"utterance {name!r}: not in these features, or its reference differs")
    empty = sum(not words(t["hypothesis"]) for t in transcripts.values())
    result = rates(transcripts.values())
    result["coverage"] = {"scored": len(transcripts), "of": len(known), "empty": empty}
    seen = {True: "seen in training", False: "unseen"}
    heard = {True: "in its texts", False: "not in its texts"}
    kinds = ("speaker", "length", "text", "seen", "language model")
    parts: dict[str, dict[str, list[dict]]] = {kind: {} for kind in kinds}
    for name, entry in transcripts.items():
        utterance, reference = known[name], entry["reference"]
        labels = {
            "speaker": utterance.get("speaker") or None,
            "length": length_class(utterance["seconds"]),
            "text": text_class(reference),
            "seen": None
            if training_texts is None
            else seen[transcripts_file.normal(reference) in training_texts],
            "language model": None
            if language_model_texts is None
            else heard[transcripts_file.normal(reference) in language_model_texts],
        }
        for kind, label in labels.items():
            if label is not None:
                parts[kind].setdefault(label, []).append(entry)
    order = {"length": [length_class(s) for s in (0, *LENGTHS)]}
    result["parts"] = {
        kind: [
            {"name": label, **rates(part[label])}
            for label in (sorted(part, key=order[kind].index) if kind in order else sorted(part))
        ]
        for kind, part in parts.items()
    }
    result["confidence"] = reliability.confidence(transcripts.values())
    result["confusions"] = {
        name: confusions((tokens(t["reference"]), tokens(t["hypothesis"])) for t in found)
        for found in [list(transcripts.values())]
        for name, tokens in (("words", words), ("characters", characters))
    }
    return result


def normalised(transcripts: dict[str, dict], name: str) -> dict:
    """Rates of both sides under a normaliser. A reference that it empties has insertions only."""
    normal, version = NORMALISERS[name]()
    sides = "reference", "hypothesis"
    entries = [{side: normal(t[side]) for side in sides} for t in transcripts.values()]
    empty = sum(not words(t["reference"]) for t in entries)
    return {"name": name, "version": version, "empty_references": empty, **rates(entries)}


def aligned(transcripts: dict[str, dict]) -> list[dict]:
    """Per utterance its word errors and the alignments of its words and characters."""
    lines = []
    for name, entry in transcripts.items():
        texts = entry["reference"], entry["hypothesis"]
        errors = count_errors([(words(texts[0]), words(texts[1]))])
        lines.append(
            {
                "id": name,
                "errors": errors.count,
                "reference_words": errors.length,
                "words": align(*map(words, texts)),
                "characters": align(*map(characters, texts)),
            }
        )
    return lines


def main(
    transcripts: Input,
    transcripts_index: Input,
    features_index: Input,
    training_texts: Input | None,
    language_model_texts: Input | None,
    normaliser: Literal[tuple(NORMALISERS)] | None,
    score: Output,
    alignments: Output,
    word_times: Input | None = None,
) -> None:
    """Command line.

    transcripts: transcripts to score (JSON lines)
    transcripts_index: their index (JSON)
    features_index: all utterances (JSON)
    training_texts: texts that the model was trained on, one a line
    language_model_texts: those that the decoder's language model was made of, one a line
    normaliser: under which texts are scored a second time
    score: figures to write (JSON)
    alignments: alignment of each utterance, to write (JSON lines)
    word_times: when each word of the references is said, where that is known (CTM)
    """
    entries = transcripts_file.read(transcripts, transcripts_index)
    utterances = read_sealed(features_index)["utterances"]
    with unchanged(lambda: filter(None, (training_texts, word_times))):
        known = transcripts_file.read_training_texts(training_texts)
        texts_sha256 = training_texts and sha256(training_texts)
        truth = reliability.read_ctm(word_times) if word_times else {}
        times_sha256 = word_times and sha256(word_times)
    try:
        heard = transcripts_file.read_training_texts(language_model_texts)
        result = figures(entries, utterances, known, heard)
    except UserError as error:
        raise UserError(f"{transcripts}: {error}; {remedy(transcripts_index)}") from None
    result["times"] = reliability.start_errors(entries, truth)
    result["word_times_sha256"] = times_sha256
    if normaliser:
        result["normalised"] = normalised(entries, normaliser)
    result["language_model_texts_sha256"] = language_model_texts and sha256(language_model_texts)
    result["transcripts_sha256"] = sha256(transcripts)
    result["code_sha256"] = sources.digest(
        "deepspeech2.scoring.score", "deepspeech2.scoring.decode"
    )
    result["libraries"] = {name: metadata.version(name) for name in LIBRARIES}
    result["training_texts_sha256"] = texts_sha256
    with replacing(alignments) as path:
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in aligned(entries)]
        path.write_text("".join(lines), encoding="utf-8")
    result["alignments_sha256"] = sha256(alignments)
    write_json(score, result)
    rate = {name: result[name]["percent"] for name in ("wer", "cer", "ser")}
    log.info("scored {scored} of {of}, empty {empty}".format(**result["coverage"]))
    log.info("WER {wer:.3f} %, CER {cer:.3f} %, SER {ser:.3f} %".format(**rate))


if __name__ == "__main__":
    cli.run(main)
