"""Sessions of the backend `torchscript`: a module that torch runs on the CPU, a GPU or an NPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from deepspeech2 import engines

# TorchScript is what the reference exports and what torch_aie compiles, deprecated or not.
DEPRECATED = ".*torch.jit.* is deprecated"
GRAPH_WARM_UP = 3  # passes before a CUDA graph is recorded: TorchScript compiles in the first two


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that TorchScript is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", DEPRECATED, DeprecationWarning)
        yield


def by_length(lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The order that packing needs, longest first, ties as they come, and what undoes it."""
    order = torch.argsort(lengths, descending=True, stable=True)
    return order, torch.argsort(order)


class Session(engines.Session):
    """Runs a module, traced or not. The packed form gets its input sorted by length."""

    def __init__(self, module: torch.nn.Module, packed: bool):
        self.module, self.packed = module, packed

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        tensors = torch.from_numpy(spectrograms), torch.from_numpy(lengths)
        if not self.packed:
            return (*tensors, None)
        order, unsort = by_length(tensors[1])
        return tensors[0][order], tensors[1][order], unsort

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


class DeviceSession(Session):
    """The same on a device, where `forward` only starts what `synchronize` waits for."""

    def __init__(self, module: torch.nn.Module, packed: bool, device: str):
        super().__init__(module, packed)
        self.device, kind = device, device.partition(":")[0]
        self.runtime = getattr(torch, kind)  # torch.cuda; torch.npu, which torch_npu brings
        self.pinned = kind == "cuda"

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        *tensors, unsort = super().upload(spectrograms, lengths)
        if self.pinned:
            tensors = [x.pin_memory() for x in tensors]
        tensors = [x.to(self.device, non_blocking=self.pinned) for x in tensors]
        self.synchronize()  # else the copy would be timed as part of what comes next
        return (*tensors, unsort)

    def synchronize(self) -> None:
        self.runtime.synchronize(self.device)

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        *outputs, unsort = result
        return super().download((*(x.to("cpu") for x in outputs), unsort))

    def peak_memory_bytes(self) -> int:
        return self.runtime.max_memory_allocated(self.device)


class GraphSession(DeviceSession):
    """The same on an NVIDIA GPU, with a CUDA graph for each shape."""

    def __init__(self, module: torch.nn.Module, packed: bool, device: str):
        super().__init__(module, packed, device)
        self.graphs: dict[Any, Any] = {}

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        *tensors, unsort = super().upload(spectrograms, lengths)
        if tensors[0].shape not in self.graphs:
            self.graphs[tensors[0].shape] = self._record(*tensors)
            self.synchronize()
        return (*tensors, unsort)

    def _record(self, *tensors: torch.Tensor) -> Any:
        """A CUDA graph for tensors of these shapes, with the places of its input and output."""
        places = [x.clone() for x in tensors]
        aside = torch.cuda.Stream(self.device)  # what recording must not see happens there
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.inference_mode(), torch.cuda.stream(aside):
            for _ in range(GRAPH_WARM_UP):
                self.module(*places)
        torch.cuda.current_stream(self.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            outputs = self.module(*places)
        return graph, places, outputs

    def forward(self, batch: Any) -> Any:
        *tensors, unsort = batch
        graph, places, outputs = self.graphs[tensors[0].shape]
        with torch.inference_mode():
            for place, x in zip(places, tensors):
                place.copy_(x)
            graph.replay()
            return (*(x.clone() for x in outputs), unsort)
