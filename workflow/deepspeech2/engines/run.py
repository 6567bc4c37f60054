"""Runs a session over batches, and hands out what the network returned for each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deepspeech2 import cli, engines
from deepspeech2.cli import UserError
from deepspeech2.features.batches import Batches


def outputs(
    session: engines.Session, batches: Batches
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Positions, probabilities (B, T', classes) and output lengths (B,) of each batch, in order.

    A batch comes out once the next is started: what is done with it happens while that one is
    computed, wherever `forward` returns before it is done. A third is assembled meanwhile.
    """
    done = None
    for batch in batches:
        result = session.forward(session.upload(batch.spectrograms, batch.lengths))
        if done:
            yield done
        session.synchronize()
        probabilities, lengths = session.download(result)
        for row, position in enumerate(batch.positions):
            if not 0 < lengths[row] <= probabilities.shape[1]:
                raise UserError(
                    f"utterance {batches.features.utterances[position]['id']}: the engine returned "
                    f"the length {lengths[row]} for an output of {probabilities.shape[1]} frames"
                )
        done = batch.positions, probabilities, lengths
    if done:
        yield done


def infer(session: engines.Session, batches: Batches) -> Iterator[tuple[str, np.ndarray]]:
    """Utterance id and posteriors (T', classes) of each utterance, in the features' order."""
    what = f"batch size {batches.batch_size}"
    for positions, probabilities, lengths in cli.progress(
        outputs(session, batches), len(batches), what, "batch"
    ):
        for row, position in enumerate(positions):
            yield batches.features.utterances[position]["id"], probabilities[row, : lengths[row]]
