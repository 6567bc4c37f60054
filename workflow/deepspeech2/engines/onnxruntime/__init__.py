"""The backend `onnxruntime`: the network as ONNX, by one of ONNX Runtime's execution providers.

ONNX Runtime takes another provider, without an error, where the one that was asked for cannot be
had. Here that stops the run, and what single nodes were left to the CPU is in the record. Its
packages (onnxruntime, onnxruntime-gpu, -cann, -openvino ...) exclude one another, so each has an
interpreter of its own.

int8 is ONNX Runtime's dynamic quantisation of LSTMs and matrix products: weights have a scale for
each output, activations one for the whole batch, by which an utterance's posteriors depend on what
it is batched with. Convolutions stay float32, which is faster than its own in int8.

Run on CPUs only (providers cpu and openvino).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from deepspeech2 import cores, engines
from deepspeech2.cli import UserError
from deepspeech2.engines import PACKAGES, Finding, Option, Shape, installed

ARTEFACT = "model.onnx"
DISTRIBUTIONS = (
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-cann"),
    *("onnxruntime-directml", "onnxruntime-training", "onnxruntime-silicon"),
)
NUMBERED = ("cuda", "npu", "dml")  # devices of which there may be several
# How much the graph is optimised, with ONNX Runtime's names.
LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class Provider(NamedTuple):
    """ONNX Runtime's name of an execution provider, the device that it serves, and where tensors
    lie for it. `precisions` has its own settings (JSON) for each precision that it computes.
    """

    name: str
    device: str
    memory: str
    package: str
    precisions: dict[str, dict[str, str]]


PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", "cpu", "cpu", "onnxruntime", {"fp32": {}, "int8": {}}),
    "openvino": Provider(
        "OpenVINOExecutionProvider", "cpu", "cpu", "onnxruntime-openvino",
        {"fp32": {"device_type": "CPU", "precision": "FP32"}},
    ),
    "cuda": Provider(
        "CUDAExecutionProvider", "cuda", "cuda", "onnxruntime-gpu", {"fp32": {"use_tf32": "0"}}
    ),
    "tensorrt": Provider(
        "TensorrtExecutionProvider", "cuda", "cuda", "onnxruntime-gpu",
        {"fp32": {}, "fp16": {"trt_fp16_enable": "1"}},
    ),
    "cann": Provider(
        "CANNExecutionProvider", "npu", "cann", "onnxruntime-cann",
        {"fp16": {"precision_mode": "force_fp16"}, "fp32": {"precision_mode": "force_fp32"}},
    ),
    "dml": Provider("DmlExecutionProvider", "dml", "dml", "onnxruntime-directml", {"fp32": {}}),
    "coreml": Provider("CoreMLExecutionProvider", "coreml", "cpu", "onnxruntime", {"fp32": {}}),
}  # fmt: skip


class Backend(engines.Backend):
    """See the module."""

    extra = "onnxruntime"
    packages = (*PACKAGES, "onnxruntime", "onnx")  # the latter for int8
    options: ClassVar[dict[str, Option]] = {
        "provider": Option(
            None,
            f"{', '.join(PROVIDERS)}; null is the first for the device",
            pattern="|".join(PROVIDERS),
            optional=True,
        ),
        "graph_level": Option(
            "all", f"how much the graph is optimised: {', '.join(LEVELS)}", pattern="|".join(LEVELS)
        ),
        "reduce_range": Option(
            False, "int8: weights of 7 bits, for CPUs without VNNI, where sums of 8 can overflow"
        ),
    }

    @classmethod
    def examine(cls, device: str | None = None) -> Finding:
        """Which of its packages is there, and its providers."""
        found, missing = installed(cls.packages)
        doubts = []
        if found.pop("onnxruntime", None):
            there = {name: engines.version(name) for name in DISTRIBUTIONS}
            found |= {name: version for name, version in there.items() if version}
            try:
                import onnxruntime

                names = onnxruntime.get_available_providers()
                found["providers"] = ", ".join(_named(names)) or "none that is known"
            except (ImportError, AttributeError) as error:  # the latter of half an installation
                missing.append(f"onnxruntime is installed but cannot be imported ({error})")
            if sum(map(bool, there.values())) > 1:
                doubts.append(
                    "several of ONNX Runtime's packages overwrite one another; keep one and "
                    "install it anew"
                )
        found["cpu"] = cores.found()
        return Finding("onnxruntime", found, missing, doubts)

    def lacks(self) -> list[str]:
        lacking = super().lacks()
        if not lacking:
            import onnxruntime

            names = onnxruntime.get_available_providers()
            if self._provider.name not in names:
                lacking.append(
                    f"ONNX Runtime has no provider {self.provider} here (it has "
                    f"{', '.join(_named(names))}); install {self._provider.package} alone in an "
                    "interpreter that engines.<name>.python names"
                )
            elif self.provider != "cpu":
                from deepspeech2.engines.onnxruntime.session import probe

                lacking += probe(self._way())
        return lacking

    @property
    def source(self) -> str:
        return "onnx"

    @property
    def provider(self) -> str:
        """The provider's name in the configuration."""
        kind = self.engine.device.partition(":")[0]
        first = next((name for name, one in PROVIDERS.items() if one.device == kind), "cpu")
        return self.engine.options.get("provider") or first

    @property
    def _provider(self) -> Provider:
        return PROVIDERS[self.provider]

    def check(self) -> None:
        engine = self.engine
        self.options["provider"].check("backend onnxruntime: provider", self.provider)
        device, precisions = self._provider.device, self._provider.precisions
        number = r"(:\d{1,3})?" if device in NUMBERED else ""
        if not re.fullmatch(device + number, engine.device):
            raise UserError(
                f"backend onnxruntime: provider {self.provider} serves the device "
                f"{device}{':N' if number else ''}, not {engine.device!r}"
            )
        if engine.precision not in precisions:
            raise UserError(
                f"backend onnxruntime: provider {self.provider} computes {' or '.join(precisions)},"
                f" not {engine.precision!r}"
            )

        if self.provider == "openvino" and engine.form != "static":
            raise UserError(
                "backend onnxruntime: provider openvino has no form packed, whose lengths it does "
                "not heed"
            )

    def prepare(self) -> None:
        lacking = self.lacks()
        if lacking:
            raise UserError(f"backend onnxruntime cannot run: {'; '.join(lacking)}")

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        from deepspeech2.engines.onnxruntime import session

        if self.engine.precision == "int8":
            quantised = session.quantise(
                source, folder / ARTEFACT, self.engine.options["reduce_range"]
            )
        else:
            shutil.copyfile(source, folder / ARTEFACT)
            quantised = {}
        return {**quantised, **session.placement(self._way(), folder / ARTEFACT, shapes[0])}

    def open(self, folder: Path, threads: int) -> engines.Session:
        from deepspeech2.engines.onnxruntime.session import Session

        return Session(self._way(), folder / ARTEFACT, threads)

    def _way(self) -> Any:
        from deepspeech2.engines.onnxruntime.session import Way

        chosen, number = self._provider, int(self.engine.device.partition(":")[2] or 0)
        numbered = {"device_id": str(number)} if chosen.device in NUMBERED else {}
        options = {**numbered, **chosen.precisions[self.engine.precision]}
        level = LEVELS[self.engine.options["graph_level"]]
        return Way(chosen.name, options, chosen.memory, number, level)

    def versions(self) -> dict[str, str]:
        found = {name: engines.version(name) for name in DISTRIBUTIONS}
        return {name: version for name, version in found.items() if version}


def _named(names: Sequence[str]) -> list[str]:
    """The configuration's names of providers."""
    return [name for name, one in PROVIDERS.items() if one.name in names]
