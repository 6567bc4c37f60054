"""The backend `torchscript`: the trace itself, frozen, on the CPU in float32.

The artefact is the frozen trace. It serves any shape, so one made for a batch size differs from
another only in name; backends for fixed shapes differ in content.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepspeech2 import backends
from deepspeech2.backends import Shape
from deepspeech2.stage import UserError

ARTEFACT = "model.pt"
# TorchScript is what the reference exports and what torch_aie compiles, deprecated or not.
DEPRECATED = ".*torch.jit.* is deprecated"


class Backend(backends.Backend):
    """See the module."""

    def check(self) -> None:
        engine = self.engine
        if engine.device != "cpu":
            raise UserError(f"backend torchscript serves the device cpu, not {engine.device!r}")
        if engine.precision != "fp32":
            raise UserError(f"backend torchscript computes fp32, not {engine.precision!r}")
        if engine.options:
            raise UserError(f"backend torchscript has no option {next(iter(engine.options))!r}")

    def compile(self, source: Path, shape: Shape, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", DEPRECATED, DeprecationWarning)
            module = torch.jit.load(str(source), map_location="cpu").eval()
            torch.jit.save(torch.jit.freeze(module), str(folder / ARTEFACT))

    def open(self, folder: Path, threads: int) -> backends.Session:
        torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", DEPRECATED, DeprecationWarning)
            module = torch.jit.load(str(folder / ARTEFACT))
        return Session(module, self.engine.form == "packed")

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}


class Session(backends.Session):
    """Runs a TorchScript module. The packed form gets its input sorted by length."""

    def __init__(self, module: torch.jit.ScriptModule, packed: bool):
        self.module, self.packed = module, packed

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        tensors = torch.from_numpy(spectrograms), torch.from_numpy(lengths)
        if not self.packed:
            return (*tensors, None)
        order = torch.argsort(tensors[1], descending=True, stable=True)
        return tensors[0][order], tensors[1][order], torch.argsort(order)

    def forward(self, batch: Any) -> Any:
        spectrograms, lengths, unsort = batch
        with torch.inference_mode():
            return (*self.module(spectrograms, lengths), unsort)

    def synchronize(self) -> None:
        """The CPU computes in `forward`."""

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        probabilities, lengths, unsort = result
        if unsort is not None:
            probabilities, lengths = probabilities[unsort], lengths[unsort]
        return probabilities.numpy(), lengths.numpy()
