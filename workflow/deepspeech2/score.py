"""Score transcripts: WER, CER and SER with 95 % intervals, in parts, with confusions.

WER is the summed edit distance over words by the summed reference words, CER the same over
characters with spaces removed, SER the share of utterances with any wrong word; all over the whole
set, in percent. Parts of the set are speakers, lengths, kinds of text, and texts that are not in
the model's training list. An utterance without a transcript is not scored, and counted as missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import kaldialign

from deepspeech2 import sources, stage
from deepspeech2.alignment import TOKENS, Pair, align, characters, confusions, count_errors, words
from deepspeech2.files import read_json, replacing, sha256, write_json
from deepspeech2.stage import UserError, log

REPLICATIONS = 1000  # of the bootstrap
SEED = 0
LIBRARIES = ("Levenshtein", "kaldialign")  # that align and draw
LENGTHS = (2, 4, 8, 16)  # seconds, the bounds between classes of length
# The words that AN4 and its like spell numbers with.
NUMBERS = frozenset(
    "OH ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE TEN ELEVEN TWELVE THIRTEEN FOURTEEN "
    "FIFTEEN SIXTEEN SEVENTEEN EIGHTEEN NINETEEN TWENTY THIRTY FORTY FIFTY SIXTY SEVENTY EIGHTY "
    "NINETY HUNDRED THOUSAND MILLION AND POINT".split()
)
COMMANDS = frozenset("CLEAR ENTER ERASE GO HELP NO REPEAT RUBOUT START STOP YES".split())


def text_class(text: str) -> str:
    """The kind of a text as AN4 has them: number, spelling, command, or other.

    A number is number words only, a spelling letters and perhaps number words ("K SIX FOUR"), a
    command begins with a word of COMMANDS; dates and addresses are other.
    """
    tokens = [token.upper() for token in words(text)]
    if all(token in NUMBERS for token in tokens):
        return "number"
    if all(len(token) == 1 or token in NUMBERS for token in tokens):
        return "spelling"
    return "command" if tokens[0] in COMMANDS else "other"


def length_class(seconds: float) -> str:
    """The class of a duration, by the bounds of LENGTHS."""
    for low, high in zip((0, *LENGTHS), LENGTHS):
        if seconds < high:
            return f"{low} to {high} s"
    return f"{LENGTHS[-1]} s and more"


def interval(pairs: Sequence[Pair]) -> tuple[float, float]:
    """95 % bootstrap interval of the error rate over utterances, in percent."""
    references, hypotheses = zip(*pairs)
    found = kaldialign.bootstrap_wer_ci(
        references, hypotheses, replications=REPLICATIONS, seed=SEED
    )
    return max(0.0, 100 * found["ci95min"]), 100 * found["ci95max"]


def improvement(references, before, after) -> tuple[float, float]:
    """Paired bootstrap test: how often `after` has fewer errors than `before`, and how often more.

    All three are lists of token lists. The shares are of replications over the same draws of
    utterances; what is missing to 1 are ties.
    """

    def share(first, second):
        return kaldialign.bootstrap_wer_ci(
            references, first, second, replications=REPLICATIONS, seed=SEED
        )["p_s2_improv_over_s1"]

    return share(before, after), share(after, before)


def read_transcripts(path: str | Path) -> dict[str, dict]:
    """Transcripts by utterance id, in the file's order."""
    found: dict[str, dict] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such transcripts") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    for number, line in enumerate(filter(None, lines), 1):
        try:
            entry = json.loads(line)
            texts = {key: entry[key] for key in ("reference", "hypothesis")}
            if not all(isinstance(text, str) for text in (entry["id"], *texts.values())):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{path}: line {number}: not a JSON object with id, reference and hypothesis"
            ) from None
        if entry["id"] in found:
            raise UserError(f"{path}: line {number}: {entry['id']!r} stands there twice")
        found[entry["id"]] = texts
    if not found:
        raise UserError(f"{path}: holds no transcripts")
    return found


