"""The limit: how fast this machine multiplies, and how many operations a network needs."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from deepspeech2.engines.native import instructions, kernels, layout, packing, tiles
from deepspeech2.engines.native.instructions import sequence as sequence
from deepspeech2.engines.native.layout import PANEL_VECTORS  # numba knows its value
from deepspeech2.model.architecture import CHANNELS, GATES, KERNELS, PADDINGS, STRIDES, Architecture
from numba import njit

# Rows, inner size and columns: squares, and a layer's input product for a batch of utterances.
SHAPES = ((4096, 4096, 4096), (2048, 2048, 2048), (4096, 1024, 4096))
SECONDS = 0.3  # of every shape and kernel, at least; the fastest run counts


def operations(architecture: Architecture, frames: Iterable[int], borders: bool = False) -> int:
    """Useful operations of transcribing utterances of so many frames, each for itself.

    Two (multiply, add) for each time that a weight meets a value. An utterance of L frames needs

        2 (C1 + C2 + T (sum over layers of D G H (I + H)  +  H labels)),    T = (L - 1) // 2 + 1

    with D directions, G gates (LSTM: 4), H units, I inputs of a layer (1312, then H), and for each
    convolution C = inputs * 32 * taps of all output bins * taps of all output frames, where taps
    that lie beyond the input do not count: they multiply zeros. Nor do padding to a batch's width,
    rows that fill a batch up, normalisation, activations and softmax. For 5 x 1024, AN4 test needs
    3,459 GFLOP and its longest utterance (621 frames) 59.9: with `borders`, those taps counted,
    3,493 and 60.4.
    """
    a = architecture
    recurrent = a.hidden_size * (a.classes + a.lookahead_context)
    for layer in range(a.hidden_layers):
        size = a.hidden_size if layer else a.rnn_input
        gates = GATES[a.rnn_type] * (1 + a.bidirectional)
        recurrent += gates * a.hidden_size * (size + a.hidden_size)
    total = 0
    for length in frames:
        size, inputs = (a.bins, length), 1
        for geometry in zip(KERNELS, STRIDES, PADDINGS):
            taps, size = zip(*(_taps(*axis, borders) for axis in zip(size, *geometry)))
            total += inputs * CHANNELS * taps[0] * taps[1]
            inputs = CHANNELS
        total += size[1] * recurrent
    return 2 * total


def _taps(size: int, kernel: int, stride: int, padding: int, borders: bool) -> tuple[int, int]:
    """Taps of all outputs along an axis of `size`, and how many outputs there are."""
    starts = range(-padding, size + padding - kernel + 1, stride)
    inside = sum(min(start + kernel, size) - max(start, 0) for start in starts)
    return (kernel * len(starts) if borders else inside), len(starts)


def _multiply(dtype: torch.dtype, device: str, m: int, k: int, n: int) -> Callable:
    """The product of two matrices in one of torch's floating types."""
    a, b = torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype)
    return partial(torch.mm, a, b)


def _int_mm(m: int, k: int, n: int) -> Callable:
    """8-bit integers to 32-bit sums."""
    a, b = (torch.randint(-127, 127, shape, dtype=torch.int8) for shape in ((m, k), (k, n)))
    return partial(torch._int_mm, a, b)


