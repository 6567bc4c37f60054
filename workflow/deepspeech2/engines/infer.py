"""Run a compiled model over the features and keep the posteriors of every utterance.

This is the accuracy run: nothing is timed, and the number of threads is fixed, so that the same
machine writes the same bytes every time.
"""

from __future__ import annotations

from deepspeech2 import cli, engines
from deepspeech2.cli import Input, Output, log
from deepspeech2.engines import Engine, pool
from deepspeech2.engines.artefact import require_artefact
from deepspeech2.engines.run import infer
from deepspeech2.features.batches import Batches, FeatureSet
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.node import place
from deepspeech2.outside import outside


def main(
    features: Input,
    features_index: Input,
    artefact: Input,
    artefact_index: Input,
    batch_size: int,
    engine: Engine,
    posteriors: Output,
    index: Output,
    threads: int = 1,
) -> None:
    """Command line.

    features: folder of features
    features_index: their index (JSON)
    artefact: folder of the compiled model
    artefact_index: its index (JSON)
    batch_size: utterances in a batch
    engine: how to run the model: JSON like an entry of the configuration's engines, or the name
        of a backend
    posteriors: file to write
    index: index to write (JSON)
    threads: threads of the host; the same number gives the same bytes
    """
    placed = pool.place(engine)
    backend = engines.create(placed)
    backend.prepare()
    require_artefact(artefact, artefact_index, backend, batch_size)
    batches = Batches(FeatureSet(features, features_index), batch_size, engine.pad_to)
    run = {
        "engine": engine._asdict(),
        "batch_size": batch_size,
        "threads": threads,
        "outside": outside(),
        **place(placed.device),
        "versions": backend.versions(),
        "features_sha256": batches.features.index_sha256,
        "code_sha256": engines.code_sha256("deepspeech2.engines.infer", engine),
    }
    session = backend.open(artefact, threads)
    try:
        count = posteriors_file.write(posteriors, index, infer(session, batches), run)
    finally:
        session.close()
    if batches.fill_up_rows():
        log.info(
            "the last batch was filled up with %d copies, which are left out",
            batches.fill_up_rows(),
        )
    log.info("%d utterances", count)


if __name__ == "__main__":
    cli.run(main)
