"""The computing of the backend `native`: machine code that numba makes for the CPU at hand.

Everything rests on one product, `tile`: some rows of activations times one panel of weights, kept
in registers. A panel holds 16 hidden units' four gates, so that a cell's state follows from a
tile's result without leaving the cache (layers.py); a convolution is the same product over rows
that overlap (convolutions.py). Each row's result depends on that row alone, and is the same bits in
whatever batch, at whatever place, with however many threads.
"""

from __future__ import annotations

import os
from pathlib import Path

import numba
import numpy as np
from numba import njit, types
from numba.extending import overload

from deepspeech2 import sources
from deepspeech2.vectors import GATES, LANES, as_bits, as_float, cycles, tile

ROWS = 6  # most rows of a recurrent layer's tile: with its weights they fill the registers
CONV_ROWS, CONV_VECTORS = 12, 2  # of a convolution's tile: positions, and vectors of channels
CONV_STEP = 4  # positions of a convolution are rounded up to it
CHANNELS = CONV_VECTORS * LANES
SUMS = ROWS * GATES * LANES  # of the largest tile, of either kind
# numba looks at the file of a function alone to see whether what it kept is stale; ours depend on
# other files, too, so what it keeps goes by the hash of them all.
_PLACE = Path(__file__).parent / "__pycache__"
_ASKED_FOR = numba.config.CACHE_DIR  # NUMBA_CACHE_DIR
if _ASKED_FOR:
    _PLACE = Path(_ASKED_FOR)
elif not os.access(_PLACE if _PLACE.exists() else _PLACE.parent, os.W_OK):
    _PLACE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "deepspeech2").expanduser()
_OF = ("deepspeech2.convolutions", "deepspeech2.layers")
_KEPT = _PLACE / f"kernels-{sources.digest(*_OF)[:16]}"


def jit(function):
    """`function`, compiled when it is first called, and kept for the next process."""
    numba.config.CACHE_DIR = str(_KEPT)
    try:
        return njit(cache=True, nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")(
            function
        )
    finally:
        numba.config.CACHE_DIR = _ASKED_FOR


# What a thread's time goes to, where it is counted (`lap`).
LAPS = (
    *("convolutions", "input products", "their scaling", "recurrent products", "cells"),
    *("rounding of states", "between layers", "last layer"),
)


@jit
def started(spent):
    """The time, from which `lap` counts; nothing is counted where `spent` is empty."""
    return cycles() if len(spent) else 0


@jit
def lap(spent, part, since):
    """Count the time since then for a part of LAPS; returns the time."""
    if len(spent) == 0:
        return since
    now = cycles()
    spent[part] += now - since
    return now


@jit
def magnitude(values):
    """Largest magnitude. (As integers, the bits of floats without a sign are in the same order.)"""
    high = np.int32(0)
    for value in values:
        high = max(high, as_bits(value) & np.int32(0x7FFFFFFF))
    return as_float(high)


def store(values, out, zero, extent):
    """Write values (n,) as elements of `out` (n,); returns what one step of them is worth."""
    raise NotImplementedError


@overload(store)
def _store_as(values, out, zero, extent):
    one = np.float32(1)
    if out.dtype == types.uint8:

        def quantised(values, out, zero, extent):
            steps = np.float32(255 - zero)
            factor = steps / extent if extent > 0 else np.float32(0)
            shift = np.float32(zero) + np.float32(0.5)
            for i in range(len(values)):
                out[i] = np.uint8(np.int32(values[i] * factor + shift))
            return extent / steps

        return quantised
    if out.dtype == types.uint16:

        def rounded(values, out, zero, extent):
            for i in range(len(values)):
                bits = as_bits(values[i])
                even = (bits >> np.int32(16)) & np.int32(1)
                out[i] = np.uint16((bits + np.int32(0x7FFF) + even) >> np.int32(16))
            return one

        return rounded

    def copied(values, out, zero, extent):
        for i in range(len(values)):
            out[i] = values[i]
        return one

    return copied


@jit
def panel(rows, like, out, a, offsets, weights, groups, upcoming):
    """A tile of 1 to ROWS rows with a panel of GATES vectors; `upcoming` as for `tile`."""
    if rows == 6:
        tile(6, 4, like, out, a, offsets, weights, groups, 1, 0, upcoming)
    elif rows == 5:
        tile(5, 4, like, out, a, offsets, weights, groups, 1, 0, upcoming)
    elif rows == 4:
        tile(4, 4, like, out, a, offsets, weights, groups, 1, 0, upcoming)
    elif rows == 3:
        tile(3, 4, like, out, a, offsets, weights, groups, 1, 0, upcoming)
    elif rows == 2:
        tile(2, 4, like, out, a, offsets, weights, groups, 1, 0, upcoming)
    else:
        tile(1, 4, like, out, a, offsets, weights, groups, 1, 0, upcoming)


@jit
def positions(rows, like, out, a, offsets, weights, groups, segments, step):
    """A tile of 1 to CONV_ROWS rows, CONV_STEP more at a time, with CONV_VECTORS vectors."""
    if rows > 8:
        tile(12, 2, like, out, a, offsets, weights, groups, segments, step, 0)
    elif rows > 4:
        tile(8, 2, like, out, a, offsets, weights, groups, segments, step, 0)
    else:
        tile(4, 2, like, out, a, offsets, weights, groups, segments, step, 0)
