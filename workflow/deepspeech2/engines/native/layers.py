"""The recurrent layers of the backend `native`, what is between them, and the last layer.

Batches, weights and work spaces are those of layout.py; `members` are utterances of the batch;
`spent` is as for `kernels.lap`.
"""

from __future__ import annotations

import numpy as np

from deepspeech2.engines.native import kernels, layout
from deepspeech2.engines.native.kernels import inlined, jit, lap, magnitude, store
from deepspeech2.engines.native.layout import LANES, PANEL, PANEL_VECTORS, VECTOR, ZERO_POINT
from deepspeech2.engines.native.tiles import fetch, most_rows
from deepspeech2.engines.native.vectors import advance, affine, exponential


@jit
def run_direction(cell, backward, members, batch, x, of_input, of_state, space, spent):
    """One direction (0 or 1) of a recurrent layer: batch.outputs[backward] of `members`.

    `members` are in order of length, longest first; `cell` is of layout.CELLS; x (R, K) with
    batch.input_scale is the input; `space` is a layout.LayerSpace.
    """
    out = batch.outputs[backward]
    silence = np.zeros(out.shape[1], np.float32)
    space.memory[:] = 0
    for i in range(len(members)):
        space.state_scale[i] = store(silence, space.state[i], ZERO_POINT, np.float32(0))
    begin = 0
    while begin < batch.frames[members[0]]:
        steps, rows = _plan(backward, begin, members, batch, space)
        _multiply_input(rows, x, batch.input_scale, of_input, space, spent)
        _recur(cell, backward, begin, steps, silence, out, of_state, space, spent)
        begin += steps


@inlined
def _plan(backward, begin, members, batch, space):
    """Writes space.rows and space.active of as many steps as fit, from step `begin` on.

    Returns how many steps, and rows, these are.
    """
    rows, step, active = 0, begin, len(members)
    while step < batch.frames[members[0]]:
        while batch.frames[members[active - 1]] <= step:
            active -= 1
        if rows and rows + active > layout.CHUNK:
            break
        for i in range(active):
            b = members[i]
            frame = batch.frames[b] - 1 - step if backward else step
            space.rows[rows + i] = batch.starts[b] + frame
        space.active[step - begin] = active
        rows += active
        step += 1
    return step - begin, rows


@inlined
def _multiply(first, last, a, layer, p, tile, space):
    """space.sums of some rows of a (..., K) with panel p.

    Of the next panel, which comes from the third cache, each tile fetches a part.
    """
    stride = a.shape[1] * a.itemsize
    weights, panel = layer.weights.ctypes.data, layer.weights.nbytes // len(space.gates)
    groups = panel // (PANEL_VECTORS * VECTOR)
    upcoming = weights + (p + 1) % len(space.gates) * panel + tile * groups * VECTOR
    kernels.multiply_panel(
        last - first, a, space.sums.ctypes.data, a.ctypes.data + first * stride, stride,
        weights + p * panel, groups, upcoming,
    )  # fmt: skip


@inlined
def _multiply_input(rows, x, x_scale, layer, space, spent):
    """Writes space.gates of the planned rows: the input's share of the gates, with the biases."""
    since = kernels.started(spent)
    for q in range(rows):
        for k in range(x.shape[1]):
            space.gathered[q, k] = x[space.rows[q], k]
    most = most_rows(PANEL_VECTORS, x)
    tiles = (rows + most - 1) // most
    for p in range(len(space.gates)):
        base = 4 * p * PANEL
        for tile in range(tiles):
            first, last = rows * tile // tiles, rows * (tile + 1) // tiles
            _multiply(first, last, space.gathered, layer, p, tile, space)
            since = lap(spent, kernels.INPUT_PRODUCTS, since)
            for q in range(first, last):
                affine(
                    PANEL_VECTORS, 0, x, space.sums.ctypes.data + 4 * (q - first) * PANEL,
                    layer.zero.ctypes.data + base, layer.scale.ctypes.data + base,
                    x_scale[space.rows[q]], layer.shift.ctypes.data + base,
                    space.gates[p, q].ctypes.data,
                )  # fmt: skip
            since = lap(spent, kernels.THEIR_SCALING, since)


