"""A checkpoint's weights in the order in which the kernels read them, quantised where asked for.

Batch normalisation is folded into scales and shifts. int8 weights are symmetric, with a scale for
each output (channel or gate); a tensor's `zero` undoes that activations are stored from 0 to 255.
"""

from __future__ import annotations

import numpy as np

from deepspeech2.architecture import CHANNELS, GATES, KERNELS, Architecture

EPSILON = 1e-5  # of the batch normalisation
LANES = 16
PER_LANE = {"int8": 4, "bf16": 2, "fp32": 1}
# In int8 the first convolution, a hundredth of the operations, costs most of the transcripts.
FIRST = {"int8": "bf16", "bf16": "bf16", "fp32": "fp32"}
ZERO = 128  # what stands for 0.0 where activations have both signs
# Where a gate's share of the input, and of the state, goes among a panel's four vectors.
PLACES = {
    "lstm": [(0, 0), (1, 1), (2, 2), (3, 3)],
    "gru": [(0, 0), (1, 1), (2, 3)],
    "rnn": [(0, 0)],
}


def up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple


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


def lanes(elements: np.ndarray, precision: str, vectors: int) -> np.ndarray:
    """elements (N, ..., K) as (N / vectors / LANES, ..., K / per, vectors, LANES, per), flat."""
    per = PER_LANE[precision]
    count, inputs = elements.shape[0], elements.shape[-1]
    middle = int(np.prod(elements.shape[1:-1]))
    shaped = elements.reshape(-1, vectors, LANES, middle, inputs // per, per)
    assert len(shaped) * vectors * LANES == count
    return np.ascontiguousarray(shaped.transpose(0, 3, 4, 1, 2, 5)).reshape(-1)


def norm(weights: dict[str, np.ndarray], prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift (n,) float64 of a batch normalisation."""
    part = {k: weights[f"{prefix}.{k}"].astype(np.float64) for k in
            ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    scale = part["weight"] / np.sqrt(part["running_var"] + EPSILON)
    return scale, part["bias"] - part["running_mean"] * scale


def padded(values: np.ndarray, *shape: int) -> np.ndarray:
    """values with zeros behind them on every axis, up to `shape`."""
    return np.pad(values, [(0, to - of) for of, to in zip(values.shape, shape)])


def convolution(weights, index: int, precision: str) -> dict[str, np.ndarray]:
    """The kernels' arrays of the convolution at `index` of the reference's sequence."""
    name = f"conv.seq_module.{index}"
    kernel = weights[f"{name}.weight"]  # (channels, inputs, bins, frames)
    scale, shift = norm(weights, f"conv.seq_module.{index + 1}")
    shift = shift + scale * weights[f"{name}.bias"]
    rows = kernel.transpose(0, 2, 3, 1)  # (channels, bins, frames, inputs)
    rows = rows.reshape(*rows.shape[:2], -1)
    rows = padded(rows, *rows.shape[:2], up(rows.shape[2], PER_LANE[precision]))
    elements, zeros, steps = quantise(rows.reshape(len(rows), -1), precision, 0)
    return {
        "weights": lanes(elements.reshape(rows.shape), precision, CHANNELS // LANES),
        "zero": zeros,
        "scale": (steps * scale).astype(np.float32),
        "shift": shift.astype(np.float32),
    }


def direction(weights, architecture: Architecture, number: int, suffix: str, precision: str):
    """The kernels' arrays of one direction of a recurrent layer, units filled up to panels."""
    a, prefix = architecture, f"rnns.{number}.rnn"
    units, first = up(a.hidden_size, LANES), number == 0
    found = {k: weights[f"{prefix}.{k}_l0{suffix}"] for k in
             ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
    w_in = found["weight_ih"]
    if first:  # the reference has channels before bins
        w_in = w_in.reshape(len(w_in), CHANNELS, -1).transpose(0, 2, 1).reshape(len(w_in), -1)
    inputs = w_in.shape[1] if first else units
    gates_in = np.zeros((units // LANES, 4, LANES, inputs), np.float32)
    gates_rec = np.zeros((units // LANES, 4, LANES, units), np.float32)
    bias = np.zeros((units // LANES, 4, LANES), np.float32)
    for gate, (to_in, to_rec) in enumerate(PLACES[a.rnn_type]):
        rows = slice(gate * a.hidden_size, (gate + 1) * a.hidden_size)
        gates_in[:, to_in] = padded(w_in[rows], units, inputs).reshape(-1, LANES, inputs)
        gates_rec[:, to_rec] = padded(found["weight_hh"][rows], units, units).reshape(
            -1, LANES, units
        )
        bias[:, to_in] += padded(found["bias_ih"][rows], units).reshape(-1, LANES)
        bias[:, to_rec] += padded(found["bias_hh"][rows], units).reshape(-1, LANES)
    made = {"bias": bias.reshape(-1)}
    for name, gates, zero in (("in", gates_in, 0 if first else ZERO), ("rec", gates_rec, ZERO)):
        elements, zeros, scale = quantise(gates.reshape(-1, gates.shape[-1]), precision, zero)
        made[f"w_{name}"] = lanes(elements, precision, 4)
        made[f"{name}_zero"], made[f"{name}_scale"] = zeros, scale
    return made


def pack(weights: dict[str, np.ndarray], architecture: Architecture, precision: str):
    """All arrays of a network by name: conv.0.*, conv.1.*, rnn.{layer}.{direction}.*, head.*."""
    a = architecture
    units = up(a.hidden_size, LANES)
    parts = {
        "conv.0": convolution(weights, 0, FIRST[precision]),
        "conv.1": convolution(weights, 3, precision),
    }
    for number in range(a.hidden_layers):
        for side, suffix in enumerate(("", "_reverse")[: 1 + a.bidirectional]):
            parts[f"rnn.{number}.{side}"] = direction(weights, a, number, suffix, precision)
        if number:
            scale, shift = norm(weights, f"rnns.{number}.batch_norm.module")
            parts[f"between.{number}"] = {
                "scale": padded(scale, units).astype(np.float32),
                "shift": padded(shift, units).astype(np.float32),
            }
    if not a.bidirectional:
        context = weights["lookahead.0.conv.weight"][:, 0].T
        parts["look_ahead"] = {"weights": padded(context, len(context), units).astype(np.float32)}
    scale, shift = norm(weights, "fc.0.module.0")
    linear = weights["fc.0.module.1.weight"].astype(np.float64)
    classes = up(a.classes, 2 * LANES)
    parts["head"] = {
        "weights": lanes(padded(linear * scale, classes, units).astype(np.float32), "fp32", 2),
        "bias": padded(linear @ shift, classes).astype(np.float32),
    }
    return {f"{part}.{key}": np.ascontiguousarray(value) for part, found in parts.items()
            for key, value in found.items()}  # fmt: skip


assert set(PLACES) == set(GATES) and KERNELS[0][1] == KERNELS[1][1] == 11
