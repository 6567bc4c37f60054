"""The network as TorchScript, traced: exact at any batch size, length and width."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path

import torch

from deepspeech2.cli import UserError
from deepspeech2.files import replacing
from deepspeech2.model import network

# TorchScript is what the reference exports and what torch_aie compiles, deprecated or not.
DEPRECATED = ".*torch.jit.* is deprecated"
TRACE_LENGTHS = (129, 96)  # frames; two utterances, so that neither axis is traced as a one


def require_torchscript() -> None:
    """Refuse an environment that turns TorchScript off."""
    if os.environ.get("PYTORCH_JIT") == "0":
        raise UserError("PYTORCH_JIT=0 turns TorchScript off; unset it and run again")


def trace(net: network.DeepSpeech2, device: str = "cpu") -> torch.jit.ScriptModule:
    """The network as TorchScript: (B, 1, bins, T) float32 and (B,) int32 as the network itself.

    `device` is where the network is; the trace runs only there.
    """
    require_torchscript()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor(TRACE_LENGTHS, dtype=torch.int32)
    shape = (len(TRACE_LENGTHS), 1, net.architecture.bins, max(TRACE_LENGTHS))
    example = torch.randn(shape, generator=generator)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", DEPRECATED, DeprecationWarning)
        # Packing checks its lengths in Python; the check is not needed in the trace.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        inputs = example.to(device), lengths.to(device)
        return torch.jit.trace(net, inputs, check_trace=False)


def save(module: torch.jit.ScriptModule, path: Path) -> None:
    """Write TorchScript, whole or not at all; the same weights give the same bytes.

    torch names the archive after the file, which is temporary, and keeps where in which source file
    each operation was traced, with a checksum over that. None of it is needed to load it.
    """
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", DEPRECATED, DeprecationWarning)
        torch.jit.save(module, content)
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(content) as whole,
        zipfile.ZipFile(temporary, "w") as kept,
    ):
        for name in whole.namelist():
            if not name.endswith((".debug_pkl", "/.data/serialization_id")):
                kept.writestr(zipfile.ZipInfo(name), whole.read(name))
