"""The recurrent layers of the backend `native`, what is between them, and the last layer.

Shapes: R rows (frames of all utterances, packed), K inputs, P panels. Arrays are contiguous.
`scale` and `zero` undo the quantisation, and are 1 and 0 where there is none. `spent` is as for
`lap`.
"""

from __future__ import annotations

import numpy as np

from deepspeech2.kernels import (
    CHANNELS,
    CONV_ROWS,
    ROWS,
    jit,
    lap,
    magnitude,
    panel,
    positions,
    started,
    store,
)
from deepspeech2.vectors import (
    CEILING,
    GATES,
    GRU,
    LANES,
    LSTM,
    advance,
    affine,
    exponential,
    fetch,
)

CHUNK = 64  # rows of the input product that are computed ahead of the recurrent steps


@jit
def _cells(kind, like, mine, got, zero, scale, step, state, before, out):
    """`advance` for the kind of cell."""
    if kind == LSTM:
        advance(1, like, mine, got, zero, scale, step, state, before, out)
    elif kind == GRU:
        advance(2, like, mine, got, zero, scale, step, state, before, out)
    else:
        advance(3, like, mine, got, zero, scale, step, state, before, out)


@jit
def layer(
    kind, backward, members, lengths, starts, x, x_scale, units,
    w_in, in_zero, in_scale, bias, w_rec, rec_zero, rec_scale,
    ahead, hidden, state, product, out, spent,
):  # fmt: skip
    """One direction of a recurrent layer over the utterances `members`, longest first.

    x (R * K,) and x_scale (R,) are the input; utterance b has the rows starts[b] to starts[b] +
    lengths[b]. Weights are (P, K / per lane, GATES, LANES, per lane), `*_zero`, `*_scale` and bias
    (P * 64,). out (R, units) float32 is written. Work space: ahead (P, CHUNK + members, 64)
    float32, hidden (members * units) like x, state (P, members, LANES) float32, product (SUMS,).
    What is read and written together lies together: rows 4 KiB apart would share a few places of
    the cache.
    """
    n = len(members)
    panels, inputs = units // LANES, len(x) // len(x_scale)
    width, size = 64, x.itemsize
    in_groups, rec_groups = inputs * size // 4, units * size // 4
    in_bytes, rec_bytes = in_groups * 64 * GATES, rec_groups * 64 * GATES
    offsets, row_of = np.empty(ROWS, np.int64), np.empty(ahead.shape[1], np.int64)
    steps = np.zeros(n, np.float32)
    nothing = np.zeros(units, np.float32)
    state[:] = 0
    for i in range(n):
        steps[i] = store(nothing, hidden[i * units : (i + 1) * units], 128, np.float32(0))
    longest = lengths[members[0]]
    begin, since = 0, started(spent)
    while begin < longest:
        # The input's share of the gates, of so many steps as fit.
        rows, end, active = 0, begin, n
        while end < longest:
            while lengths[members[active - 1]] <= end:
                active -= 1
            if rows and rows + active > CHUNK:
                break
            for i in range(active):
                b = members[i]
                row_of[rows] = starts[b] + (lengths[b] - 1 - end if backward else end)
                rows += 1
            end += 1
        parts = (rows + ROWS - 1) // ROWS
        for p in range(panels):
            base = p * width
            for part in range(parts):
                first, last = rows * part // parts, rows * (part + 1) // parts
                for q in range(first, last):
                    offsets[q - first] = row_of[q] * inputs * size
                panel(
                    last - first, x, product.ctypes.data, x.ctypes.data, offsets.ctypes.data,
                    w_in.ctypes.data + p * in_bytes, in_groups,
                    # Of the next panel, which comes from the third cache, each part fetches a part.
                    w_in.ctypes.data + (p + 1) % panels * in_bytes + part * in_groups * 64,
                )  # fmt: skip
                since = lap(spent, 1, since)
                for q in range(first, last):
                    affine(
                        4, 0, x, product.ctypes.data + (q - first) * 4 * width,
                        in_zero.ctypes.data + 4 * base, in_scale.ctypes.data + 4 * base,
                        x_scale[row_of[q]], bias.ctypes.data + 4 * base,
                        ahead[p, q].ctypes.data,
                    )  # fmt: skip
                since = lap(spent, 2, since)
        # The recurrence.
        rows, active = 0, n
        for now in range(begin, end):
            while lengths[members[active - 1]] <= now:
                active -= 1
            parts = (active + ROWS - 1) // ROWS
            for p in range(panels):
                base, unit = p * width, p * LANES
                for part in range(parts):
                    first, last = active * part // parts, active * (part + 1) // parts
                    for i in range(first, last):
                        offsets[i - first] = i * units * size
                        fetch(ahead[p, rows + i].ctypes.data, 4, 0)
                        fetch(state[p, i].ctypes.data, 1, 1)
                        fetch(out[row_of[rows + i]].ctypes.data + 4 * unit, 1, 1)
                    panel(
                        last - first, x, product.ctypes.data, hidden.ctypes.data,
                        offsets.ctypes.data, w_rec.ctypes.data + p * rec_bytes, rec_groups,
                        w_rec.ctypes.data + (p + 1) % panels * rec_bytes + part * rec_groups * 64,
                    )  # fmt: skip
                    since = lap(spent, 3, since)
                    for i in range(first, last):
                        row = row_of[rows + i]
                        before = nothing.ctypes.data
                        if now:
                            row_before = row + 1 if backward else row - 1
                            before = out.ctypes.data + 4 * (row_before * units + unit)
                        _cells(
                            kind, x, ahead[p, rows + i].ctypes.data,
                            product.ctypes.data + (i - first) * 4 * width,
                            rec_zero.ctypes.data + 4 * base, rec_scale.ctypes.data + 4 * base,
                            steps[i], state[p, i].ctypes.data, before,
                            out.ctypes.data + 4 * (row * units + unit),
                        )  # fmt: skip
                    since = lap(spent, 4, since)
            for i in range(active):
                values = out[row_of[rows + i]]
                steps[i] = store(
                    values, hidden[i * units : (i + 1) * units], 128, magnitude(values)
                )
            since = lap(spent, 5, since)
            rows += active
        begin = end


