"""A checkpoint's weights in the order in which the kernels read them, quantised where asked for.

Batch normalisation is folded into scales and shifts. int8 weights are symmetric, with a scale for
each output (channel or gate); a tensor's `zero` undoes that activations are stored from 0 to 255.
"""

from __future__ import annotations

import numpy as np

from deepspeech2.engines.native import layout
from deepspeech2.engines.native.layout import CHANNELS, LANES, ZERO_POINT, Weights, round_up
from deepspeech2.model.architecture import GATES, KERNELS, Architecture

EPSILON = 1e-5  # of the batch normalisation
# In int8 the first convolution, a hundredth of the operations, costs most of the transcripts.
FIRST = {"int8": "bf16", "bf16": "bf16", "fp32": "fp32"}
# Where a gate's share of the input, and of the state, goes among a panel's vectors.
PLACES = {
    "lstm": [(0, 0), (1, 1), (2, 2), (3, 3)],
    "gru": [(0, 0), (1, 1), (2, 3)],
    "rnn": [(0, 0)],
}
assert {cell: len(places) for cell, places in PLACES.items()} == GATES


def to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest bfloat16, ties to even, as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def quantise(rows: np.ndarray, precision: str, zero: int) -> tuple[np.ndarray, ...]:
    """rows (N, K) float32 as elements of a precision, with the zero and the scale (N,) of each."""
    count = len(rows)
    if precision != "int8":
        elements = to_bf16(rows) if precision == "bf16" else rows.astype(np.float32)
        return elements, np.zeros(count, np.float32), np.ones(count, np.float32)
    scale = np.abs(rows).max(axis=1) / np.float32(127)
    elements = np.rint(rows / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    return elements, -zero * elements.sum(axis=1, dtype=np.int32), scale.astype(np.float32)


def interleave(elements: np.ndarray, precision: str, vectors: int) -> np.ndarray:
    """elements (N, ..., K) as (N / vectors / LANES, ..., K / per, vectors, LANES, per), flat."""
    per = layout.PER_LANE[precision]
    count, inputs = elements.shape[0], elements.shape[-1]
    middle = int(np.prod(elements.shape[1:-1]))
    shaped = elements.reshape(-1, vectors, LANES, middle, inputs // per, per)
    assert len(shaped) * vectors * LANES == count
    return np.ascontiguousarray(shaped.transpose(0, 3, 4, 1, 2, 5)).reshape(-1)


def batch_norm(weights: dict[str, np.ndarray], prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift (n,) float64 of a batch normalisation."""
    part = {k: weights[f"{prefix}.{k}"].astype(np.float64) for k in
            ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    scale = part["weight"] / np.sqrt(part["running_var"] + EPSILON)
    return scale, part["bias"] - part["running_mean"] * scale


def zero_pad(values: np.ndarray, *shape: int) -> np.ndarray:
    """values with zeros behind them on every axis, up to `shape`."""
    return np.pad(values, [(0, to - of) for of, to in zip(values.shape, shape)])


def convolution(weights, index: int, precision: str) -> Weights:
    """The convolution at `index` of the reference's sequence."""
    name = f"conv.seq_module.{index}"
    kernel = weights[f"{name}.weight"]  # (channels, inputs, bins, frames)
    scale, shift = batch_norm(weights, f"conv.seq_module.{index + 1}")
    shift = shift + scale * weights[f"{name}.bias"]
    rows = kernel.transpose(0, 2, 3, 1)  # (channels, bins, frames, inputs)
    rows = rows.reshape(*rows.shape[:2], -1)
    rows = zero_pad(rows, *rows.shape[:2], round_up(rows.shape[2], layout.PER_LANE[precision]))
    elements, zeros, steps = quantise(rows.reshape(len(rows), -1), precision, 0)
    return Weights(
        interleave(elements.reshape(rows.shape), precision, layout.CONV_VECTORS), zeros,
        (steps * scale).astype(np.float32), shift.astype(np.float32),
    )  # fmt: skip


def direction(weights, a: Architecture, number: int, suffix: str, precision: str):
    """Weights of one direction of a recurrent layer for its input and for its state.

    Units are filled up to panels.
    """
    units, first = round_up(a.hidden_size, LANES), number == 0
    w_in, w_state, b_in, b_state = (
        weights[f"rnns.{number}.rnn.{name}_l0{suffix}"]
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    if first:  # the reference has channels before bins
        w_in = w_in.reshape(len(w_in), CHANNELS, -1).transpose(0, 2, 1).reshape(len(w_in), -1)
    inputs = w_in.shape[1] if first else units
    of_input = np.zeros((units // LANES, layout.PANEL_VECTORS, LANES, inputs), np.float32)
    of_state = np.zeros((units // LANES, layout.PANEL_VECTORS, LANES, units), np.float32)
    bias = np.zeros((units // LANES, layout.PANEL_VECTORS, LANES), np.float32)
    for gate, (to_in, to_state) in enumerate(PLACES[a.rnn_type]):
        rows = slice(gate * a.hidden_size, (gate + 1) * a.hidden_size)
        of_input[:, to_in] = zero_pad(w_in[rows], units, inputs).reshape(-1, LANES, inputs)
        of_state[:, to_state] = zero_pad(w_state[rows], units, units).reshape(-1, LANES, units)
        bias[:, to_in] += zero_pad(b_in[rows], units).reshape(-1, LANES)
        bias[:, to_state] += zero_pad(b_state[rows], units).reshape(-1, LANES)

    def packed(gates: np.ndarray, zero: int, shift: np.ndarray) -> Weights:
        elements, zeros, scale = quantise(gates.reshape(-1, gates.shape[-1]), precision, zero)
        return Weights(interleave(elements, precision, layout.PANEL_VECTORS), zeros, scale, shift)

    zero = 0 if first else ZERO_POINT  # what comes from the convolutions has no sign
    nothing = np.zeros(0, np.float32)
    return packed(of_input, zero, bias.reshape(-1)), packed(of_state, ZERO_POINT, nothing)


def pack(
    weights: dict[str, np.ndarray], architecture: Architecture, precision: str
) -> dict[str, np.ndarray]:
    """All arrays of a network by name: that of its record (see `unpack`), and of the field."""
    a = architecture
    units = round_up(a.hidden_size, LANES)
    parts = {
        "conv.0": convolution(weights, 0, FIRST[precision]),
        "conv.1": convolution(weights, 3, precision),
    }
    for number in range(a.hidden_layers):
        for side, suffix in enumerate(("", "_reverse")[: 1 + a.bidirectional]):
            made = direction(weights, a, number, suffix, precision)
            parts |= zip((f"rnn.{number}.{side}.input", f"rnn.{number}.{side}.state"), made)
        if number:
            norm = batch_norm(weights, f"rnns.{number}.batch_norm.module")
            parts[f"norm.{number}"] = layout.Norm(
                *(zero_pad(x, units).astype(np.float32) for x in norm)
            )
    context = np.zeros((0, units), np.float32)
    if not a.bidirectional:
        context = weights["lookahead.0.conv.weight"][:, 0].T
        context = zero_pad(context, len(context), units).astype(np.float32)
    scale, shift = batch_norm(weights, "fc.0.module.0")
    linear = weights["fc.0.module.1.weight"].astype(np.float64)
    classes = round_up(a.classes, CHANNELS)
    scaled = zero_pad(linear * scale, classes, units).astype(np.float32)
    parts["head"] = layout.Head(
        context,
        interleave(scaled, "fp32", layout.CONV_VECTORS),
        zero_pad(linear @ shift, classes).astype(np.float32),
    )
    return {f"{part}.{field}": np.ascontiguousarray(value) for part, record in parts.items()
            for field, value in record._asdict().items()}  # fmt: skip


def _lost(layer: Weights, vectors: int, bins: int, offset: int) -> np.ndarray:
    """What products lack, of whose activations of int8 `offset` is taken: (bins, N)."""
    if layer.weights.dtype != np.int8 or not offset:
        return np.zeros((bins, len(layer.zero)), layer.zero.dtype)
    panels = len(layer.zero) // vectors // LANES
    per_bin = layer.weights.reshape(panels, bins, -1, vectors, LANES, layout.PER_LANE["int8"])
    sums = per_bin.sum(axis=(2, 5), dtype=np.int32)  # (panels, bins, vectors, LANES)
    return offset * sums.transpose(1, 0, 2, 3).reshape(bins, -1)


def unpack(arrays: dict[str, np.ndarray], offset: int) -> dict[str, tuple]:
    """Records: conv.{0, 1}, rnn.{layer}.{direction}.{input, state}, norm.{layer}, head.

    `offset` is what a tile takes from activations of int8.
    """
    fields: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        part, _, field = name.rpartition(".")
        fields.setdefault(part, {})[field] = array
    kinds = {"conv": Weights, "rnn": Weights, "norm": layout.Norm, "head": layout.Head}
    parts = {part: kinds[part.split(".")[0]](**found) for part, found in fields.items()}
    for part, record in parts.items():
        if part.startswith("conv."):  # whose zero is 0: what comes in has no sign
            lost = _lost(record, layout.CONV_VECTORS, KERNELS[int(part[-1])][0], offset)
            below = np.cumsum(lost, axis=0, dtype=lost.dtype)
            parts[part] = record._replace(zero=np.concatenate([np.zeros_like(below[:1]), below]))
        elif part.startswith("rnn."):
            (lost,) = _lost(record, layout.PANEL_VECTORS, 1, offset)
            parts[part] = record._replace(zero=record.zero + lost)
    return parts
