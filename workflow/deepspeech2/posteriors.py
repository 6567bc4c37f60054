"""Run a compiled model over the features and keep the posteriors of every utterance.

This is the accuracy run: nothing is timed, and the number of threads is fixed, so that the same
machine writes the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepspeech2 import backends, posteriors_file, sources, stage
from deepspeech2.compile import require_artefact
from deepspeech2.features import FeatureSet, Padding, batches, fill_up_rows
from deepspeech2.stage import UserError, log


def outputs(
    session: backends.Session, features: FeatureSet, batch_size: int, padding: Padding
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Positions, probabilities (B, T', classes) and output lengths (B,) of each batch, in order.

    A batch comes out once the next is started: what is done with it happens while that one is
    computed, wherever `forward` returns before it is done. A third is assembled meanwhile.
    """
    done = None
    for batch in batches(features, batch_size, padding):
        result = session.forward(session.upload(batch.spectrograms, batch.lengths))
        if done:
            yield done
        session.synchronize()
        probabilities, lengths = session.download(result)
        for row, position in enumerate(batch.positions):
            if not 0 < lengths[row] <= probabilities.shape[1]:
                raise UserError(
                    f"utterance {features.utterances[position]['id']}: the engine returned the "
                    f"length {lengths[row]} for an output of {probabilities.shape[1]} frames"
                )
        done = batch.positions, probabilities, lengths
    if done:
        yield done


def infer(
    session: backends.Session, features: FeatureSet, batch_size: int, padding: Padding
) -> Iterator[tuple[str, np.ndarray]]:
    """Utterance id and posteriors (T', classes) of each utterance, in the features' order."""
    found = outputs(session, features, batch_size, padding)
    total = -(-len(features) // batch_size)
    for positions, probabilities, lengths in stage.progress(
        found, total, f"batch size {batch_size}", "batch"
    ):
        for row, position in enumerate(positions):
            yield features.utterances[position]["id"], probabilities[row, : lengths[row]]


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--features", required=True, help="folder of features")
    parser.add_argument("--features-index", required=True, help="their index (JSON)")
    parser.add_argument("--artefact", required=True, help="folder of the compiled model")
    parser.add_argument("--artefact-index", required=True, help="its index (JSON)")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    backends.add_arguments(parser)
    parser.add_argument("--posteriors", required=True, help="file to write")
    parser.add_argument("--index", required=True, help="index to write (JSON)")
    args = stage.parse(parser, argv)

    engine = backends.from_arguments(args)
    backend = backends.create(engine)
    backend.prepare()
    require_artefact(args.artefact, args.artefact_index, backend)
    features = FeatureSet(args.features, args.features_index)
    run = {
        "engine": engine._asdict(),
        "batch_size": args.batch_size,
        "threads": args.threads,
        "versions": backend.versions(),
        "features_sha256": features.index_sha256,
        "code_sha256": sources.digest(
            __spec__.name, backends.BACKENDS[engine.backend].module, *sources.BEFORE_A_RUN
        ),
    }
    session = backend.open(Path(args.artefact), args.threads)
    try:
        padding = engine.buckets or engine.padding
        found = infer(session, features, args.batch_size, padding)
        count = posteriors_file.write(args.posteriors, args.index, found, run)
    finally:
        session.close()
    filled = fill_up_rows(count, args.batch_size, padding)
    if filled:
        log.info("the last batch was filled up with %d copies, which are left out", filled)
    log.info("%d utterances", count)


if __name__ == "__main__":
    stage.run(main)
