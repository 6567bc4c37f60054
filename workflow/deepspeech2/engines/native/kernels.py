"""What the kernels of the backend `native` share: numba's settings, timing, products, storing.

Everything rests on one product, a tile: some rows of activations times one panel of weights, kept
in registers. A panel holds 16 hidden units' four gates, so that a cell's state follows from a
tile's result without leaving the cache (layers.py); a convolution is the same product over rows
that overlap (convolutions.py). Each row's result depends on that row alone, and is the same bits in
whatever batch, at whatever place, with however many threads.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numba
import numpy as np
from numba import njit, types
from numba.extending import overload

from deepspeech2.engines.native.instructions import features
from deepspeech2.engines.native.layout import CONV_VECTORS, PANEL_VECTORS
from deepspeech2.engines.native.tiles import tile
from deepspeech2.engines.native.vectors import cycles
from deepspeech2.model import architecture

# numba looks at the file of a function alone to see whether what it kept is stale; ours depend on
# other files, too, and on what Linux tells of the CPU: what it keeps goes by the hash of them all.
_HERE = Path(__file__).parent
_FILES = (*sorted(_HERE.glob("*.py")), Path(architecture.__file__))
_CONTENT = *(path.read_bytes() for path in _FILES), ",".join(sorted(features())).encode()
_HASH = hashlib.sha256(b"".join(_CONTENT)).hexdigest()[:16]
_PLACE = _HERE / "__pycache__"
_REQUESTED = numba.config.CACHE_DIR  # NUMBA_CACHE_DIR
if _REQUESTED:
    _PLACE = Path(_REQUESTED)
elif not os.access(_PLACE if _PLACE.exists() else _HERE, os.W_OK):
    _PLACE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "deepspeech2").expanduser()
KEPT = _PLACE / f"kernels-{_HASH}"
_OPTIONS = {"nogil": True, "fastmath": {"contract", "nsz"}, "error_model": "numpy"}

inlined = njit(inline="always", **_OPTIONS)  # compiled as a part of the functions that call it


def jit(function):
    """`function`, compiled when it is first called, and kept for the next process."""
    numba.config.CACHE_DIR = str(KEPT)
    try:
        return njit(cache=True, no_cfunc_wrapper=True, **_OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = _REQUESTED


# What a thread's time goes to, where it is counted (`lap`).
LAPS = (
    *("convolutions", "input products", "their scaling", "recurrent products", "cells"),
    *("rounding of states", "between layers", "last layer"),
)
CONVOLUTIONS, INPUT_PRODUCTS, THEIR_SCALING, RECURRENT_PRODUCTS = range(4)
CELLS, ROUNDING_OF_STATES, BETWEEN_LAYERS, LAST_LAYER = range(4, 8)


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
    for bits in values.view(np.int32):
        high = max(high, bits & np.int32(0x7FFFFFFF))
    return np.int32(high).view(np.float32)


def store(values, out, zero, extent):
    """Write values (n,) as elements of `out` (n,); returns what one step of them is worth.

    Where `out` is uint8, `zero` stands for 0.0 and 255 for `extent`, the values' magnitude.
    """
    raise NotImplementedError


@overload(store)
def _store_as(values, out, zero, extent):
    def quantised(values, out, zero, extent):
        steps = np.float32(255 - zero)
        factor = steps / extent if extent > 0 else np.float32(0)
        shift = np.float32(zero) + np.float32(0.5)
        for i in range(len(values)):
            out[i] = np.uint8(np.int32(values[i] * factor + shift))
        return extent / steps

    def rounded(values, out, zero, extent):
        bits = values.view(np.int32)
        for i in range(len(bits)):
            even = (bits[i] >> np.int32(16)) & np.int32(1)
            out[i] = np.uint16((bits[i] + np.int32(0x7FFF) + even) >> np.int32(16))
        return np.float32(1)

    def copied(values, out, zero, extent):
        for i in range(len(values)):
            out[i] = values[i]
        return np.float32(1)

    return {types.uint8: quantised, types.uint16: rounded, types.float32: copied}[out.dtype]


@jit
def multiply_panel(rows, like, out, a, stride, weights, groups, upcoming):
    """A tile of 1 to tiles.most_rows rows with a panel of weights; the rest as for `tile`."""
    tile(rows, PANEL_VECTORS, like, out, a, stride, weights, groups, 1, 0, upcoming)


@jit
def multiply_channels(rows, like, out, a, stride, weights, groups, segments, step):
    """A tile of 1 to tiles.most_rows rows with all channels; the rest as for `tile`."""
    tile(rows, CONV_VECTORS, like, out, a, stride, weights, groups, segments, step, 0)