@inlined
def _recur(cell, backward, begin, steps, silence, out, layer, space, spent):
    """The planned steps, of which `begin` is the first: writes their rows of out (R, units)."""
    since = kernels.started(spent)
    state, done, most = space.state, 0, most_rows(PANEL_VECTORS, space.state)
    for step in range(begin, begin + steps):
        active = space.active[step - begin]
        tiles = (active + most - 1) // most
        for p in range(len(space.gates)):
            base, unit = 4 * p * PANEL, 4 * p * LANES
            for tile in range(tiles):
                first, last = active * tile // tiles, active * (tile + 1) // tiles
                for i in range(first, last):
                    fetch(space.gates[p, done + i].ctypes.data, PANEL_VECTORS, 0)
                    fetch(space.memory[p, i].ctypes.data, 1, 1)
                    fetch(out[space.rows[done + i]].ctypes.data + unit, 1, 1)
                _multiply(first, last, state, layer, p, tile, space)
                since = lap(spent, kernels.RECURRENT_PRODUCTS, since)
                for i in range(first, last):
                    row = space.rows[done + i]
                    before = silence.ctypes.data
                    if step:
                        before = out[row + 1 if backward else row - 1].ctypes.data + unit
                    advance(
                        cell, state, space.gates[p, done + i].ctypes.data,
                        space.sums.ctypes.data + 4 * (i - first) * PANEL,
                        layer.zero.ctypes.data + base, layer.scale.ctypes.data + base,
                        space.state_scale[i], space.memory[p, i].ctypes.data, before,
                        out[row].ctypes.data + unit,
                    )  # fmt: skip
                since = lap(spent, kernels.CELLS, since)
        for i in range(active):
            values = out[space.rows[done + i]]
            space.state_scale[i] = store(values, state[i], ZERO_POINT, magnitude(values))
        since = lap(spent, kernels.ROUNDING_OF_STATES, since)
        done += active


@inlined
def _sum_directions(outputs, row, out):
    """out (units,): the sum of the directions' outputs (directions, R, units) of a row."""
    for j in range(len(out)):
        out[j] = outputs[0, row, j] + outputs[1, row, j] if len(outputs) > 1 else outputs[0, row, j]


@jit
def normalise(members, batch, norm, spent):
    """The next layer's batch.input and its scale: the directions' sum, batch-normalised."""
    since = kernels.started(spent)
    values = np.empty(batch.outputs.shape[2], np.float32)
    for b in members:
        for row in range(batch.starts[b], batch.starts[b] + batch.frames[b]):
            _sum_directions(batch.outputs, row, values)
            for j in range(len(values)):
                values[j] = values[j] * norm.scale[j] + norm.shift[j]
            batch.input_scale[row] = store(values, batch.input[row], ZERO_POINT, magnitude(values))
    lap(spent, kernels.BETWEEN_LAYERS, since)


@inlined
def _look_ahead(members, batch, context):
    """Weighted sums of each row of batch.outputs[0] and those after it, clipped, in its place."""
    x = batch.outputs[0]
    for b in members:
        end = batch.starts[b] + batch.frames[b]
        for row in range(batch.starts[b], end):
            for j in range(x.shape[1]):
                total = np.float32(0)
                for k in range(min(len(context), end - row)):
                    total += context[k, j] * x[row + k, j]
                x[row, j] = min(max(total, np.float32(0)), layout.CEILING)


@jit
def classify(members, batch, head, spent):
    """batch.probabilities, by the last layer and a softmax in float32."""
    since = kernels.started(spent)
    if len(head.context):
        _look_ahead(members, batch, head.context)
    classes, padded = batch.probabilities.shape[2], len(head.bias)
    units = batch.outputs.shape[2]
    values = np.empty((layout.CONV_ROWS, units), np.float32)
    sums = np.empty((layout.CONV_ROWS, layout.CHANNELS), np.float32)
    logits = np.empty((layout.CONV_ROWS, padded), np.float32)
    for b in members:
        for begin in range(0, batch.frames[b], layout.CONV_ROWS):
            rows = min(layout.CONV_ROWS, batch.frames[b] - begin)
            for m in range(rows):
                _sum_directions(batch.outputs, batch.starts[b] + begin + m, values[m])
            for base in range(0, padded, layout.CHANNELS):
                kernels.multiply_channels(
                    rows, values, sums.ctypes.data, values.ctypes.data, 4 * units,
                    head.weights.ctypes.data + 4 * units * base, units, 1, 0,
                )  # fmt: skip
                for m in range(rows):
                    for j in range(layout.CHANNELS):
                        logits[m, base + j] = sums[m, j] + head.bias[base + j]
            for m in range(rows):
                high = logits[m, :classes].max()
                for j in range(padded):
                    logits[m, j] -= high
                for j in range(0, padded, LANES):
                    address = logits[m, j:].ctypes.data
                    exponential(address, address)
                total = np.float32(0)
                for j in range(classes):
                    total += logits[m, j]
                for j in range(classes):
                    batch.probabilities[b, begin + m, j] = logits[m, j] / total
    lap(spent, kernels.LAST_LAYER, since)
