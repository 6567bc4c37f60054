"""The backend `torchscript`: a frozen trace, run by torch on the CPU or on a GPU.

In float32 on the CPU it is the exported trace. A trace keeps the precision and the device that it
was made with, so for any other the network is traced anew, from the weights. The artefact serves
any shape: one made for a batch size differs from another only in name.

**On GPUs (device cuda) this has never run**: whoever wrote it had none.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from deepspeech2 import backends, cuda
from deepspeech2.backends import Shape
from deepspeech2.stage import UserError

if TYPE_CHECKING:
    import torch

ARTEFACT = "model.pt"
PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "fp16", "bf16")}
# TorchScript is what the reference exports and what torch_aie compiles, deprecated or not.
DEPRECATED = ".*torch.jit.* is deprecated"
# Weights that were loaded lie apart, and cuDNN copies them together in every pass. That takes less
# than a millisecond, and what would spare it is no public function of torch.
SCATTERED = "RNN module weights are not part of single contiguous chunk"
GRAPH_WARM_UP = 3  # passes before a CUDA graph is recorded: TorchScript compiles in the first two


class Backend(backends.Backend):
    """See the module.

    Both options are of GPUs. `tf32` lets fp32 round what is multiplied to 10 bits of mantissa.
    `cuda_graphs` records the network once for each shape and then starts it as a whole.
    """

    options: ClassVar[dict[str, Any]] = {"cuda_graphs": False, "tf32": False}

    @classmethod
    def options_on(cls, device: str) -> dict[str, Any]:
        return {} if device == "cpu" else cls.options

    @property
    def source(self) -> str:
        plain = self.engine.device == "cpu" and self.engine.precision == "fp32"
        return "torchscript" if plain else "weights"

    @property
    def _place(self) -> str:
        """The device as torch wants it named: a GPU with its number."""
        return "cpu" if self.engine.device == "cpu" else f"cuda:{cuda.number(self.engine.device)}"

    def check(self) -> None:
        engine, kind = self.engine, self.engine.device.partition(":")[0]
        if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", engine.device):
            raise UserError(
                f"backend torchscript serves the devices cpu and cuda:N, not {engine.device!r}"
            )
        if engine.precision not in PRECISIONS[kind]:
            raise UserError(
                f"backend torchscript computes {' or '.join(PRECISIONS[kind])} on {kind}, not "
                f"{engine.precision!r}"
            )
        for name, value in engine.options.items():
            if type(value) is not bool:
                raise UserError(f"backend torchscript: {name} must be true or false, not {value!r}")
        if engine.options.get("tf32") and engine.precision != "fp32":
            raise UserError("backend torchscript: tf32 is a way to compute fp32")
        if engine.options.get("cuda_graphs") and engine.form == "packed":
            raise UserError(
                "backend torchscript: cuda_graphs need form static; packing waits for the lengths"
            )
        if engine.options.get("cuda_graphs") and engine.padding == "batch":
            raise UserError(
                "backend torchscript: cuda_graphs are recorded for one width each, so padding must "
                "be longest; name buckets to have several widths"
            )

    def prepare(self) -> None:
        import torch  # it takes seconds

        if self.engine.device == "cpu":
            return
        reason = cuda.missing(self.engine.device)
        if reason:
            raise UserError(f"device {self.engine.device}: {reason}")
        warnings.filterwarnings("ignore", SCATTERED, UserWarning)
        # For cuBLAS to compute the same every time; it looks when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2")
        torch.cuda.set_device(self._place)
        # fp32 is float32 unless it is said otherwise, sums are float32 in every precision, and
        # cuDNN takes the algorithms that it takes every time, not those that were fastest just now.
        tf32 = self.engine.options.get("tf32", False)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        import torch

        with quiet():
            if self.source == "torchscript":
                module = torch.jit.load(str(source), map_location="cpu").eval()
            else:
                module = self._trace(source)
            torch.jit.save(torch.jit.freeze(module), str(folder / ARTEFACT))
        return {}

    def _trace(self, weights: Path) -> torch.jit.ScriptModule:
        import torch

        from deepspeech2 import export, network

        names = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        engine = self.engine
        net = network.load_alone(weights, engine.form, names[engine.precision])
        return export.trace(net.to(self._place), self._place)

    def open(self, folder: Path, threads: int) -> backends.Session:
        import torch

        torch.set_num_threads(threads)
        packed, graphs = self.engine.form == "packed", self.engine.options.get("cuda_graphs", False)
        with quiet():
            module = torch.jit.load(str(folder / ARTEFACT), map_location=self._place)
        if self._place == "cpu":
            return Session(module, packed)
        return CudaSession(module, packed, self._place, graphs)

    def versions(self) -> dict[str, str]:
        import torch

        found = {"torch": torch.__version__}
        if self.engine.device != "cpu":
            found.update(cuda.versions(), device=torch.cuda.get_device_name(self._place))
        return found


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


class CudaSession(Session):
    """The same on a GPU, where `forward` only starts what `synchronize` waits for."""

    def __init__(self, module: torch.jit.ScriptModule, packed: bool, device: str, graphs: bool):
        super().__init__(module, packed)
        self.device, self.graphs = device, {} if graphs else None

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        *tensors, unsort = super().upload(spectrograms, lengths)
        tensors = [x.pin_memory().to(self.device, non_blocking=True) for x in tensors]
        if self.graphs is not None and tensors[0].shape not in self.graphs:
            self.graphs[tensors[0].shape] = self._record(*tensors)
        self.synchronize()  # else the copy would be timed as part of what comes next
        return (*tensors, unsort)

    def _record(self, *tensors: torch.Tensor) -> Any:
        """A CUDA graph for tensors of these shapes, with the places of its input and output."""
        import torch

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
        import torch

        *tensors, unsort = batch
        if self.graphs is None:
            return super().forward(batch)
        graph, places, outputs = self.graphs[tensors[0].shape]
        with torch.inference_mode():
            for place, x in zip(places, tensors):
                place.copy_(x)
            graph.replay()
            return (*(x.clone() for x in outputs), unsort)

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize(self.device)

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        *outputs, unsort = result
        return super().download((*(x.to("cpu") for x in outputs), unsort))

    def peak_memory_bytes(self) -> int:
        import torch

        return torch.cuda.max_memory_allocated(self.device)
