"""How the data of the backend `native` lie in memory: sizes, and records of arrays.

Packing, kernels and session share them; numba compiles the sizes into the machine code. All arrays
are contiguous. R rows are the frames of all utterances of a batch, one utterance after the other;
N is the number of outputs of a layer and K of its inputs, filled up to whole vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from deepspeech2.model.architecture import CHANNELS, GATES, KERNELS, PADDINGS, STRIDES

TYPES = {"int8": np.uint8, "bf16": np.uint16, "fp32": np.float32}  # of stored activations
PER_LANE = {name: 4 // np.dtype(kind).itemsize for name, kind in TYPES.items()}
ZERO_POINT = 128  # stands for 0.0 in uint8, where activations have both signs
CEILING = np.float32(20)  # of the clipped rectifier
# Not from 0: where LLVM knows that a number is 0, it may put it for any 0, in an address, too. The
# code that numba keeps for callers then reads from a null pointer, and is removed as impossible.
CELLS = {"lstm": 1, "gru": 2, "rnn": 3}

LANES = 16  # numbers of 32 bits in a vector
VECTOR = 4 * LANES  # bytes
# A recurrent layer multiplies up to ROWS rows with a panel of weights: the gates of LANES hidden
# units. Weights and sums of such a tile fill the registers.
ROWS = 6
PANEL_VECTORS = max(GATES.values())
PANEL = PANEL_VECTORS * LANES
# A convolution multiplies up to CONV_ROWS positions with all channels; so does the last layer, with
# CHANNELS classes.
CONV_ROWS, CONV_STEP = 12, 4
CONV_VECTORS = CHANNELS // LANES
# The numbers of rows that there is code for, by the number of vectors.
TILE_ROWS = {
    PANEL_VECTORS: range(1, ROWS + 1),
    CONV_VECTORS: range(CONV_STEP, CONV_ROWS + 1, CONV_STEP),
}
AMX_ROWS = 32  # of any tile, where AMX computes it
SUMS = AMX_ROWS * PANEL  # numbers in the largest tile
CHUNK = 64  # rows of a layer's input product that are computed ahead of the recurrent steps

assert VECTOR == 64  # a cache line: for each vector that it reads, a tile fetches one
assert CHANNELS % LANES == CONV_ROWS % CONV_STEP == 0
assert max(ROWS, CONV_ROWS) <= AMX_ROWS and CHANNELS <= PANEL


def round_up(number: int, multiple: int) -> int:
    """The least multiple that is no less than `number`."""
    return -(-number // multiple) * multiple


def empty(dtype: Any, *shape: int) -> np.ndarray:
    """An array that begins with a cache line: a vector in two of them takes twice the time."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + VECTOR, np.uint8)
    start = -memory.ctypes.data % VECTOR
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that is `empty`'s."""
    made = empty(array.dtype, *array.shape)
    made[:] = array
    return made


class Geometry(NamedTuple):
    """A convolution's channels of input, and its kernel, stride and padding in (bins, frames)."""

    inputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def bins(self, bins: int) -> int:
        """Bins of the output for so many bins of input."""
        return (bins + 2 * self.padding[0] - self.kernel[0]) // self.stride[0] + 1

    def width(self, frames: int) -> int:
        """Elements in a bin of the padded input, enough for so many frames of output."""
        last = (round_up(frames, CONV_STEP) - 1) * self.stride[1]
        return round_up((last + self.kernel[1]) * self.inputs, max(PER_LANE.values()))


GEOMETRY_1, GEOMETRY_2 = map(Geometry, (1, CHANNELS), KERNELS, STRIDES, PADDINGS)


class Weights(NamedTuple):
    """Weights of a convolution, or of a recurrent layer's input or state.

    An output is (product + zero) * scale * scale of the activations + shift, which undoes the
    quantisation and holds the batch normalisation or bias. Without quantisation, zero is 0. That of
    a convolution is (bins + 1, N) in a session: for all bins of the kernel below the first, the
    second and so on, because at the edges some are left out.
    """

    weights: np.ndarray  # (N / vectors / LANES, [bins,] K / per lane, vectors, LANES, per lane)
    zero: np.ndarray  # (N,) of the type of the product's sums
    scale: np.ndarray  # (N,) float32
    shift: np.ndarray  # (N,) float32, for a state of no use and empty


class Norm(NamedTuple):
    """The batch normalisation before a recurrent layer: x * scale + shift."""

    scale: np.ndarray  # (units,) float32
    shift: np.ndarray  # (units,) float32


class Head(NamedTuple):
    """The last layer with its batch normalisation, and the lookahead convolution before it."""

    context: np.ndarray  # (frames, units) float32: of no frames in a bidirectional network
    weights: np.ndarray  # (N / CHANNELS, units, CONV_VECTORS, LANES) float32
    bias: np.ndarray  # (N,) float32: classes are filled up to whole tiles


class Batch(NamedTuple):
    """A batch of B utterances, and what is computed of it. Utterances write to their own rows."""

    spectrograms: np.ndarray  # (B, 1, bins, T) float32
    lengths: np.ndarray  # (B,) int64: frames of the spectrograms
    frames: np.ndarray  # (B,) int64: frames of the output, which are rows
    starts: np.ndarray  # (B,) int64: the first row of each utterance
    # Two inputs, as threads may be in the first layer and in the second at a time.
    first_input: np.ndarray  # (R, K) stored activations: the input of the first recurrent layer
    input: np.ndarray  # (R, units) stored activations: the input of the other layers
    input_scale: np.ndarray  # (R,) float32: of the input of the layer that comes next
    outputs: np.ndarray  # (directions, R, units) float32: of the last recurrent layer
    probabilities: np.ndarray  # (B, T', classes) float32


class LayerSpace(NamedTuple):
    """Work space for one direction of a recurrent layer over M utterances, in P panels.

    Rows of stored activations are filled up to whole cache lines, with what is left from before.
    Numbers that are read and written together lie together: rows 4 KiB apart would share a few
    places of the cache.
    """

    gates: np.ndarray  # (P, CHUNK + M, PANEL) float32: the input's share, for some steps
    rows: np.ndarray  # (CHUNK + M,) int64: the rows that these gates are for
    active: np.ndarray  # (CHUNK,) int64: how many utterances each of these steps has
    gathered: np.ndarray  # (CHUNK + M, K) stored activations: the input of these rows
    state: np.ndarray  # (M, units) stored activations: the output of the step before
    state_scale: np.ndarray  # (M,) float32
    memory: np.ndarray  # (P, M, LANES) float32: an LSTM's cells
    sums: np.ndarray  # (SUMS,)
