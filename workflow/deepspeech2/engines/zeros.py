"""Time zeros as a published figure was, by the vendor's own program.

It says how fast a device computes, not how fast it recognises speech. Only engines that compare
with such a figure have it.
"""

from __future__ import annotations

from deepspeech2 import cli, engines, files
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.engines import Engine, Shape, pool
from deepspeech2.engines.artefact import require_artefact


def main(
    artefact: Input,
    artefact_index: Input,
    batch_size: int,
    engine: Engine,
    zeros: Output,
) -> None:
    """Command line.

    artefact: folder of the compiled model
    artefact_index: its index (JSON)
    batch_size: utterances in a batch
    engine: how to run the model: JSON like an entry of the configuration's engines, or the name
        of a backend
    zeros: figures to write (JSON)
    """
    placed = pool.place(engine)
    backend = engines.create(placed)
    if not backend.times_zeros:
        raise UserError(f"backend {engine.backend} has no figures of zeros")
    backend.prepare()
    made = require_artefact(artefact, artefact_index, backend, batch_size)
    shape = Shape(**max(made["shapes"], key=lambda one: one["frames"]))
    figures = backend.time_zeros(artefact, shape)
    content = {"fake": backend.fake, "shape": shape._asdict(), "versions": backend.versions()}
    files.write_json(zeros, {**figures, **content})
    log.info("zeros, batch size %d: %.2f utterances/s", batch_size, figures["utterances_per_s"])


if __name__ == "__main__":
    cli.run(main)
