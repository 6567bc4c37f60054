"""Compare an engine's run with the eager reference: transcripts and posteriors.

It shows what export, engine, precision, padding and batch size changed: how many transcripts are
identical, the first ones that are not, and the largest difference between two posteriors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import read_sealed, remedy, write_json
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import transcripts as transcripts_file

FIRST = 10  # differing transcripts that are kept


def transcripts_agree(ours: dict[str, dict], eager: dict[str, dict]) -> dict:
    """How many transcripts are identical, and the first that are not, with both texts."""
    if {k: v["reference"] for k, v in ours.items()} != {
        k: v["reference"] for k, v in eager.items()
    }:
        raise UserError("the transcripts and the eager reference are not of the same utterances")
    differing = [
        {
            "id": name,
            **{side: entry[side] for side in ("reference", "hypothesis")},
            "eager": eager[name]["hypothesis"],
        }
        for name, entry in ours.items()
        if entry["hypothesis"] != eager[name]["hypothesis"]
    ]
    return {
        "utterances": len(ours),
        "identical_transcripts": len(ours) - len(differing),
        "first_differing": differing[:FIRST],
    }


Posteriors = Iterable[tuple[str, np.ndarray]]


def posteriors_agree(ours: Posteriors, eager: Posteriors, index: str | Path) -> dict:
    """The largest absolute difference of two posteriors, and the utterance that has it.

    Where the numbers of frames differ, those in common are compared, and the utterance counts in
    `other_lengths`.
    """
    largest, where, other_lengths = 0.0, None, 0
    missing = ("", np.empty((0, 0)))
    for (name, a), (name_eager, b) in itertools.zip_longest(ours, eager, fillvalue=missing):
        if name != name_eager or a.shape[1] != b.shape[1]:
            raise UserError(
                f"{index}: its utterances or labels are not the eager run's; {remedy(index)}"
            )
        other_lengths += len(a) != len(b)
        common = min(len(a), len(b))
        difference = float(np.abs(a[:common] - b[:common]).max(initial=0.0))
        if difference > largest:
            largest, where = difference, name
    return {
        "largest_posterior_difference": largest,
        "largest_posterior_difference_in": where,
        "other_lengths": other_lengths,
    }


def main(
    transcripts: Input,
    transcripts_index: Input,
    posteriors: list[Input],
    posteriors_index: Input,
    eager_transcripts: Input,
    eager_transcripts_index: Input,
    eager_posteriors: list[Input],
    eager_posteriors_index: Input,
    agreement: Output,
) -> None:
    """Command line.

    transcripts: the engine's (JSON lines)
    transcripts_index: the engine's (JSON)
    posteriors: the engine's, one file or its shards' in order
    posteriors_index: the engine's (JSON)
    eager_transcripts: the eager reference's (JSON lines)
    eager_transcripts_index: the eager reference's (JSON)
    eager_posteriors: the eager reference's, likewise
    eager_posteriors_index: the eager reference's (JSON)
    agreement: figures to write (JSON)
    """
    result = transcripts_agree(
        transcripts_file.read(transcripts, transcripts_index),
        transcripts_file.read(eager_transcripts, eager_transcripts_index),
    )
    result.update(
        posteriors_agree(
            posteriors_file.read(posteriors, posteriors_index),
            posteriors_file.read(eager_posteriors, eager_posteriors_index),
            posteriors_index,
        )
    )
    result["eager_versions"] = read_sealed(eager_posteriors_index)["run"].get("versions", {})
    write_json(agreement, result)
    log.info("identical transcripts %d/%d", result["identical_transcripts"], result["utterances"])


if __name__ == "__main__":
    cli.run(main)
