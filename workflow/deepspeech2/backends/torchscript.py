"""The backend `torchscript`: the trace itself, frozen, on the CPU in float32.

The artefact is the frozen trace. It serves any shape, so one made for a batch size differs from
another only in name; backends for fixed shapes differ in content.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepspeech2 import backends
from deepspeech2.backends import Shape
from deepspeech2.stage import UserError

if TYPE_CHECKING:
    import torch

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

    def prepare(self) -> None:
        import torch  # noqa: F401  it takes seconds

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        import torch

        with quiet():
            module = torch.jit.load(str(source), map_location="cpu").eval()
            torch.jit.save(torch.jit.freeze(module), str(folder / ARTEFACT))
        return {}

    def open(self, folder: Path, threads: int) -> backends.Session:
        import torch

        torch.set_num_threads(threads)
        with quiet():
            module = torch.jit.load(str(folder / ARTEFACT))
        return Session(module, self.engine.form == "packed")

    def versions(self) -> dict[str, str]:
        import torch

        return {"torch": torch.__version__}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that TorchScript is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", DEPRECATED, DeprecationWarning)
        yield


def by_length(lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The order that packing needs, longest first, ties as they come, and what undoes it."""
    import torch

    order = torch.argsort(lengths, descending=True, stable=True)
    return order, torch.argsort(order)


class Session(backends.Session):
    """Runs a TorchScript module. The packed form gets its input sorted by length."""

    def __init__(self, module: torch.jit.ScriptModule, packed: bool):
        self.module, self.packed = module, packed

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        import torch

        tensors = torch.from_numpy(spectrograms), torch.from_numpy(lengths)
        if not self.packed:
            return (*tensors, None)
        order, unsort = by_length(tensors[1])
        return tensors[0][order], tensors[1][order], unsort

    def forward(self, batch: Any) -> Any:
        import torch

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
