"""The backend `openvino`: the network as ONNX, by Intel's OpenVINO on the CPU.

Its form is static: where a recurrent node is given lengths, as in the packed form, OpenVINO's CPU
plugin (2026.4) computes other numbers than ONNX says. There is no int8: NNCF's compression leaves
LSTMs as they are, and its quantisation wants speech to calibrate with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from deepspeech2 import cores, engines
from deepspeech2.cli import UserError
from deepspeech2.engines import PACKAGES, Finding, Option, Shape, installed

if TYPE_CHECKING:
    import numpy as np

ARTEFACT = "model.xml"
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
HINTS = ("latency", "throughput")


class Backend(engines.Backend):
    """See the module."""

    extra = "openvino"
    packages = (*PACKAGES, "openvino")
    options: ClassVar[dict[str, Option]] = {
        "hint": Option(
            "latency",
            "latency: all threads compute a batch together; throughput: they share its utterances, "
            "in as many streams as OpenVINO thinks best",
            pattern="|".join(HINTS),
        )
    }

    @classmethod
    def examine(cls, device: str | None = None) -> Finding:
        """OpenVINO, and what its CPU plugin computes."""
        found, missing = installed(cls.packages)
        found["cpu"] = cores.found()
        if "openvino" in found:
            try:
                found["computes"] = ", ".join(_computes())
            except Exception as error:  # a library that is not there, half an installation
                missing.append(f"openvino is installed but cannot be used ({error})")
        return Finding("openvino", found, missing, [])

    def lacks(self) -> list[str]:
        lacking = super().lacks()
        if not lacking and self.engine.precision == "bf16" and "BF16" not in _computes():
            lacking.append("OpenVINO finds no instructions for bf16 on this CPU")
        return lacking

    @property
    def source(self) -> str:
        return "onnx"

    def check(self) -> None:
        engine = self.engine
        if engine.device != "cpu":
            raise UserError(f"backend openvino serves the device cpu, not {engine.device!r}")
        if engine.precision not in PRECISIONS:
            raise UserError(
                f"backend openvino computes {' or '.join(PRECISIONS)}, not {engine.precision!r}"
            )
        if engine.form != "static":
            raise UserError("backend openvino has no form packed, whose lengths it does not heed")

    def prepare(self) -> None:
        lacking = self.lacks()
        if lacking:
            raise UserError(f"backend openvino cannot run: {'; '.join(lacking)}")

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        import openvino

        try:
            model = openvino.Core().read_model(source)
        except RuntimeError as error:
            raise UserError(f"{source}: OpenVINO cannot read it ({error})") from None
        openvino.save_model(model, folder / ARTEFACT, compress_to_fp16=False)
        session = self.open(folder, 1)
        notes = session.notes
        session.close()
        return notes

    def open(self, folder: Path, threads: int) -> engines.Session:
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.engine.precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": self.engine.options["hint"].upper(),
        }
        path = folder / ARTEFACT
        try:
            compiled = openvino.Core().compile_model(path, "CPU", settings)
        except RuntimeError as error:
            raise UserError(f"{path}: OpenVINO cannot compile it ({error})") from None
        return Session(compiled)

    def versions(self) -> dict[str, str]:
        return {"openvino": engines.version("openvino") or "unknown"}


class Session(engines.Session):
    """Runs a compiled model; a batch is shared by as many requests as there are streams."""

    def __init__(self, compiled: Any):
        count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.notes = {"streams": count, "computed in": precision}
        self.requests = [compiled.create_infer_request() for _ in range(count)]

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        import openvino

        lengths, parts = lengths.astype("i4", copy=False), min(len(lengths), len(self.requests))
        edges = [len(lengths) * part // parts for part in range(parts + 1)]
        return [
            [
                openvino.Tensor(array[start:end], shared_memory=True)
                for array in (spectrograms, lengths)
            ]
            for start, end in zip(edges, edges[1:])
        ]

    def forward(self, batch: Any) -> Any:
        self.running = self.requests[: len(batch)]
        for request, tensors in zip(self.running, batch):
            request.start_async(dict(enumerate(tensors)))
        return self.running

    def synchronize(self) -> None:
        for request in self.running:
            request.wait()

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        outputs = [[tensor.data for tensor in request.output_tensors] for request in result]
        probabilities, lengths = zip(*outputs)
        return np.concatenate(probabilities), np.concatenate(lengths)


def _computes() -> list[str]:
    """What OpenVINO's CPU plugin says that it is made for."""
    import openvino

    return openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
