"""Make a checkpoint with random weights: for speed where no weights are to be had.

The architecture is what decides the speed; what such a network writes means nothing.
"""

from __future__ import annotations

import json

import safetensors.torch
import torch

from deepspeech2 import labels, stage
from deepspeech2.architecture import GATES, Architecture, Spectrogram
from deepspeech2.checkpoint import COUNTER, METADATA_KEY
from deepspeech2.files import replacing
from deepspeech2.network import DeepSpeech2
from deepspeech2.stage import log


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--labels", required=True, help="the characters that it writes (JSON)")
    parser.add_argument("--rnn-type", choices=GATES, default="lstm")
    parser.add_argument("--hidden-size", type=int, default=1024)
    parser.add_argument("--hidden-layers", type=int, default=5)
    parser.add_argument(
        "--lookahead-context", type=int, default=0, help="of one direction; 0: both directions"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", required=True, help="safetensors to write")
    args = stage.parse(parser, argv)

    alphabet = labels.read(args.labels)
    spectrogram = Spectrogram()
    architecture = Architecture(
        spectrogram.bins,
        len(alphabet),
        args.rnn_type,
        args.hidden_size,
        args.hidden_layers,
        not args.lookahead_context,
        args.lookahead_context,
    )
    torch.manual_seed(args.seed)
    state = DeepSpeech2(architecture).state_dict()
    weights = {name: value for name, value in state.items() if not name.endswith(COUNTER)}
    description = {
        "labels": alphabet,
        "spectrogram": spectrogram._asdict(),
        "architecture": architecture._asdict(),
    }
    with replacing(args.checkpoint) as temporary:
        metadata = {METADATA_KEY: json.dumps(description, ensure_ascii=False)}
        temporary.write_bytes(safetensors.torch.save(weights, metadata))
    log.info("%d tensors from seed %d", len(weights), args.seed)


if __name__ == "__main__":
    stage.run(main)
