"""What a CPU computes a tile with: its instruction sets, and how much of a tile its registers hold.

A sequence makes the same numbers as every other of its precision (int8 exactly, fp32 in the same
order), so that the choice is one of speed. An instruction set is one entry of SEQUENCES.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
from numba.core.codegen import get_host_cpu_features


class Sequence(NamedTuple):
    """How a precision's products are summed, where the CPU has all of `features`.

    `dot` is the instruction, of tiles.DOTS, `bits` the size of its registers. They hold the sums of
    `rows` by `columns` of a tile at a time. `better` names what a CPU should have that computes
    the precision faster than fp32.
    """

    name: str
    features: tuple[str, ...]
    dot: str
    bits: int
    rows: int
    columns: int
    better: str = ""


# The first that a CPU has is the fastest of it.
SEQUENCES = {
    "int8": (
        Sequence("AVX-512 VNNI", ("avx512vnni",), "vpdpbusd", 512, 6, 64),
        Sequence("AVX-VNNI", ("avx2", "avxvnni"), "vpdpbusd", 256, 6, 16),
        Sequence("AVX-512", ("avx512bw",), "vpmaddwd", 512, 6, 32),
        Sequence("AVX2", ("avx2",), "vpmaddwd", 256, 6, 8),
        Sequence("plain", (), "plain", 128, 6, 16, "avx2"),
    ),
    "bf16": (
        Sequence("AVX-512 BF16", ("avx512bf16",), "vdpbf16ps", 512, 6, 64),
        Sequence("AVX-512", ("avx512f",), "fma", 512, 6, 32, "avx512bf16"),
        Sequence("AVX2", ("avx2", "fma"), "fma", 256, 4, 16, "avx512bf16"),
        Sequence("plain", (), "fma", 128, 4, 16, "avx512bf16"),
    ),
    "fp32": (
        Sequence("AVX-512", ("avx512f",), "fma", 512, 6, 64),
        Sequence("AVX2", ("avx2", "fma"), "fma", 256, 6, 16),
        Sequence("plain", (), "fma", 128, 6, 16),
    ),
}


def features() -> set[str]:
    """The CPU's, as numba has them: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another CPU."""
    told = numba.config.CPU_FEATURES
    listed = get_host_cpu_features() if told is None else told
    return {name[1:] for name in listed.split(",") if name.startswith("+")}


def sequence(precision: str) -> Sequence:
    """The fastest for this CPU."""
    found = features()
    return next(s for s in SEQUENCES[precision] if found.issuperset(s.features))
