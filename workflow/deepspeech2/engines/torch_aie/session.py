"""Sessions of the backend `torch_aie`, and what its plugin's failures become."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from deepspeech2 import engines
from deepspeech2.cli import UserError, log
from deepspeech2.engines.ascend import plugin_errors
from deepspeech2.engines.torchscript.session import by_length


def finalize(plugin: Any) -> None:
    """Give the device back. Where that fails, or cannot be done at all, no result is the worse."""
    try:
        plugin.finalize()
    except Exception as error:
        log.info("%s: finalize failed (%s)", plugin.__name__, error)


def left_to_torch(modules: Iterable[Any]) -> dict[str, Any]:
    """Operators of compiled modules that torch computes, not the NPU, as a note for the record.

    None where the plugin does not tell.
    """
    found: set[str] = set()

    def visit(block: Any) -> None:
        for node in block.nodes():
            if node.kind().startswith("aten::"):
                found.add(node.kind())
            for inner in node.blocks():
                visit(inner)

    try:
        for module in modules:
            visit(module.inlined_graph)
    except (AttributeError, RuntimeError, TypeError):
        return {"left_to_torch": None}
    return {"left_to_torch": sorted(found)}


class Session(engines.Session):
    """Runs compiled modules, one for each width, on one stream. Packed ones get sorted input."""

    def __init__(self, plugin: Any, modules: dict[int, Any], device: str, packed: bool):
        self.plugin, self.modules, self.device, self.packed = plugin, modules, device, packed
        with plugin_errors(f"{plugin.__name__} has no stream on {device}"):
            self.stream = plugin.npu.Stream(device)

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        frames = spectrograms.shape[3]
        if frames not in self.modules:
            known = ", ".join(map(str, self.modules))
            raise UserError(f"nothing was compiled for {frames} frames, only for {known}")
        x, n, unsort = torch.from_numpy(spectrograms), torch.from_numpy(lengths), None
        if self.packed:
            order, unsort = by_length(n)
            x, n = x[order], n[order]
        with plugin_errors(f"cannot copy a batch to the device {self.device}"):
            x = x.to(torch.float32).contiguous().to(self.device)
            n = n.to(torch.int32).contiguous().to(self.device)
        return self.modules[frames], x, n, unsort

    def forward(self, batch: Any) -> Any:
        module, x, n, unsort = batch
        errors = plugin_errors(f"the network does not run on {self.device}")
        with errors, self.plugin.npu.stream(self.stream):
            return (*module.forward(x, n), unsort)

    def synchronize(self) -> None:
        with plugin_errors(f"the network does not run on {self.device}"):
            self.stream.synchronize()

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        *outputs, unsort = result
        with plugin_errors(f"the results do not come back from {self.device}"):
            # What torch computed may be on the host already: then this does nothing.
            outputs = [x.to("cpu") for x in outputs]
        probabilities, lengths = outputs
        if unsort is not None:
            probabilities, lengths = probabilities[unsort], lengths[unsort]
        return probabilities.to(torch.float32).numpy(), lengths.to(torch.int32).numpy()

    def close(self) -> None:
        """Give the device back. The plugin cannot be used again in this process."""
        self.modules = {}
        finalize(self.plugin)
