"""Turn posteriors into transcripts: JSON lines with id, duration, reference and hypothesis.

The decoder `greedy` takes the best label of each frame, merges repeats and drops blanks.
"""

from __future__ import annotations

import json
from typing import Literal

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import read_sealed, remedy, replacing, sha256, write_json
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring.decoders import DECODERS


def main(
    posteriors: Input,
    posteriors_index: Input,
    features_index: Input,
    transcripts: Output,
    index: Output,
    decoder: Literal[tuple(DECODERS)] = "greedy",
) -> None:
    """Command line.

    posteriors: posteriors of all utterances
    posteriors_index: their index (JSON)
    features_index: index of the features, for references and durations (JSON)
    transcripts: JSON lines to write
    index: their index to write (JSON)
    decoder: how posteriors become text
    """
    features = read_sealed(features_index)
    labels = features["labels"]
    utterances: dict[str, dict] = {u["id"]: u for u in features["utterances"]}
    decode = DECODERS[decoder](labels)
    count = 0
    with replacing(transcripts) as path, open(path, "w", encoding="utf-8") as file:
        for name, probabilities in posteriors_file.read(posteriors, posteriors_index):
            if name not in utterances or probabilities.shape[1] != len(labels):
                raise UserError(
                    f"{posteriors_index}: utterance {name!r} is not in these features; "
                    f"{remedy(posteriors_index)}"
                )
            line = {
                "id": name,
                "duration": utterances[name]["seconds"],
                "reference": utterances[name]["reference"],
                "hypothesis": decode(probabilities),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    write_json(index, {"sha256": sha256(transcripts), "decoder": decoder, "utterances": count})
    log.info("%d utterances decoded", count)


if __name__ == "__main__":
    cli.run(main)
