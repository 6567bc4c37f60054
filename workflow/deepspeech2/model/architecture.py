"""The architecture of a network, and the shapes of its tensors.

The network has two convolutions over (bins, frames), a stack of recurrent layers (bidirectional
ones sum their directions), a lookahead convolution if they are unidirectional, and a linear layer
over the labels. Its tensors have the names of deepspeech.pytorch V3.0's state dict.
"""

from __future__ import annotations

from typing import Any, NamedTuple

METADATA_KEY = "deepspeech2"  # of the description in our safetensors
CHANNELS = 32
KERNELS = ((41, 11), (21, 11))  # bins, frames
STRIDES = ((2, 2), (2, 1))
PADDINGS = ((20, 5), (10, 5))
UNPADDED = ((0, 0), (0, 0))  # deepspeech.pytorch V1's, which is another network
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class Architecture(NamedTuple):
    """Settings of a network. `lookahead_context` is 0 where `bidirectional`."""

    bins: int
    classes: int
    rnn_type: str
    hidden_size: int
    hidden_layers: int
    bidirectional: bool
    lookahead_context: int = 0

    @property
    def rnn_input(self) -> int:
        """Width of the first recurrent layer's input (1312 for 161 bins)."""
        return rnn_input(self.bins)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the state dict but the counters `num_batches_tracked`."""
        shapes: dict[str, tuple[int, ...]] = {}

        def norm(prefix: str, size: int) -> None:
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}.{part}"] = (size,)

        for index, inputs, kernel in ((0, 1, KERNELS[0]), (3, CHANNELS, KERNELS[1])):
            shapes[f"conv.seq_module.{index}.weight"] = (CHANNELS, inputs, *kernel)
            shapes[f"conv.seq_module.{index}.bias"] = (CHANNELS,)
            norm(f"conv.seq_module.{index + 1}", CHANNELS)
        rows = GATES[self.rnn_type] * self.hidden_size
        for layer in range(self.hidden_layers):
            inputs = self.hidden_size if layer else self.rnn_input
            if layer:
                norm(f"rnns.{layer}.batch_norm.module", inputs)
            for direction in ("", "_reverse")[: 1 + self.bidirectional]:
                prefix = f"rnns.{layer}.rnn"
                shapes[f"{prefix}.weight_ih_l0{direction}"] = (rows, inputs)
                shapes[f"{prefix}.weight_hh_l0{direction}"] = (rows, self.hidden_size)
                shapes[f"{prefix}.bias_ih_l0{direction}"] = (rows,)
                shapes[f"{prefix}.bias_hh_l0{direction}"] = (rows,)
        if not self.bidirectional:
            shapes["lookahead.0.conv.weight"] = (self.hidden_size, 1, self.lookahead_context)
        norm("fc.0.module.0", self.hidden_size)
        shapes["fc.0.module.1.weight"] = (self.classes, self.hidden_size)
        return shapes


def output_frames(frames: int) -> int:
    """Frames of the output for so many frames of input: the first convolution halves them."""
    return (frames - 1) // 2 + 1


def rnn_input(bins: int, paddings: tuple = PADDINGS) -> int:
    """Features of a frame that the convolutions make of so many bins, with so much padding."""
    for kernel, stride, padding in zip(KERNELS, STRIDES, paddings):
        bins = (bins + 2 * padding[0] - kernel[0]) // stride[0] + 1
    return CHANNELS * bins


def of_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The settings of an Architecture, but the bins, that the shapes of a network's tensors tell.

    Raises KeyError, IndexError, TypeError or ValueError for those of something else.
    """
    rows, size = shapes["rnns.0.rnn.weight_hh_l0"]
    bidirectional = "rnns.0.rnn.weight_hh_l0_reverse" in shapes
    return {
        "classes": shapes["fc.0.module.1.weight"][0],
        "rnn_type": {gates * size: name for name, gates in GATES.items()}[rows],
        "hidden_size": size,
        "hidden_layers": sum(name.endswith(".rnn.weight_hh_l0") for name in shapes),
        "bidirectional": bidirectional,
        "lookahead_context": 0 if bidirectional else shapes["lookahead.0.conv.weight"][2],
    }
