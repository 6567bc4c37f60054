"""Export a model as TorchScript, traced, in the static or the packed form.

The trace is exact at any batch size, length and width, not only at those that it was traced with,
and the same weights give the same bytes.
"""

from __future__ import annotations

from typing import Literal

import torch

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.files import sha256, write_json
from deepspeech2.model import network
from deepspeech2.model.trace import save, trace


def main(
    weights: Input,
    model: Input,
    torchscript: Output,
    index: Output,
    form: Literal[network.EXPORTS] = "static",
) -> None:
    """Command line.

    weights: the model's safetensors
    model: the model's description (JSON)
    torchscript: TorchScript file to write
    index: its SHA-256 and versions, to write (JSON)
    form: static is order-free, packed is the reference's; _whole: without a branch for long inputs
    """
    save(trace(network.load(weights, model, form)), torchscript)
    write_json(index, {"form": form, "sha256": sha256(torchscript), "torch": torch.__version__})
    log.info("traced the %s form with torch %s", form, torch.__version__)


if __name__ == "__main__":
    cli.run(main)
