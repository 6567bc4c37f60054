"""Make a model from a checkpoint: weights as safetensors, everything else as JSON.

Reads what deepspeech.pytorch and torch save, of which nothing is executed, and safetensors. Weights
are converted to float32 and checked: every tensor that the settings imply is there, has the right
shape and is finite. What the checkpoint does not say itself is given: labels and spectrogram.
"""

from __future__ import annotations

import numpy as np

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, Settings, UserError, log
from deepspeech2.corpus.labels import read as read_labels
from deepspeech2.files import replacing, unchanged, write_json
from deepspeech2.files import sha256 as sha256_of
from deepspeech2.model.checkpoint import read, to_safetensors


def main(
    checkpoint: Input,
    sha256: str | None,
    labels: Input | None,
    spectrogram: Settings | None,
    weights: Output,
    model: Output,
    *,
    half: bool = False,
) -> None:
    """Command line.

    checkpoint: deepspeech.pytorch's .ckpt or .pth, a state dict, or .safetensors
    sha256: refuse the checkpoint unless this is its SHA-256
    labels: its labels, if it does not say them (JSON)
    spectrogram: its spectrogram's settings, those that it does not say (JSON)
    weights: safetensors to write
    model: description to write (JSON)
    half: write float16, half the size
    """
    alphabet = read_labels(labels) if labels else None
    with unchanged(lambda: [checkpoint]):
        arrays, description = read(checkpoint, alphabet, spectrogram)
        source = sha256_of(checkpoint)
    notes = description.pop("notes", [])  # not for the weights, which are the same without them
    if sha256 and source != sha256.lower():
        raise UserError(
            f"{checkpoint}: its SHA-256 is {source}, not {sha256} as configured; fetch it again or "
            "correct the model's sha256"
        )
    dtype = np.float16 if half else np.float32
    with np.errstate(over="ignore"):  # what overflows is refused in the next lines
        arrays = {name: np.ascontiguousarray(w, dtype) for name, w in arrays.items()}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise UserError(f"{checkpoint}: tensor {name} holds NaN or infinity")
        if name.endswith("running_var") and values.min() < 0:
            raise UserError(f"{checkpoint}: tensor {name} holds variances below zero")
    with replacing(weights) as temporary:
        temporary.write_bytes(to_safetensors(arrays, description))
    parameters = sum(
        w.size for name, w in arrays.items() if not name.endswith(("running_mean", "running_var"))
    )
    description.update(
        checkpoint=checkpoint.name,
        checkpoint_sha256=source,
        weights_sha256=sha256_of(weights),
        parameters=parameters,
        **({"notes": notes} if notes else {}),
    )
    write_json(model, description)
    for note in notes:
        log.info("%s: %s", checkpoint, note)
    log.info("%d parameters; SHA-256 of the checkpoint: %s", parameters, source)


if __name__ == "__main__":
    cli.run(main)