def read_training_texts(path: str | Path | None) -> set[str] | None:
    """The texts that a model was trained on, from a file with one on each line."""
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    return {_normal(line) for line in text.split("\n") if line.strip()}


def _normal(text: str) -> str:
    return " ".join(text.upper().split())


def rates(transcripts: Iterable[dict], intervals: bool = True) -> dict:
    """WER, CER and SER of some transcripts, with counts of errors."""
    transcripts = list(transcripts)
    result: dict = {"utterances": len(transcripts)}
    for name, tokens in TOKENS.items():
        pairs = [(tokens(t["reference"]), tokens(t["hypothesis"])) for t in transcripts]
        errors = count_errors(pairs)
        result[name] = {
            "percent": errors.rate,
            **{key: value for key, value in errors._asdict().items() if key != "length"},
            "reference_length": errors.length,
        }
        if intervals:
            result[name]["low"], result[name]["high"] = interval(pairs)
    wrong = sum(words(t["reference"]) != words(t["hypothesis"]) for t in transcripts)
    result["ser"] = {"percent": 100 * wrong / len(transcripts), "sentences": wrong}
    return result


def score(
    transcripts: dict[str, dict], utterances: Sequence[dict], training_texts: set[str] | None
) -> dict:
    """All figures of one set of transcripts.

    `utterances` are those of the features: dicts with id, seconds, speaker and reference.
    """
    known = {utterance["id"]: utterance for utterance in utterances}
    for name, entry in transcripts.items():
        if name not in known or known[name]["reference"] != entry["reference"]:
            raise UserError(f"utterance {name!r}: not of these features, or its reference is other")
    empty = sum(not words(t["hypothesis"]) for t in transcripts.values())
    result = rates(transcripts.values())
    result["coverage"] = {"scored": len(transcripts), "of": len(known), "empty": empty}
    parts: dict[str, dict[str, list[dict]]] = {"speaker": {}, "length": {}, "text": {}, "seen": {}}
    for name, entry in transcripts.items():
        utterance, reference = known[name], entry["reference"]
        labels = {
            "speaker": utterance.get("speaker") or None,
            "length": length_class(utterance["seconds"]),
            "text": text_class(reference),
            "seen": None
            if training_texts is None
            else ("seen in training" if _normal(reference) in training_texts else "unseen"),
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
    result["confusions"] = {
        name: confusions((tokens(t["reference"]), tokens(t["hypothesis"])) for t in found)
        for found in [list(transcripts.values())]
        for name, tokens in (("words", words), ("characters", characters))
    }
    return result


def alignments(transcripts: dict[str, dict]) -> list[dict]:
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


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--transcripts", required=True, help="JSON lines")
    parser.add_argument("--features-index", required=True, help="all utterances (JSON)")
    parser.add_argument("--training-texts", help="texts that the model was trained on, one a line")
    parser.add_argument("--score", required=True, help="figures to write (JSON)")
    parser.add_argument("--alignments", required=True, help="per utterance, to write (JSON lines)")
    args = stage.parse(parser, argv)

    transcripts = read_transcripts(args.transcripts)
    utterances = read_json(args.features_index)["utterances"]
    result = score(transcripts, utterances, read_training_texts(args.training_texts))
    result["transcripts_sha256"] = sha256(args.transcripts)
    result["code_sha256"] = sources.digest("deepspeech2.score", "deepspeech2.decode")
    result["libraries"] = {name: metadata.version(name) for name in LIBRARIES}
    result["training_texts_sha256"] = args.training_texts and sha256(args.training_texts)
    with replacing(args.alignments) as path:
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in alignments(transcripts)]
        path.write_text("".join(lines), encoding="utf-8")
    result["alignments_sha256"] = sha256(args.alignments)
    write_json(args.score, result)
    coverage = "scored {scored} of {of}, empty {empty}".format(**result["coverage"])
    rate = {name: result[name]["percent"] for name in ("wer", "cer", "ser")}
    log.info("%s", coverage)
    log.info("WER {wer:.3f} %, CER {cer:.3f} %, SER {ser:.3f} %".format(**rate))


if __name__ == "__main__":
    stage.run(main)
