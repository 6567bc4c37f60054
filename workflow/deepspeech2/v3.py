"""Write a model as a checkpoint in the style of deepspeech.pytorch V3: a pickled Lightning dict.

It has V3's `state_dict`, names and shapes, and its `hyper_parameters` as plain dicts, with the
class of the recurrent layers as V3 keeps it. Readers that need V3's own settings classes, as
deepspeech.pytorch itself does, must wrap `model_cfg` in them.
"""

from __future__ import annotations

import numpy as np
import torch

from deepspeech2 import checkpoint, stage
from deepspeech2.architecture import Architecture
from deepspeech2.files import replacing
from deepspeech2.network import RNNS
from deepspeech2.stage import log


def content(weights: dict[str, np.ndarray], description: dict) -> dict:
    """What is pickled, from weights by name and their description."""
    architecture = Architecture(**description["architecture"])
    state = {}
    for name, values in weights.items():
        state[name] = torch.from_numpy(np.array(values, np.float32))
        if name.endswith("running_var"):  # V3 has BatchNorm's counter behind it
            state[name.removesuffix("running_var") + checkpoint.COUNTER[1:]] = torch.tensor(0)
    model = {
        "rnn_type": RNNS[architecture.rnn_type],
        "hidden_size": architecture.hidden_size,
        "hidden_layers": architecture.hidden_layers,
    }
    if not architecture.bidirectional:
        model["lookahead_context"] = architecture.lookahead_context
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "1.1.0",
        "state_dict": state,
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "labels": description["labels"],
            "model_cfg": model,
            "precision": 32,
            "spect_cfg": description["spectrogram"],
        },
    }


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="our .safetensors, or a V3 .ckpt")
    parser.add_argument("--output", required=True, help="checkpoint to write (.ckpt)")
    args = stage.parse(parser, argv)

    weights, description = checkpoint.read(args.checkpoint)
    with replacing(args.output) as temporary:
        torch.save(content(weights, description), temporary)
    log.info("%d tensors", len(weights))


if __name__ == "__main__":
    stage.run(main)
