"""Turn posteriors into transcripts: JSON lines with id, duration, reference and hypothesis.

The decoder `greedy` takes the best label of each frame, merges repeats and drops blanks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from deepspeech2 import posteriors_file, stage
from deepspeech2.files import read_json, remedy, replacing
from deepspeech2.labels import BLANK
from deepspeech2.stage import UserError, log


def greedy_batch(
    probabilities: np.ndarray, lengths: np.ndarray, labels: Sequence[str]
) -> list[str]:
    """Texts of probabilities (B, T', classes), of which `lengths` (B,) frames count.

    The best label of each frame, repeats merged, blanks dropped. Labels are single characters.
    """
    best = probabilities.argmax(axis=2)
    keep = best != BLANK
    keep[:, 1:] &= best[:, 1:] != best[:, :-1]
    keep &= np.arange(best.shape[1]) < np.asarray(lengths)[:, None]
    text = "".join(np.array(labels)[best[keep]].tolist())
    ends = keep.sum(axis=1).cumsum().tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends)]


def greedy(posteriors: np.ndarray, labels: Sequence[str]) -> str:
    """Text of posteriors (T', classes) by the best label of each frame."""
    return greedy_batch(posteriors[None], np.array([len(posteriors)]), labels)[0]


DECODERS = {"greedy": greedy}


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--posteriors", required=True)
    parser.add_argument("--posteriors-index", required=True, help="their index (JSON)")
    parser.add_argument("--features-index", required=True, help="for references and durations")
    parser.add_argument("--decoder", choices=DECODERS, default="greedy")
    parser.add_argument("--transcripts", required=True, help="JSON lines to write")
    args = stage.parse(parser, argv)

    features = read_json(args.features_index)
    labels = features["labels"]
    utterances: dict[str, dict] = {u["id"]: u for u in features["utterances"]}
    count = 0
    with replacing(args.transcripts) as path, open(path, "w", encoding="utf-8") as file:
        for name, posteriors in posteriors_file.read(args.posteriors, args.posteriors_index):
            if name not in utterances or posteriors.shape[1] != len(labels):
                raise UserError(
                    f"{args.posteriors_index}: utterance {name!r} is not of these features; "
                    f"{remedy(args.posteriors_index)}"
                )
            line = {
                "id": name,
                "duration": utterances[name]["seconds"],
                "reference": utterances[name]["reference"],
                "hypothesis": DECODERS[args.decoder](posteriors, labels),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    log.info("%d utterances decoded", count)


if __name__ == "__main__":
    stage.run(main)
