"""Compare an engine's run with the eager reference: transcripts and posteriors.

It shows what export, engine, precision, padding and batch size changed: how many transcripts are
identical, the first ones that are not, and the largest difference between two posteriors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from deepspeech2 import posteriors_file, stage
from deepspeech2.files import remedy, write_json
from deepspeech2.score import read_transcripts
from deepspeech2.stage import UserError, log

FIRST = 10  # differing transcripts that are kept


def transcripts_agree(ours: dict[str, dict], eager: dict[str, dict]) -> dict:
    """How many transcripts are identical, and the first that are not, with both texts."""
    if {k: v["reference"] for k, v in ours.items()} != {
        k: v["reference"] for k, v in eager.items()
    }:
        raise UserError("the transcripts and the eager reference are not of the same utterances")
    differing = [
        {"id": name, **entry, "eager": eager[name]["hypothesis"]}
        for name, entry in ours.items()
        if entry["hypothesis"] != eager[name]["hypothesis"]
    ]
    return {
        "utterances": len(ours),
        "identical_transcripts": len(ours) - len(differing),
        "first_differing": differing[:FIRST],
    }


Posteriors = Iterable[tuple[str, np.ndarray]]


def posteriors_agree(ours: Posteriors, eager: Posteriors, index: str) -> dict:
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


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    for run, what in (("", "the engine's"), ("eager-", "the eager reference's")):
        parser.add_argument(f"--{run}transcripts", required=True, help=f"{what} (JSON lines)")
        parser.add_argument(f"--{run}posteriors", required=True, help=what)
        parser.add_argument(f"--{run}posteriors-index", required=True, help=f"{what} (JSON)")
    parser.add_argument("--agreement", required=True, help="figures to write (JSON)")
    args = stage.parse(parser, argv)

    result = transcripts_agree(
        read_transcripts(args.transcripts), read_transcripts(args.eager_transcripts)
    )
    result.update(
        posteriors_agree(
            posteriors_file.read(args.posteriors, args.posteriors_index),
            posteriors_file.read(args.eager_posteriors, args.eager_posteriors_index),
            args.posteriors_index,
        )
    )
    write_json(args.agreement, result)
    log.info("identical transcripts %d/%d", result["identical_transcripts"], result["utterances"])


if __name__ == "__main__":
    stage.run(main)
