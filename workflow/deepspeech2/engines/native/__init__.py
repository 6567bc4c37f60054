"""The backend `native`: the network in machine code made for this CPU, in fp32, bf16 or int8.

It computes no padding: utterances are taken in order of length, and leave the batch where they end.
Each utterance's posteriors depend on nothing but itself, so they are the same bits at any batch
size, padding and number of threads. The artefact has the weights as the kernels read them; numba
makes the kernels' code when it is first used.

int8: weights have a scale for each output, activations one for each frame (of the state too, at
each step), and in the second convolution one for each utterance. The first convolution is in
bfloat16. Sums of int8 are exact, and cells, normalisation and softmax are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepspeech2 import cores, engines
from deepspeech2.cli import UserError
from deepspeech2.engines import PACKAGES, Finding, Shape

ARTEFACT = "weights.safetensors"
PRECISIONS = ("int8", "bf16", "fp32")


class Backend(engines.Backend):
    """See the module."""

    same_bits = True
    packages = (*PACKAGES, "numba", "llvmlite")

    @classmethod
    def examine(cls, device: str | None = None) -> Finding:
        """The CPU, through numba."""
        name, found, missing, doubts = super().examine(device)
        if not missing:
            import llvmlite.binding

            from deepspeech2.engines.native.instructions import sequence

            found["cpu"] = f"{llvmlite.binding.get_host_cpu_name()}, {cores.found()}"
            chosen = {precision: sequence(precision) for precision in PRECISIONS}
            found |= {precision: f"by {made.name}" for precision, made in chosen.items()}
            doubts = [
                f"the CPU lacks {made.better}: {precision} works, and may be slower than fp32"
                for precision, made in chosen.items()
                if made.better
            ]
        return Finding(name, found, missing, doubts)

    def check(self) -> None:
        engine = self.engine
        if engine.device != "cpu":
            raise UserError(f"backend native serves the device cpu, not {engine.device!r}")
        if engine.precision not in PRECISIONS:
            raise UserError(
                f"backend native computes {', '.join(PRECISIONS)}, not {engine.precision!r}"
            )
        if engine.form != "static":
            raise UserError("backend native has no form packed")

    @property
    def source(self) -> str:
        return "weights"

    def prepare(self) -> None:
        from deepspeech2.engines.native import session  # noqa: F401  it takes a second

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        import numpy as np

        from deepspeech2.engines.native import instructions, packing
        from deepspeech2.model import checkpoint
        from deepspeech2.model.architecture import Architecture

        weights, description = checkpoint.read(source)
        architecture = Architecture(**description["architecture"])
        packed = packing.pack(weights, architecture, self.engine.precision)
        content = checkpoint.to_safetensors(packed, {"architecture": architecture._asdict()})
        (folder / ARTEFACT).write_bytes(content)
        session = self.open(folder, 1)  # makes the kernels' code, which numba keeps
        session.forward(session.upload(np.zeros((1, 1, architecture.bins, 1), "f4"), np.ones(1)))
        session.close()
        return {"instructions": instructions.sequence(self.engine.precision).name}

    def open(self, folder: Path, threads: int) -> engines.Session:
        import safetensors

        from deepspeech2.engines.native.layout import TYPES, aligned
        from deepspeech2.engines.native.session import Session
        from deepspeech2.model import checkpoint
        from deepspeech2.model.architecture import Architecture

        with safetensors.safe_open(folder / ARTEFACT, framework="numpy") as file:
            arrays = {name: aligned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            description = checkpoint.description_of(file.metadata())
        architecture = Architecture(**description["architecture"])
        return Session(arrays, architecture, TYPES[self.engine.precision], threads)

    def versions(self) -> dict[str, str]:
        import llvmlite
        import numba

        return {"numba": numba.__version__, "llvmlite": llvmlite.__version__}
