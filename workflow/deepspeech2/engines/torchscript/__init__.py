"""The backend `torchscript`: a frozen trace, run by torch on the CPU, on a GPU or on an NPU.

In float32 on the CPU it is the exported trace. A trace keeps the precision and the device that it
was made with, so for any other the network is traced anew, from the weights. The artefact serves
any shape: one made for a batch size differs from another only in name.

On GPUs (device cuda) it ran on an H100; docs/hardware.md says what was seen there. On Ascend NPUs
(device npu, through torch_npu) it has **never run**; a strict stand-in in the tests holds it to the
plugin's rules.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from deepspeech2 import cores, engines
from deepspeech2.cli import UserError
from deepspeech2.engines import PACKAGES, Finding, Option, Shape, installed
from deepspeech2.engines.torchscript import cuda, npu

if TYPE_CHECKING:
    import torch

ARTEFACT = "model.pt"
WEIGHTS = "weights.safetensors"  # instead of it where the network is not traced
PRECISIONS = {"cpu": ("fp32", "bf16"), **dict.fromkeys(("cuda", "npu"), ("fp32", "fp16", "bf16"))}
OPTIONS_ON = {"cpu": (), "cuda": ("cuda_graphs", "tf32"), "npu": ("traced",)}


class Backend(engines.Backend):
    """See the module."""

    packages, proven = (*PACKAGES, "torch"), ("cpu", "cuda")
    settings: ClassVar[dict[str, Any]] = {}  # of an NPU's arithmetic, for the record
    options: ClassVar[dict[str, Option]] = {
        "cuda_graphs": Option(
            False,
            "on GPUs: record the network once for each width and start it as a whole: less work "
            "for the host (form static; padding longest or buckets)",
        ),
        "tf32": Option(
            False, "on GPUs, at fp32: multiply with 10 bits of mantissa, not 23: faster"
        ),
        "traced": Option(True, "on NPUs: false runs the network as Python has it, not its trace"),
    }

    @classmethod
    def options_on(cls, device: str) -> dict[str, Option]:
        names = OPTIONS_ON.get(device.partition(":")[0], ())
        return {name: cls.options[name] for name in names}

    @classmethod
    def examine(cls, device: str | None = None) -> Finding:
        """The CPU, GPUs and NPUs, through torch. What a device lacks is missing only if named."""
        found, missing = installed(cls.packages)
        found["cpu"] = cores.found()
        doubts = []
        kind = (device or "").partition(":")[0]
        for name, here in (("cuda", cuda), ("npu", npu)):
            if "torch" not in found or (name == "npu" and kind not in ("", "npu")):
                continue
            try:
                lacking = here.missing(device if kind == name else name)
                found.update({**here.versions(), **({} if lacking else here.devices())})
            except Exception as error:  # a numpy that does not fit, a library that is not there
                missing.append(f"torch is installed but cannot be used ({error})")
                break
            if lacking and kind == name:
                missing.append(lacking)
            elif lacking:
                doubts.append(f"no engine with device {name} can run: {lacking}")
        return Finding("torchscript", found, missing, doubts)

    @property
    def source(self) -> str:
        plain = self.engine.device == "cpu" and self.engine.precision == "fp32"
        return "torchscript" if plain else "weights"

    @property
    def _kind(self) -> str:
        return self.engine.device.partition(":")[0]

    @property
    def _place(self) -> str:
        """The device as torch wants it named: a GPU or an NPU with its number."""
        return "cpu" if self._kind == "cpu" else f"{self._kind}:{cuda.number(self.engine.device)}"

    @property
    def _traced(self) -> bool:
        return self.engine.options.get("traced", True)

    def check(self) -> None:
        engine, kind = self.engine, self._kind
        if not re.fullmatch(r"cpu|(cuda|npu)(:\d{1,3})?", engine.device):
            raise UserError(
                f"backend torchscript serves cpu, cuda:N and npu:N, not {engine.device!r}"
            )
        if engine.precision not in PRECISIONS[kind]:
            raise UserError(
                f"backend torchscript computes {' or '.join(PRECISIONS[kind])} on {kind}, not "
                f"{engine.precision!r}"
            )
        if kind == "npu" and engine.form == "packed":
            raise UserError(
                "backend torchscript: on npu the form must be static (docs/hardware.md)"
            )
        if engine.options.get("tf32") is True and engine.precision != "fp32":
            raise UserError("backend torchscript: tf32 is a way to compute fp32")
        if engine.options.get("cuda_graphs") is True and engine.form == "packed":
            raise UserError(
                "backend torchscript: cuda_graphs need form static; packing waits for the lengths"
            )
        if engine.options.get("cuda_graphs") is True and engine.padding == "batch":
            raise UserError(
                "backend torchscript: cuda_graphs are recorded for one width each, so padding must "
                "be longest; name buckets to have several widths"
            )

    def prepare(self) -> None:
        import torch

        from deepspeech2.engines.torch_aie.session import plugin_errors
        from deepspeech2.model.network import SCATTERED
        from deepspeech2.model.trace import require_torchscript

        require_torchscript()
        if self.engine.device == "cpu":
            return
        reason = (npu if self._kind == "npu" else cuda).missing(self.engine.device)
        if reason:
            raise UserError(f"device {self.engine.device}: {reason}")
        # TorchScript fuses operators once it has seen a shape, and what is fused rounds otherwise:
        # the first pass over every width would have other bits than the next.
        torch._C._jit_set_texpr_fuser_enabled(False)
        if self._kind == "npu":
            with plugin_errors(f"{npu.NAME} does not take the device {self._place}"):
                self.settings = npu.choose(self._place, self.engine.precision)
            self.fake = bool(getattr(npu.plugin(), "__fake__", False))
            return
        warnings.filterwarnings("ignore", SCATTERED, UserWarning)
        # For cuBLAS to compute the same every time; it looks when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2")
        torch.cuda.set_device(self._place)
        # fp32 is float32 unless the options say otherwise, sums are float32 in every precision, and
        # cuDNN takes the algorithms that it takes every time, not those that were fastest just now.
        tf32 = self.engine.options.get("tf32", False)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        import torch

        from deepspeech2.engines.torchscript.session import quiet
        from deepspeech2.model.trace import save, trace

        if not self._traced:
            shutil.copyfile(source, folder / WEIGHTS)
            return {}
        with quiet():
            if self.source == "torchscript":
                module = torch.jit.load(str(source), map_location="cpu").eval()
            else:
                module = trace(self._network(source), self._place)
            save(torch.jit.freeze(module), folder / ARTEFACT)
        return {}

    def _network(self, weights: Path) -> torch.nn.Module:
        """The network on its device, in its precision."""
        import torch

        from deepspeech2.model import network

        types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        net = network.load_alone(weights, self.engine.form, types[self.engine.precision])
        return net.to(self._place)

    def open(self, folder: Path, threads: int) -> engines.Session:
        import torch

        from deepspeech2.engines.torchscript.session import (
            DeviceSession,
            GraphSession,
            Session,
            quiet,
        )

        torch.set_num_threads(threads)
        if self._traced:
            with quiet():
                module = torch.jit.load(str(folder / ARTEFACT), map_location=self._place)
        else:
            module = self._network(folder / WEIGHTS)
        packed = self.engine.form == "packed"
        if self._kind == "cpu":
            return Session(module, packed)
        kind = GraphSession if self.engine.options.get("cuda_graphs") else DeviceSession
        session = kind(module, packed, self._place)
        session.notes = self.settings
        return session

    def versions(self) -> dict[str, str]:
        import torch

        versions = {"torch": torch.__version__}
        if self._kind == "npu":
            versions.update(npu.versions(self._place))
        elif self._kind == "cuda":
            versions.update(cuda.versions(), device=torch.cuda.get_device_name(self._place))
        return versions