def _quantised(dynamic: bool, m: int, k: int, n: int) -> Callable:
    """torch's quantised linear layer: activations of 8 bits, or quantised on the way."""
    x = torch.randn(m, k)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*quantize_per_tensor.* deprecated", UserWarning)
        weight = torch.quantize_per_tensor(torch.randn(n, k), 0.1, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(weight, None)
        if dynamic:
            return partial(torch.ops.quantized.linear_dynamic, x, packed, True)
        x = torch.quantize_per_tensor(x, 0.1, 64, torch.quint8)
    return partial(torch.ops.quantized.linear, x, packed, 1.0, 64)


@njit(nogil=True)
def _columns(first, last, rows, a, weights, groups, sums):
    """Some panels of a product, with the kernel of the backend native, block by block of rows."""
    size, most = groups * 4 * layout.PANEL, tiles.most_rows(PANEL_VECTORS, a)
    for start in range(0, rows, 192):
        for number in range(first, last):
            for row in range(start, min(start + 192, rows), most):
                kernels.multiply_panel(
                    min(most, rows - row), a, sums.ctypes.data,
                    a.ctypes.data + 4 * groups * row, 4 * groups,
                    weights.ctypes.data + number * size, groups,
                    weights.ctypes.data + (number + 1) * size,
                )  # fmt: skip


def _numbers(precision: str, count: int) -> np.ndarray:
    """Random ones: products of zeros take less power, and might be faster."""
    if precision == "int8":
        values = np.random.default_rng(0).integers(0, 128, count, layout.TYPES[precision])
        return layout.aligned(values)
    values = np.random.default_rng(0).standard_normal(count, np.float32)
    return layout.aligned(packing.to_bf16(values) if precision == "bf16" else values)


def _native(precision: str, m: int, k: int, n: int) -> Callable:
    """The product by the kernel of the backend native, columns split among the threads."""
    groups = k // layout.PER_LANE[precision]
    a, weights = _numbers(precision, m * k), _numbers(precision, n * k)
    threads, panels = torch.get_num_threads(), n // layout.PANEL
    pool = ThreadPoolExecutor(threads)

    def columns(number: int) -> None:
        sums = layout.empty(np.int32, layout.SUMS)
        part = panels * number // threads, panels * (number + 1) // threads
        _columns(*part, m, a, weights, groups, sums)

    return lambda: list(pool.map(columns, range(threads)))


GROUPS, REPEATS = 64, 20_000  # of an operand that stays in the first cache, with its panel


def _in_cache(precision: str, rows: int) -> Callable[[], float]:
    """Measures the seconds of REPEATS products, by the tile as it is now: one thread's share."""
    like = _numbers(precision, rows * GROUPS * layout.PER_LANE[precision])
    weights = _numbers(precision, layout.PANEL * GROUPS * layout.PER_LANE[precision])
    sums = layout.empty(np.int32, layout.SUMS)

    @njit(nogil=True)
    def multiply(like, out, a, weights):  # as in kernels: a tile's stack is a function's
        tiles.tile(rows, PANEL_VECTORS, like, out, a, 4 * GROUPS, weights, GROUPS, 1, 0, 0)

    @njit(nogil=True)
    def run(like, out, a, weights, repeats):
        for _ in range(repeats):
            multiply(like, out, a, weights)

    def measure() -> float:
        places = [x.ctypes.data for x in (sums, like, weights)]
        start = time.perf_counter()
        run(like, *places, REPEATS)
        return time.perf_counter() - start

    measure()  # compiles
    return measure


def sequence_peak(precision: str, chosen: instructions.Sequence, threads: int) -> float:
    """Operations per second of a sequence's tile with all that it reads in the first cache."""
    usual, rows = tiles.sequence, tiles.rows_of(chosen, PANEL_VECTORS)
    tiles.sequence = lambda _: chosen
    try:
        measures = [_in_cache(precision, rows) for _ in range(threads)]
    finally:
        tiles.sequence = usual
    together = threading.Barrier(threads)

    def least(measure: Callable[[], float]) -> float:
        together.wait()
        return min(measure() for _ in range(10))

    with ThreadPoolExecutor(threads) as pool:
        seconds = max(pool.map(least, measures))
    products = rows * layout.PANEL * GROUPS * layout.PER_LANE[precision]
    return threads * 2 * products * REPEATS / seconds


def sequence_peaks(threads: int) -> list[tuple[str, str, float]]:
    """Precision, name and peak of every sequence that this CPU can use, the engines' own first."""
    found = instructions.features()
    return [
        (precision, chosen.name, sequence_peak(precision, chosen, threads))
        for precision, sequences in instructions.SEQUENCES.items()
        for chosen in sequences
        if found.issuperset(chosen.features)
    ]


# By device and precision: functions that take a shape and return what multiplies it. The best of
# them is the limit, so a faster kernel belongs here.
KERNELS_OF: dict[str, dict[str, list[Callable]]] = {
    "cpu": {
        "fp32": [partial(_multiply, torch.float32, "cpu"), partial(_native, "fp32")],
        "bf16": [partial(_multiply, torch.bfloat16, "cpu"), partial(_native, "bf16")],
        "int8": [
            _int_mm,
            partial(_quantised, True),
            partial(_quantised, False),
            partial(_native, "int8"),
        ],
    },
    "cuda": {
        name: [partial(_multiply, dtype, "cuda")]
        for name, dtype in (
            ("fp32", torch.float32),
            ("fp16", torch.float16),
            ("bf16", torch.bfloat16),
        )
    },
}


def peak(device: str, precision: str) -> float:
    """Operations per second of the fastest kernel and shape: 2 m k n by the least time."""
    return max(
        2 * m * k * n / _least_seconds(kernel(m, k, n), device)
        for kernel in KERNELS_OF[device][precision]
        for m, k, n in SHAPES
    )


def _least_seconds(function: Callable, device: str) -> float:
    function()
    times: list[float] = []
    while not times or sum(times) < SECONDS:
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
