"""The convolutions of the backend `native`, by the same product as its recurrent layers."""

from __future__ import annotations

import numpy as np

from deepspeech2.engines.native import kernels, layout
from deepspeech2.engines.native.kernels import inlined, jit, magnitude, store
from deepspeech2.engines.native.layout import CHANNELS, CONV_STEP, CONV_VECTORS
from deepspeech2.engines.native.tiles import most_rows
from deepspeech2.engines.native.vectors import affine

BINS, FRAMES = 0, 1  # of the pairs of a Geometry


@inlined
def _convolve(
    geometry, x, length, frames, begin, end, layer, plane, sums, out, bins_out, to_bin, to_frame
):
    """One convolution of one utterance, batch-normalised and clipped: its frames begin to end.

    x (bins, length * inputs or more) float32 is the input, `plane` is work space for it with
    its padding; `to_bin` and `to_frame` are how far apart the channels of bins and frames are in
    `out`. Past the utterance's end there is silence, as the reference's masks have it; taps below
    the lowest bin or above the highest are left out. The type of `plane` (0 is stored as 0) decides
    how it is computed, `sums` (SUMS,) matches.
    """
    (bins, width), size = plane.shape, plane.itemsize
    used, move = length * geometry.inputs, geometry.stride[FRAMES] * geometry.inputs
    groups = (geometry.kernel[FRAMES] * geometry.inputs * size + 3) // 4
    filled = ((frames + CONV_STEP - 1) // CONV_STEP * CONV_STEP - 1) * move + groups * 4 // size
    start = geometry.padding[FRAMES] * geometry.inputs
    extent, step = np.float32(0), np.float32(1)
    for h in range(bins):
        extent = max(extent, magnitude(x[h, :used]))
    for h in range(bins):
        plane[h, :filled] = 0
        step = store(x[h, :used], plane[h, start : start + used], 0, extent)
    most = most_rows(CONV_VECTORS, plane)
    for f in range(bins_out):
        lowest = f * geometry.stride[BINS] - geometry.padding[BINS]
        first, last = max(0, -lowest), min(geometry.kernel[BINS], bins - lowest)
        zero = layer.zero[last] - layer.zero[first]
        for t in range(begin, end, most):
            rows = min(most, end - t)
            kernels.multiply_channels(
                rows, plane, sums.ctypes.data,
                plane.ctypes.data + ((lowest + first) * width + t * move) * size,
                move * size, layer.weights.ctypes.data + first * groups * 4 * CHANNELS,
                groups, last - first, width * size,
            )  # fmt: skip
            for m in range(rows):
                affine(
                    CONV_VECTORS, 1, plane, sums.ctypes.data + 4 * m * CHANNELS,
                    zero.ctypes.data, layer.scale.ctypes.data, step, layer.shift.ctypes.data,
                    out.ctypes.data + 4 * (f * to_bin + (t + m) * to_frame),
                )  # fmt: skip


@jit
def convolve_first(b, begin, end, batch, layer, plane, sums, between, spent):
    """The first convolution of utterance b, its output's frames from begin to end.

    `plane` (bins, Geometry.width) and `sums` (SUMS,) are work space, between (bins, frames *
    CHANNELS) float32 the output. `spent` is as for kernels.lap.
    """
    since = kernels.started(spent)
    _convolve(
        layout.GEOMETRY_1, batch.spectrograms[b, 0], batch.lengths[b], batch.frames[b], begin, end,
        layer, plane, sums, between, len(between), between.shape[1], CHANNELS,
    )  # fmt: skip
    kernels.lap(spent, kernels.CONVOLUTIONS, since)


@jit
def convolve_second(b, begin, end, batch, layer, plane, sums, between, output, spent):
    """The second one: batch.first_input, and batch.input_scale.

    `output` (frames, bins * CHANNELS) float32 is work space.
    """
    since = kernels.started(spent)
    frames, start = batch.frames[b], batch.starts[b]
    _convolve(
        layout.GEOMETRY_2, between, frames, frames, begin, end,
        layer, plane, sums, output, output.shape[1] // CHANNELS, CHANNELS, output.shape[1],
    )  # fmt: skip
    for t in range(begin, end):
        stored = batch.first_input[start + t]
        batch.input_scale[start + t] = store(output[t], stored, 0, magnitude(output[t]))
    kernels.lap(spent, kernels.CONVOLUTIONS, since)
