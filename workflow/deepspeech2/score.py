"""Score transcripts: WER and CER with their errors and 95 % intervals, and agreement with eager.

WER is the summed edit distance over words by the summed reference words, CER the same over
characters with spaces removed; both over the whole set, in percent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import kaldialign
import Levenshtein

from deepspeech2 import stage
from deepspeech2.files import sha256, write_json
from deepspeech2.stage import UserError, log

REPLICATIONS = 1000  # of the bootstrap
SEED = 0


class Errors(NamedTuple):
    """Edit operations that turn references into hypotheses, and the references' length."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def rate(self) -> float:
        """Errors per hundred tokens of the reference."""
        return 100 * (self.substitutions + self.deletions + self.insertions) / self.length


def words(text: str) -> list[str]:
    """The tokens of WER."""
    return text.split()


def characters(text: str) -> list[str]:
    """The tokens of CER: spaces do not count."""
    return list("".join(text.split()))


def count_errors(pairs: Sequence[tuple[list[str], list[str]]]) -> Errors:
    """Errors over pairs of reference and hypothesis tokens, by Levenshtein's alignment."""
    counts = {"replace": 0, "delete": 0, "insert": 0}
    for reference, hypothesis in pairs:
        for operation, _, _ in Levenshtein.editops(reference, hypothesis):
            counts[operation] += 1
    length = sum(len(reference) for reference, _ in pairs)
    return Errors(counts["replace"], counts["delete"], counts["insert"], length)


def interval(pairs: Sequence[tuple[list[str], list[str]]]) -> tuple[float, float]:
    """95 % bootstrap interval of the error rate over utterances, in percent."""
    references, hypotheses = zip(*pairs)
    found = kaldialign.bootstrap_wer_ci(
        references, hypotheses, replications=REPLICATIONS, seed=SEED
    )
    return max(0.0, 100 * found["ci95min"]), 100 * found["ci95max"]


def read_transcripts(path: str | Path) -> dict[str, dict]:
    """Transcripts by utterance id, in the file's order."""
    found = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such transcripts") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    for number, line in enumerate(filter(None, lines), 1):
        try:
            entry = json.loads(line)
            found[entry["id"]] = {key: entry[key] for key in ("reference", "hypothesis")}
        except (json.JSONDecodeError, KeyError, TypeError):
            raise UserError(
                f"{path}: line {number}: not a JSON object with id, reference and hypothesis"
            ) from None
    if not found:
        raise UserError(f"{path}: holds no transcripts")
    return found


def score(transcripts: dict[str, dict], eager: dict[str, dict]) -> dict:
    """All figures of one set of transcripts."""
    if {k: v["reference"] for k, v in transcripts.items()} != {
        k: v["reference"] for k, v in eager.items()
    }:
        raise UserError("the transcripts and the eager reference are not of the same utterances")
    result: dict = {"utterances": len(transcripts)}
    for name, tokens in (("wer", words), ("cer", characters)):
        pairs = [(tokens(t["reference"]), tokens(t["hypothesis"])) for t in transcripts.values()]
        errors = count_errors(pairs)
        low, high = interval(pairs)
        result[name] = {
            "percent": errors.rate,
            "low": low,
            "high": high,
            **{key: value for key, value in errors._asdict().items() if key != "length"},
            "reference_length": errors.length,
        }
    result["identical_transcripts"] = sum(
        t["hypothesis"] == eager[k]["hypothesis"] for k, t in transcripts.items()
    )
    return result


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--transcripts", required=True, help="JSON lines")
    parser.add_argument("--eager", required=True, help="transcripts of the eager reference")
    parser.add_argument("--score", required=True, help="figures to write (JSON)")
    args = stage.parse(parser, argv)

    result = score(read_transcripts(args.transcripts), read_transcripts(args.eager))
    result["transcripts_sha256"] = sha256(args.transcripts)
    write_json(args.score, result)
    log.info("WER %.3f %%, CER %.3f %%", result["wer"]["percent"], result["cer"]["percent"])


if __name__ == "__main__":
    stage.run(main)
