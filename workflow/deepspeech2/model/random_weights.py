"""Make a checkpoint with random weights, to measure speed where there are no others.

The architecture decides the speed; what such a network writes means nothing.
"""

from __future__ import annotations

from typing import Literal

import torch

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.corpus.labels import read as read_labels
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.files import replacing
from deepspeech2.model.architecture import GATES, Architecture
from deepspeech2.model.checkpoint import to_safetensors
from deepspeech2.model.network import DeepSpeech2


def main(
    labels: Input,
    checkpoint: Output,
    rnn_type: Literal[tuple(GATES)] = "lstm",
    hidden_size: int = 1024,
    hidden_layers: int = 5,
    lookahead_context: int = 0,
    seed: int = 0,
) -> None:
    """Command line.

    labels: the characters that it writes (JSON)
    checkpoint: safetensors to write
    rnn_type: kind of the recurrent layers
    hidden_size: units of each recurrent layer and direction
    hidden_layers: recurrent layers
    lookahead_context: frames that a network of one direction looks ahead; 0 is both directions
    seed: of the random numbers
    """
    alphabet, spectrogram = read_labels(labels), Spectrogram()
    architecture = Architecture(
        spectrogram.bins,
        len(alphabet),
        rnn_type,
        hidden_size,
        hidden_layers,
        not lookahead_context,
        lookahead_context,
    )
    torch.manual_seed(seed)
    state = DeepSpeech2(architecture).state_dict()
    description = {
        "labels": alphabet,
        "spectrogram": spectrogram._asdict(),
        "architecture": architecture._asdict(),
    }
    with replacing(checkpoint) as temporary:
        temporary.write_bytes(to_safetensors(state, description))
    log.info("%d tensors from seed %d", len(state), seed)


if __name__ == "__main__":
    cli.run(main)