@jit
def between(first, last, left, right, both, scale, shift, x, x_scale, spent):
    """x and x_scale of the rows first to last: the directions' sum, batch-normalised (units,)."""
    since = started(spent)
    units = left.shape[1]
    values = np.empty(units, np.float32)
    for row in range(first, last):
        for j in range(units):
            total = left[row, j] + right[row, j] if both else left[row, j]
            values[j] = total * scale[j] + shift[j]
        x_scale[row] = store(values, x[row * units : (row + 1) * units], 128, magnitude(values))
    lap(spent, 6, since)


@jit
def look_ahead(first, last, x, weights):
    """Rows first to last of x (R, units), one utterance: the sum of each and those after it."""
    for row in range(first, last):
        for j in range(x.shape[1]):
            total = np.float32(0)
            for k in range(min(weights.shape[0], last - row)):
                total += weights[k, j] * x[row + k, j]
            x[row, j] = min(max(total, np.float32(0)), CEILING)


@jit
def head(first, last, left, right, both, weights, bias, classes, out, spent):
    """Probabilities out (rows, classes) of the rows first to last, by a softmax in float32."""
    since = started(spent)
    units = left.shape[1]
    panels, width = len(bias) // CHANNELS, CHANNELS
    values = np.empty((CONV_ROWS, units), np.float32)
    product = np.empty(CONV_ROWS * width, np.float32)
    logits = np.empty((CONV_ROWS, len(bias)), np.float32)
    offsets = np.arange(CONV_ROWS) * (units * 4)
    for begin in range(first, last, CONV_ROWS):
        rows = min(CONV_ROWS, last - begin)
        for m in range(rows):
            for j in range(units):
                r = begin + m
                values[m, j] = left[r, j] + right[r, j] if both else left[r, j]
        for p in range(panels):
            positions(
                rows, values, product.ctypes.data, values.ctypes.data, offsets.ctypes.data,
                weights.ctypes.data + p * units * width * 4, units, 1, 0,
            )  # fmt: skip
            for m in range(rows):
                for j in range(width):
                    logits[m, p * width + j] = product[m * width + j] + bias[p * width + j]
        for m in range(rows):
            high = logits[m, :classes].max()
            for j in range(len(bias)):
                logits[m, j] -= high
            for j in range(0, len(bias), LANES):
                address = logits.ctypes.data + 4 * (m * len(bias) + j)
                exponential(address, address)
            total = np.float32(0)
            for j in range(classes):
                total += logits[m, j]
            for j in range(classes):
                out[begin - first + m, j] = logits[m, j] / total
    lap(spent, 7, since)
