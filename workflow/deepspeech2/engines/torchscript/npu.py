"""What a machine with Ascend NPUs has, as Huawei's torch_npu and the driver see it.

**Never run on an NPU.** The names are those of torch_npu 2.10.0, read in its package and imported
with libraries that stand in for CANN's.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

from deepspeech2.cli import UserError
from deepspeech2.engines import ascend, is_installed, version
from deepspeech2.engines.torchscript.cuda import number

NAME = "torch_npu"
INSTALL = "source CANN's set_env.sh (profiles/ascend/python does) and see docs/hardware.md"
# What the operators may compute in: without it, devices older than the 910B multiply float32 in
# float16.
KEEP = {"ACL_PRECISION_MODE": "must_keep_origin_dtype"}


def plugin() -> Any:
    """The imported torch_npu. Raises `UserError`, in one line, where it is missing or broken."""
    if not is_installed(NAME):
        raise UserError(
            f"no package {NAME} in {sys.executable}; install the version of its torch, and CANN "
            "(docs/hardware.md)"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints warnings
            return importlib.import_module(NAME)
    except Exception as error:  # a library of CANN's, another torch, a second accelerator
        raise UserError(
            f"{NAME} {version(NAME)} cannot be imported beside torch {version('torch')} ({error}): "
            f"their versions must be the same; {INSTALL}"
        ) from None


def missing(device: str = "npu") -> str | None:
    """Why torch cannot compute on `device`, in one line, or None where it can."""
    try:
        count = plugin().npu.device_count()
    except Exception as error:
        return str(UserError(error))
    if not count:
        return f"{NAME} finds no NPU: is the driver installed? npu-smi info says so; {INSTALL}"
    if number(device) >= count:
        return f"there is no device {device}: {NAME} finds {count}, counted from npu:0"
    return None


def choose(device: str, precision: str) -> dict[str, Any]:
    """Make `device` the one that computes, at fp32 in float32. Returns what was set for that."""
    runtime, keep = plugin().npu, KEEP if precision == "fp32" else {}
    # Kernels that are there, for any shape: else each new shape is compiled when it is first met.
    runtime.set_compile_mode(jit_compile=False)
    # HF32 has 11 bits of mantissa instead of 23, and convolutions use it unless told otherwise.
    runtime.conv.allow_hf32 = runtime.matmul.allow_hf32 = False
    runtime.set_option(dict(keep))
    runtime.set_device(device)
    hf32 = {"conv": runtime.conv.allow_hf32, "matmul": runtime.matmul.allow_hf32}
    return {"allow_hf32": hf32, **keep}


def versions(device: str | None = None) -> dict[str, str]:
    """torch_npu, CANN, driver and, where it is named, the device, as far as they are there."""
    found = {NAME: version(NAME) or "unknown", "CANN": ascend.cann(), "driver": ascend.smi()[0]}
    if device:
        found["device"] = plugin().npu.get_device_name(device)
    return {name: str(value) for name, value in found.items() if value}


def devices() -> dict[str, str]:
    """Names of the NPUs that torch_npu finds, by device."""
    runtime = plugin().npu
    return {f"npu:{n}": runtime.get_device_name(n) for n in range(runtime.device_count())}
