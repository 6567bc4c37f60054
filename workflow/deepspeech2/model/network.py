"""The DeepSpeech2 network in its two forms, which have the same weights and compute the same.

- packed: the reference's form. Recurrent layers run on packed sequences, so lengths must be in
  descending order, and the output is as long as the longest.
- static: order-free. No packed sequences: the backward direction of a layer runs on input that is
  reversed within each length by `gather`, and masks are comparisons with the lengths. Every shape
  follows from the input's, which is what compilers for fixed shapes need.

In both, the frames past an utterance's end are set to zero after every layer of the convolutions,
with tensor operations, so that a trace masks like the eager network at any length. Long utterances
are convolved in pieces; compilers for fixed shapes get a form without that branch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from deepspeech2.files import read_sealed, require_unaltered
from deepspeech2.model.architecture import (
    CHANNELS,
    KERNELS,
    METADATA_KEY,
    PADDINGS,
    STRIDES,
    Architecture,
)

FORMS = ("static", "packed")
WHOLE = "_whole"
EXPORTS = (*FORMS, *(form + WHOLE for form in FORMS))
PIECE = 1024  # frames that a convolution makes at a time, of 20 s of speech
RNNS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh}
CEILING = 20.0  # upper bound of the clipped rectifier
# A warning on GPUs. Weights that were loaded lie apart, and cuDNN copies them together in every
# pass. That takes less than a millisecond, and torch has no public function that spares it.
SCATTERED = "RNN module weights are not part of single contiguous chunk"


class Holder(nn.Module):
    """A module that only names its parts, so that state dicts match the reference's names."""

    def __init__(self, **parts: nn.Module):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class DeepSpeech2(nn.Module):
    """The network. Call it with (B, 1, bins, T) float32 and (B,) int32 lengths in frames.

    Returns probabilities (B, T', classes) float32 and output lengths (B,) int32. T' is that of T
    in the static form and of the longest length in the packed form. `dropout` is the share of
    each recurrent layer's and the last layer's input that training leaves out. With `_whole` behind
    it a form has no branch and no loop for long utterances.
    """

    def __init__(self, architecture: Architecture, form: str = "static", dropout: float = 0.0):
        super().__init__()
        if form not in EXPORTS:
            raise ValueError(f"form must be one of {EXPORTS}, not {form!r}")
        form, self.whole = form.removesuffix(WHOLE), form.endswith(WHOLE)
        a = self.architecture = architecture
        self.form, self.dropout = form, dropout
        layers = []
        for inputs, kernel, stride, padding in zip((1, CHANNELS), KERNELS, STRIDES, PADDINGS):
            layers += [
                nn.Conv2d(inputs, CHANNELS, kernel, stride, padding),
                nn.BatchNorm2d(CHANNELS),
                nn.Hardtanh(0, CEILING),
            ]
        self.conv = Holder(seq_module=nn.Sequential(*layers))
        self.rnns = nn.ModuleList()
        for layer in range(a.hidden_layers):
            inputs = a.hidden_size if layer else a.rnn_input
            parts = {"rnn": RNNS[a.rnn_type](inputs, a.hidden_size, bidirectional=a.bidirectional)}
            if layer:
                parts["batch_norm"] = Holder(module=nn.BatchNorm1d(inputs))
            self.rnns.append(Holder(**parts))
        if not a.bidirectional:
            size = a.hidden_size
            conv = nn.Conv1d(size, size, a.lookahead_context, groups=size, bias=False)
            self.lookahead = nn.ModuleList([Holder(conv=conv)])
        head = [nn.BatchNorm1d(a.hidden_size), nn.Linear(a.hidden_size, a.classes, bias=False)]
        self.fc = nn.ModuleList([Holder(module=nn.Sequential(*head))])

    def forward(self, spectrograms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = self.logits(spectrograms, lengths)
        return torch.softmax(x, dim=-1).transpose(0, 1), lengths

    def logits(self, spectrograms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the softmax is taken of, (T', B, classes), and the output lengths (B,) int32."""
        lengths = torch.div(lengths - 1, 2, rounding_mode="floor") + 1
        x = spectrograms
        keep = None
        for layer in self.conv.seq_module:
            x = self._convolve(layer, x) if isinstance(layer, nn.Conv2d) else layer(x)
            if keep is None:  # the first convolution halves the frames; later layers keep them
                frames = torch.arange(x.size(3), device=x.device, dtype=lengths.dtype)
                keep = frames[None, :] < lengths[:, None]  # (B, T')
            x = x * keep[:, None, None, :].to(x.dtype)
        x = x.flatten(1, 2).permute(2, 0, 1)  # (T', B, features)
        if self.form == "packed":
            x = self._packed_layers(x, lengths)
        else:
            x = self._static_layers(x, lengths, frames, keep)
        if not self.architecture.bidirectional:
            x = self._look_ahead(x)
        return self.classes(x), lengths

    def _convolve(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        if self.whole:
            return conv(x)
        stride, padding = list(conv.stride), list(conv.padding)
        return _in_pieces(x, conv.weight, conv.bias, stride, padding, PIECE)

    def classes(self, x: Tensor) -> Tensor:
        """What the softmax is taken of, for the last layer's input (T', B, units)."""
        norm, linear = self.fc[0].module
        return linear(self._drop(over_features(norm, x)))

    def _packed_layers(self, x: Tensor, lengths: Tensor) -> Tensor:
        for holder in self.rnns:
            if hasattr(holder, "batch_norm"):
                x = over_features(holder.batch_norm.module, x)
            packed = nn.utils.rnn.pack_padded_sequence(self._drop(x), lengths.long().cpu())
            # Where none is given, torch 2.0 makes one, whose batch size a trace takes for fixed.
            state = self._zero_state(x, 1 + self.architecture.bidirectional)
            packed, _ = holder.rnn(packed, state)
            x, _ = nn.utils.rnn.pad_packed_sequence(packed)
            if self.architecture.bidirectional:
                x = self._sum_directions(x)
        return x

    def _drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.dropout) if self.training and self.dropout else x

    def _sum_directions(self, x: Tensor) -> Tensor:
        forward, backward = x.split(self.architecture.hidden_size, dim=2)
        return forward + backward

    def _static_layers(self, x: Tensor, lengths: Tensor, frames: Tensor, keep: Tensor) -> Tensor:
        keep = keep.t()[:, :, None].to(x.dtype)  # (T', B, 1)
        reverse = lengths[:, None] - 1 - frames[None, :]
        reverse = torch.where(reverse >= 0, reverse, frames[None, :]).long().t()[:, :, None]
        for holder in self.rnns:
            if hasattr(holder, "batch_norm"):
                x = over_features(holder.batch_norm.module, x)
            x = self._drop(x)
            total = self._one_direction(holder.rnn, x, "")
            if self.architecture.bidirectional:
                reversed_x = torch.gather(x, 0, reverse.expand(-1, -1, x.size(2)))
                out = self._one_direction(holder.rnn, reversed_x, "_reverse")
                total = total + torch.gather(out, 0, reverse.expand(-1, -1, out.size(2)))
            x = total * keep
        return x

    def _one_direction(self, rnn: nn.RNNBase, x: Tensor, direction: str) -> Tensor:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        weights = [getattr(rnn, name + direction) for name in names]
        states = self._zero_state(x, 1)
        cell = CELLS[self.architecture.rnn_type]
        # has_biases, num_layers, dropout, train (cuDNN has no gradients without), bidirectional,
        # batch_first
        return cell(x, states, weights, True, 1, 0.0, self.training, False, False)[0]

    def _zero_state(self, x: Tensor, directions: int) -> Any:
        """The state before the first frame of x (T', B, features), of a layer's cells."""
        size = (directions, x.size(1), self.architecture.hidden_size)
        state = torch.zeros(size, dtype=x.dtype, device=x.device)
        return (state, state) if self.architecture.rnn_type == "lstm" else state

    def _look_ahead(self, x: Tensor) -> Tensor:
        context = self.architecture.lookahead_context
        x = nn.functional.pad(x.permute(1, 2, 0), (0, context - 1))
        x = self.lookahead[0].conv(x)
        return nn.functional.hardtanh(x.permute(2, 0, 1), 0.0, CEILING)


@torch.jit.script
def _in_pieces(
    x: Tensor, weight: Tensor, bias: Tensor, stride: list[int], padding: list[int], most: int
) -> Tensor:
    """A convolution of x (B, 1, bins, T) that makes up to `most` frames at a time.

    oneDNN may compute with a matrix of all that the kernel meets. Where that is more than 1 GiB,
    which 140 s of speech can be, it takes a loop instead that needs 50 times as long.
    """
    reach = weight.size(3)
    if (x.size(3) + 2 * padding[1] - reach) // stride[1] < most:
        return torch.conv2d(x, weight, bias, stride, padding)
    x = torch.constant_pad_nd(x, [padding[1], padding[1]])
    pieces: list[Tensor] = []
    for first in range(0, (x.size(3) - reach) // stride[1] + 1, most):
        begin = first * stride[1]
        part = x[:, :, :, begin : begin + (most - 1) * stride[1] + reach]
        pieces.append(torch.conv2d(part, weight, bias, stride, [padding[0], 0]))
    return torch.cat(pieces, 3)


def over_features(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch normalisation of (T', B, features) over its last axis."""
    return norm(x.flatten(0, 1)).view(x.size(0), x.size(1), x.size(2))


class HalfPrecision(DeepSpeech2):
    """The network in float16 or bfloat16, with float32 in and out.

    Batch normalisation, the last layer and the softmax stay float32: they cost next to nothing, and
    a score near 20 would be rounded to 1/16 in bfloat16.
    """

    def to_precision(self, dtype: torch.dtype) -> HalfPrecision:
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.float()
        self.fc.float()
        return self

    def forward(self, spectrograms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(spectrograms.to(self.conv.seq_module[0].weight.dtype), lengths)

    def classes(self, x: Tensor) -> Tensor:
        return super().classes(x.float())


def load(weights: str | Path, model: str | Path, form: str) -> DeepSpeech2:
    """The network of a model (safetensors and description), ready for inference."""
    description = read_sealed(model)
    require_unaltered(weights, description["weights_sha256"], model)
    return _filled(DeepSpeech2(Architecture(**description["architecture"]), form), weights)


def load_alone(weights: str | Path, form: str, dtype: torch.dtype = torch.float32) -> DeepSpeech2:
    """The network of a model by its safetensors alone, whose metadata describe it."""
    with safetensors.safe_open(str(weights), framework="pt") as file:
        description = json.loads(file.metadata()[METADATA_KEY])
    architecture = Architecture(**description["architecture"])
    if dtype == torch.float32:
        return _filled(DeepSpeech2(architecture, form), weights)
    return _filled(HalfPrecision(architecture, form), weights).to_precision(dtype)


def _filled(network: DeepSpeech2, weights: str | Path) -> Any:
    state: dict[str, Tensor] = safetensors.torch.load_file(str(weights))
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    try:
        network.load_state_dict({**counters, **state})
    except RuntimeError as error:  # other shapes than those of the description
        raise ValueError(error) from None
    return network.eval().requires_grad_(False)
