"""The convolutions of the backend `native`, by the same product as its recurrent layers."""

from __future__ import annotations

import numpy as np

from deepspeech2.engines.native import kernels, layout
from deepspeech2.engines.native.kernels import inlined, jit, magnitude, store
from deepspeech2.engines.native.layout import CHANNELS, CONV_ROWS, CONV_STEP, CONV_VECTORS
from deepspeech2.engines.native.vectors import affine

BINS, FRAMES = 0, 1  # of the pairs of a Geometry


@inlined
def _convolve(geometry, x, length, frames, layer, plane, sums, out, bins_out, to_bin, to_frame):
    """One convolution of one utterance, batch-normalised and clipped.

    x (bins, length * inputs or more) float32 is the input, `plane` is work space for it with
    its padding; `to_bin` and `to_frame` are how far apart the channels of bins and frames are in
    `out`. Past the utterance's end there is silence, as the reference's masks have it; taps below
    the lowest bin or above the highest are left out. The type of `plane` (0 is stored as 0) decides
    how it is computed, `sums` (SUMS,) matches.
    """
    (bins, width), size = plane.shape, plane.itemsize
    used, move = length * geometry.inputs, geometry.stride[FRAMES] * geometry.inputs
    groups = (geometry.kernel[FRAMES] * geometry.inputs * size + 3) // 4
    end = ((frames + CONV_STEP - 1) // CONV_STEP * CONV_STEP - 1) * move + groups * 4 // size
    start = geometry.padding[FRAMES] * geometry.inputs
    extent, step = np.float32(0), np.float32(1)
    for h in range(bins):
        extent = max(extent, magnitude(x[h, :used]))
    for h in range(bins):
        plane[h, :end] = 0
        step = store(x[h, :used], plane[h, start : start + used], 0, extent)
    offsets = np.arange(CONV_ROWS) * (move * size)
    for f in range(bins_out):
        lowest = f * geometry.stride[BINS] - geometry.padding[BINS]
        first, last = max(0, -lowest), min(geometry.kernel[BINS], bins - lowest)
        zero = layer.zero[last] - layer.zero[first]
        for t in range(0, frames, CONV_ROWS):
            rows = min(CONV_ROWS, frames - t)
            kernels.multiply_channels(
                rows, plane, sums.ctypes.data,
                plane.ctypes.data + ((lowest + first) * width + t * move) * size,
                offsets.ctypes.data, layer.weights.ctypes.data + first * groups * 4 * CHANNELS,
                groups, last - first, width * size,
            )  # fmt: skip
            for m in range(rows):
                affine(
                    CONV_VECTORS, 1, plane, sums.ctypes.data + 4 * m * CHANNELS,
                    zero.ctypes.data, layer.scale.ctypes.data, step, layer.shift.ctypes.data,
                    out.ctypes.data + 4 * (f * to_bin + (t + m) * to_frame),
                )  # fmt: skip


@jit
def convolve(members, batch, first, second, plane_1, plane_2, between, output, spent):
    """Both convolutions of the utterances `members`: batch.first_input, and batch.input_scale.

    `first` and `second` are their weights. Work space for the longest utterance are two planes
    (bins, Geometry.width) and the outputs, between (bins, frames * CHANNELS) float32 and output
    (frames, bins * CHANNELS) float32. `spent` is as for kernels.lap.
    """
    since = kernels.started(spent)
    sums_1 = np.empty(layout.SUMS, first.zero.dtype)
    sums_2 = np.empty(layout.SUMS, second.zero.dtype)
    for b in members:
        frames, start, values = batch.frames[b], batch.starts[b], batch.spectrograms[b, 0]
        _convolve(
            layout.GEOMETRY_1, values, batch.lengths[b], frames, first, plane_1, sums_1,
            between, len(between), between.shape[1], CHANNELS,
        )  # fmt: skip
        _convolve(
            layout.GEOMETRY_2, between, frames, frames, second, plane_2, sums_2,
            output, output.shape[1] // CHANNELS, CHANNELS, output.shape[1],
        )  # fmt: skip
        for t in range(frames):
            stored = batch.first_input[start + t]
            batch.input_scale[start + t] = store(output[t], stored, 0, magnitude(output[t]))
    kernels.lap(spent, kernels.CONVOLUTIONS, since)
