"""The backend `torch_aie`: Ascend NPUs, by Huawei's torch_aie or its successor mindietorch.

The trace is compiled for fixed shapes, one file per width of the batches, with the arguments that
the reference guide compiles with. **Never run on real hardware**: what is known of the plugin's
functions was read in public code and manuals, and a strict stand-in in the tests holds it to that.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from deepspeech2 import engines, files
from deepspeech2.cli import UserError
from deepspeech2.engines import PACKAGES, Finding, Option, Shape, ascend, installed, is_installed
from deepspeech2.engines.ascend import plugin_errors

POLICIES = {"fp16": ("FP16", "PREF_FP16"), "fp32": ("FP32", "PREF_FP32")}
TORCHSCRIPT = "torchscript.pt"  # the trace itself, for compiling at load
SHAPES = "shapes.json"
# Arguments of the compiler besides inputs and precision, as the reference has them.
ARGUMENTS = {
    "truncate_long_and_double": Option(True, "compute 64-bit numbers with 32 bits"),
    "require_full_compilation": Option(False, "leave no operator to torch"),
    "allow_tensor_replace_int": Option(False, "let tensors stand for integers"),
    "min_block_size": Option(3, "operators that a part for the NPU has at least", 0, 1024),
    "torch_executed_ops": Option(
        [], "operators to leave to torch, like aten::lstm", pattern=r"\w+::\w+"
    ),
    "soc_version": Option(
        "Ascend310P3", "kind of the device; the doctor names it", pattern="Ascend[0-9A-Za-z_-]+"
    ),
    "optimization_level": Option(0, "of the compiler", 0, 2),
}


class Backend(engines.Backend):
    """See the module."""

    proven = ()
    fixed_shapes = True
    packages = (*PACKAGES, "torch")
    device, precision = "npu:0", "fp16"
    options: ClassVar[dict[str, Option]] = {
        "precision_policy": Option(
            None,
            "FP16 or PREF_FP16 at precision fp16, FP32 or PREF_FP32 at fp32; null is the first",
            pattern="(PREF_)?FP(16|32)",
            optional=True,
        ),
        **ARGUMENTS,
        "need_compile": Option(False, "compile when a session opens, not ahead"),
    }

    @classmethod
    def examine(cls, device: str | None = None) -> Finding:
        """Ascend NPUs: plugin, CANN, driver, devices, and whether their versions go together."""
        found, missing = installed(cls.packages)
        doubts = []
        name = ascend.package()
        if is_installed("torch") or not name:  # it can be imported only beside torch
            try:
                ascend.plugin()
            except UserError as error:
                missing.append(str(error))
        lacking = [package for package in ascend.CANN_NEEDS if engines.version(package) is None]
        if lacking:
            doubts.append(f"CANN's compiler needs {', '.join(lacking)} (envs/torch_aie.txt)")
        if name:
            found[name] = engines.version(name) or "unknown version"
        python = platform.python_version()
        if name and not ascend.is_compatible(name, found.get("torch", ""), python):
            doubts.append(
                f"{name} with torch {found.get('torch', 'missing')} and Python {python} is not a "
                "known combination"
            )
        known = [row[3] for row in ascend.COMPATIBLE_VERSIONS if row[0].split()[0] == name]
        machine, unclear = ascend.examine()
        cann = machine.get("CANN")
        if cann and known and not any(re.search(rf"\b{re.escape(cann)}", row) for row in known):
            doubts.append(f"{name} goes with {'; '.join(known)}, not with CANN {cann}")
        found |= machine
        doubts += unclear
        return Finding("torch_aie", found, missing, doubts)

    def check(self) -> None:
        engine = self.engine
        ascend.require_device(engine)
        if engine.precision not in POLICIES:
            raise UserError(
                f"backend torch_aie computes {' or '.join(POLICIES)}, not {engine.precision}"
            )
        if engine.padding == "batch":
            raise UserError(
                "backend torch_aie compiles fixed shapes, so padding must be longest; name buckets "
                "to have several widths"
            )
        policies = POLICIES[engine.precision]
        policy = engine.options.get("precision_policy")
        if policy not in (None, *policies):
            raise UserError(
                f"backend torch_aie: precision_policy {policy!r} does not go with precision "
                f"{engine.precision}; choose {' or '.join(policies)}"
            )

    def prepare(self) -> None:
        self.plugin = ascend.plugin()
        self.fake = bool(getattr(self.plugin, "__fake__", False))
        from deepspeech2.model.trace import require_torchscript

        require_torchscript()
        with plugin_errors(f"{self.plugin.__name__} does not take the device {self.engine.device}"):
            self.plugin.set_device(self._number())

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        from deepspeech2.engines.torch_aie.session import finalize, left_to_torch

        files.write_json(folder / SHAPES, shapes)
        modules = []
        try:
            if self._option("need_compile"):
                shutil.copyfile(source, folder / TORCHSCRIPT)
                return {"compiled": "when a session opens"}
            for shape in shapes:
                modules.append(self._compile(source, shape))
                with plugin_errors(f"{self.plugin.__name__} does not save what it compiled"):
                    modules[-1].save(str(folder / f"{shape.frames}.pt"))
            return left_to_torch(modules)
        finally:
            finalize(self.plugin)

    def open(self, folder: Path, threads: int) -> engines.Session:
        import torch

        from deepspeech2.engines.torch_aie.session import Session, finalize, left_to_torch
        from deepspeech2.engines.torchscript.session import quiet

        torch.set_num_threads(threads)  # for what the plugin leaves to torch
        modules = {}
        try:
            for shape in (Shape(*values) for values in files.read_json(folder / SHAPES)):
                if self._option("need_compile"):
                    module = self._compile(folder / TORCHSCRIPT, shape)
                else:
                    path = folder / f"{shape.frames}.pt"
                    with plugin_errors(f"{path}: {self.plugin.__name__} cannot load it"), quiet():
                        module = torch.jit.load(str(path))
                modules[shape.frames] = module
            packed = self.engine.form == "packed"
            session = Session(self.plugin, modules, self.engine.device, packed)
            if self._option("need_compile"):
                session.notes = left_to_torch(modules.values())
            return session
        except BaseException:
            finalize(self.plugin)
            raise

    def versions(self) -> dict[str, str]:
        import torch

        name = ascend.package()
        driver, devices = ascend.smi()
        versions = {
            "torch": torch.__version__,
            name: name and (engines.version(name) or "unknown"),
            "CANN": ascend.cann(),
            "driver": driver,
            "device": next((d.name for d in devices if d.number == self._number()), None),
        }
        return {key: value for key, value in versions.items() if key and value}

    def _option(self, name: str) -> Any:
        return self.engine.options.get(name, self.options[name].default)

    def _number(self) -> int:
        return int(self.engine.device.partition(":")[2])

    def _compile(self, source: Path, shape: Shape) -> Any:
        import torch

        from deepspeech2.engines.torchscript.session import quiet

        plugin, soc = self.plugin, self._option("soc_version")
        device = next((d for d in ascend.smi()[1] if d.number == self._number()), None)
        if device and ascend.soc_version(device) != soc:
            raise UserError(
                f"soc_version is {soc}, but {self.engine.device} is an "
                f"{ascend.soc_version(device)}; set engines.<name>.options.soc_version"
            )
        policy = self._option("precision_policy") or POLICIES[self.engine.precision][0]
        batch, bins, frames = shape
        with (
            plugin_errors(f"{plugin.__name__} does not compile {source.name} for {shape}"),
            quiet(),
        ):
            policies = getattr(plugin, "PrecisionPolicy", None) or plugin._enums.PrecisionPolicy
            if not hasattr(policies, policy):
                raise UserError(f"{plugin.__name__} has no precision_policy {policy}")
            inputs = [
                plugin.Input([batch, 1, bins, frames], dtype=plugin.dtype.FLOAT),
                plugin.Input([batch], dtype=plugin.dtype.INT32),
            ]
            module = torch.jit.load(str(source), map_location="cpu").eval()
            return plugin.compile(
                module,
                inputs=inputs,
                precision_policy=getattr(policies, policy),
                **{name: self._option(name) for name in ARGUMENTS},
            )
