"""What a CPU computes a tile with: its instruction sets, and how much of a tile its registers hold.

A sequence makes the same numbers as every other of its precision (int8 exactly, fp32 in the same
order), so that the choice is one of speed. An instruction set is one entry of SEQUENCES.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import NamedTuple

import numba
from numba.core.codegen import get_host_cpu_features


class Sequence(NamedTuple):
    """How a precision's products are summed, where the CPU has all of `features`.

    `dot` is the instruction, of tiles.DOTS, `bits` the size of its registers. They hold the sums of
    `rows` by `columns` of a tile at a time. `better` names what a CPU should have that computes
    the precision faster than fp32. `offset` is taken from the activations of a product, which
    then lacks that times the sum of the weights (packing.unpack adds it). CPUs with the feature
    `slow_with` have the instruction, but compute it more slowly than the sequences that follow.
    AMX has registers of its own: `bits`, `rows` and `columns` are those for its few rows (amx.py).
    """

    name: str
    features: tuple[str, ...]
    dot: str
    bits: int
    rows: int
    columns: int
    better: str = ""
    offset: int = 0
    slow_with: str = ""

    def fits(self, found: set[str]) -> bool:
        """Whether a CPU with these features should compute so."""
        return found.issuperset(self.features) and self.slow_with not in found


FAST_BF16 = "a fast avx512bf16 (AMD's)"
# The first that a CPU has is the fastest of it. Arm's BFDOT is not here: it rounds sums in its own
# way, whereas BFMLALT and BFMLALB are two FMAs. SMMLA would need weights in another order.
SEQUENCES = {
    "int8": (
        Sequence("AMX", ("amx-tile", "amx-int8", "avx512vnni"), "tdpbusd", 512, 6, 64),
        Sequence("AVX-512 VNNI", ("avx512vnni",), "vpdpbusd", 512, 6, 64),
        Sequence("AVX-VNNI", ("avx2", "avxvnni"), "vpdpbusd", 256, 6, 16),
        Sequence("AVX-512", ("avx512bw",), "vpmaddwd", 512, 6, 32),
        Sequence("AVX2", ("avx2",), "vpmaddwd", 256, 6, 8),
        Sequence("NEON I8MM", ("neon", "i8mm"), "usdot", 128, 6, 16),
        Sequence("NEON DotProd", ("neon", "dotprod"), "sdot", 128, 6, 16, offset=128),
        Sequence("NEON", ("neon",), "smlal", 128, 6, 8, "FEAT_DotProd"),
        Sequence("plain", (), "plain", 128, 6, 16, "avx2"),
    ),
    "bf16": (
        # Intel's, which have AMX, too: 235 GOP/s against 332 of FMA on two cores.
        Sequence("AVX-512 BF16", ("avx512bf16",), "vdpbf16ps", 512, 6, 64, slow_with="amx-bf16"),
        Sequence("AVX-512", ("avx512f",), "fma", 512, 6, 64, FAST_BF16),
        Sequence("AVX2", ("avx2", "fma"), "fma", 256, 6, 16, FAST_BF16),
        Sequence("NEON BF16", ("neon", "bf16"), "bfmlal", 128, 6, 16),
        Sequence("NEON", ("neon",), "fma", 128, 4, 16, "FEAT_BF16"),
        Sequence("plain", (), "fma", 128, 4, 16, FAST_BF16),
    ),
    "fp32": (
        Sequence("AVX-512", ("avx512f",), "fma", 512, 6, 64),
        Sequence("AVX2", ("avx2", "fma"), "fma", 256, 6, 16),
        Sequence("NEON", ("neon",), "fma", 128, 6, 16),
        Sequence("plain", (), "fma", 128, 6, 16),
    ),
}
# Arm's features by the bit that Linux tells a program of them: LLVM's own list lacks most.
AT_HWCAP, AT_HWCAP2 = 16, 26
HWCAPS = {
    "neon": (AT_HWCAP, 1), "dotprod": (AT_HWCAP, 20), "i8mm": (AT_HWCAP2, 13),
    "bf16": (AT_HWCAP2, 14),
}  # fmt: skip
# Linux's arch_prctl on x86-64, and what asks it for the registers of AMX.
ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA = 158, 0x1023, 18


def _listed() -> str:
    """The CPU's features as numba has them: NUMBA_CPU_FEATURES names another CPU's."""
    told = numba.config.CPU_FEATURES
    return get_host_cpu_features() if told is None else told


def _may_use_tiles() -> bool:
    """Whether Linux lets this process use the registers of AMX, which it is asked for."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0


def features() -> set[str]:
    """Those of the CPU that this process may use, in LLVM's names."""
    found = {name[1:] for name in _listed().split(",") if name.startswith("+")}
    if "amx-tile" in found and not _may_use_tiles():
        found.remove("amx-tile")
    on_arm = sys.platform == "linux" and platform.machine() == "aarch64"
    if on_arm and numba.config.CPU_FEATURES is None:
        told = ctypes.CDLL(None).getauxval
        told.argtypes, told.restype = [ctypes.c_ulong], ctypes.c_ulong
        found |= {name for name, (word, bit) in HWCAPS.items() if told(word) >> bit & 1}
    return found


def sequence(precision: str) -> Sequence:
    """The fastest for this CPU."""
    found = features()
    return next(s for s in SEQUENCES[precision] if s.fits(found))


def target_features(chosen: Sequence) -> str:
    """What LLVM must know of the CPU to write a sequence; empty where numba tells it all."""
    listed = _listed().split(",")
    missing = [f"+{name}" for name in chosen.features if f"+{name}" not in listed]
    return ",".join([*filter(None, listed), *missing]) if missing else ""
