"""Settings from outside the workflow that take part in a result."""

from __future__ import annotations

import os

# Settings from outside that change the bits of results, or how many threads there are.
OUTSIDE = (
    "ATEN_CPU_CAPABILITY MKL_CBWR MKL_DEBUG_CPU_TYPE MKL_ENABLE_INSTRUCTIONS ONEDNN_MAX_CPU_ISA "
    "DNNL_MAX_CPU_ISA ONEDNN_DEFAULT_FPMATH_MODE NUMBA_CPU_NAME NUMBA_CPU_FEATURES "
    "OMP_THREAD_LIMIT NVIDIA_TF32_OVERRIDE CUBLAS_WORKSPACE_CONFIG"
).split()


def outside() -> dict[str, str]:
    """Those of OUTSIDE that are set."""
    return {name: os.environ[name] for name in OUTSIDE if name in os.environ}
