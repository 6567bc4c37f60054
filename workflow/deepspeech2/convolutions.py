"""The convolutions of the backend `native`, by the same product as its recurrent layers."""

from __future__ import annotations

import numpy as np

from deepspeech2.kernels import (
    CHANNELS,
    CONV_ROWS,
    CONV_STEP,
    jit,
    lap,
    magnitude,
    positions,
    started,
    store,
)
from deepspeech2.vectors import affine


@jit
def convolutions(
    spectrogram, frames, weights, zero, scale, shift, weights_2, zero_2, scale_2, shift_2,
    plane, product, between_them, plane_2, product_2, after, x, x_scale, spent,
):  # fmt: skip
    """Both convolutions of one utterance (bins, length) with so many frames of output.

    Writes x (frames * K,), K = bins of the output * CHANNELS, and x_scale (frames,). Weights are
    (41, groups, 2, LANES, per lane) and (21, groups, 2, LANES, per lane); scale and shift hold the
    batch normalisation. Past the utterance's end there is silence, as the reference's masks have
    it; taps below the lowest bin or above the highest are left out. Work space: plane and plane_2,
    whose types decide how each is computed (0 is stored as 0), product and product_2 (SUMS,) to
    match, between_them and after float32. `spent` as for `lap`.
    """
    since = started(spent)
    size = plane.itemsize
    bins, length = spectrogram.shape
    per = 4 // size
    padded = (frames + CONV_STEP - 1) // CONV_STEP * CONV_STEP
    kernel = (11 + per - 1) // per * per
    wide = 2 * (padded - 1) + kernel
    offsets = np.empty(CONV_ROWS, np.int64)
    plane[: bins * wide] = 0
    extent = np.float32(0)
    for h in range(bins):
        extent = max(extent, magnitude(spectrogram[h]))
    step = np.float32(1)
    for h in range(bins):
        at = h * wide + 5
        step = store(spectrogram[h], plane[at : at + length], 0, extent)
    bins_1 = (bins - 1) // 2 + 1
    for m in range(CONV_ROWS):
        offsets[m] = 2 * m * size
    for f in range(bins_1):
        low, high = max(0, 20 - 2 * f), min(41, bins + 20 - 2 * f)
        for t in range(0, padded, CONV_ROWS):
            rows = min(CONV_ROWS, padded - t)
            positions(
                rows, plane, product.ctypes.data,
                plane.ctypes.data + ((2 * f + low - 20) * wide + 2 * t) * size,
                offsets.ctypes.data, weights.ctypes.data + low * kernel // per * 4 * CHANNELS,
                kernel // per, high - low, wide * size,
            )  # fmt: skip
            for m in range(rows):
                affine(
                    2, 1, plane, product.ctypes.data + 4 * m * CHANNELS, zero.ctypes.data,
                    scale.ctypes.data, step, shift.ctypes.data,
                    between_them.ctypes.data + 4 * (f * padded + t + m) * CHANNELS,
                )  # fmt: skip
    extent = np.float32(0)
    for f in range(bins_1):
        at = f * padded * CHANNELS
        extent = max(extent, magnitude(between_them[at : at + frames * CHANNELS]))
    wide = (padded + 10) * CHANNELS
    plane_2[: bins_1 * wide] = 0
    for f in range(bins_1):
        at, to = f * padded * CHANNELS, f * wide + 5 * CHANNELS
        values = between_them[at : at + frames * CHANNELS]
        step = store(values, plane_2[to : to + frames * CHANNELS], 0, extent)
    bins_2 = (bins_1 - 1) // 2 + 1
    inputs = bins_2 * CHANNELS
    size = plane_2.itemsize
    for m in range(CONV_ROWS):
        offsets[m] = m * CHANNELS * size
    groups = 11 * CHANNELS * size // 4
    for f in range(bins_2):
        low, high = max(0, 10 - 2 * f), min(21, bins_1 + 10 - 2 * f)
        for t in range(0, padded, CONV_ROWS):
            positions(
                padded - t, plane_2, product_2.ctypes.data,
                plane_2.ctypes.data + ((2 * f + low - 10) * wide + t * CHANNELS) * size,
                offsets.ctypes.data, weights_2.ctypes.data + low * groups * 4 * CHANNELS,
                groups, high - low, wide * size,
            )  # fmt: skip
            for m in range(min(CONV_ROWS, frames - t)):
                affine(
                    2, 1, plane_2, product_2.ctypes.data + 4 * m * CHANNELS, zero_2.ctypes.data,
                    scale_2.ctypes.data, step, shift_2.ctypes.data,
                    after.ctypes.data + 4 * ((t + m) * inputs + f * CHANNELS),
                )  # fmt: skip
    for t in range(frames):
        values = after[t * inputs : (t + 1) * inputs]
        x_scale[t] = store(values, x[t * inputs : (t + 1) * inputs], 0, magnitude(values))
    lap(spent, 0, since)
