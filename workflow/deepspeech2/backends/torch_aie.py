"""The backend `torch_aie`: Ascend NPUs, by Huawei's torch_aie or its successor mindietorch.

The trace is compiled for fixed shapes, one file per width of the batches, with the arguments that
the reference guide compiles with. It has never run on hardware: what is known of the plugin's
functions was read in public code and manuals, and a strict stand-in in the tests holds it to that.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from deepspeech2 import ascend, backends, files
from deepspeech2.backends import Shape
from deepspeech2.backends.torchscript import by_length, quiet
from deepspeech2.stage import UserError, log

POLICIES = {"fp16": ("FP16", "PREF_FP16"), "fp32": ("FP32", "PREF_FP32")}
TORCHSCRIPT = "torchscript.pt"  # the trace itself, for compiling at load
SHAPES = "shapes.json"
# Arguments of the compiler besides inputs and precision, as the reference has them.
ARGUMENTS: dict[str, Any] = {
    "truncate_long_and_double": True,
    "require_full_compilation": False,
    "allow_tensor_replace_int": False,
    "min_block_size": 3,
    "torch_executed_ops": [],
    "soc_version": "Ascend310P3",
    "optimization_level": 0,
}
RANGES = {"min_block_size": (0, 1024), "optimization_level": (0, 2)}


class Backend(backends.Backend):
    """See the module.

    Option `precision_policy` is FP16 or PREF_FP16 at precision fp16, FP32 or PREF_FP32 at fp32;
    null is the first of them. Option `need_compile` compiles when a session opens, not ahead.
    """

    device, precision = "npu:0", "fp16"
    options: ClassVar[dict[str, Any]] = {
        "precision_policy": None,
        **ARGUMENTS,
        "need_compile": False,
    }

    def check(self) -> None:
        engine, options = self.engine, {**self.options, **self.engine.options}
        found = re.fullmatch(r"npu:(\d{1,4})", engine.device)
        if not found or int(found.group(1)) > 1024:
            raise UserError(f"backend torch_aie serves the devices npu:N, not {engine.device!r}")
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
        if options["precision_policy"] not in (None, *policies):
            raise UserError(
                f"backend torch_aie: precision_policy {options['precision_policy']!r} does not go "
                f"with precision {engine.precision}; choose {' or '.join(policies)}"
            )
        for name, default in {**ARGUMENTS, "need_compile": False}.items():
            value = options[name]
            low, high = RANGES.get(name, (0, 0))
            right = {
                bool: lambda v: type(v) is bool,
                int: lambda v, low=low, high=high: type(v) is int and low <= v <= high,
                str: lambda v: isinstance(v, str) and re.fullmatch("Ascend[0-9A-Za-z_-]+", v),
                list: lambda v: (
                    isinstance(v, list)
                    and all(isinstance(x, str) and re.fullmatch(r"\w+::\w+", x) for x in v)
                ),
            }[type(default)]
            if not right(value):
                example = ["aten::lstm"] if default == [] else default
                limits = f" from {low} to {high}" if name in RANGES else ""
                raise UserError(
                    f"backend torch_aie: {name} {value!r:.100}: must be like {example!r}{limits}"
                )

    def prepare(self) -> None:
        self.plugin = ascend.plugin()
        self.fake = bool(getattr(self.plugin, "__fake__", False))
        with _told(f"{self.plugin.__name__} does not take the device {self.engine.device}"):
            self.plugin.set_device(self._number())

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        files.write_json(folder / SHAPES, shapes)
        modules = []
        try:
            if self._option("need_compile"):
                shutil.copyfile(source, folder / TORCHSCRIPT)
                return {"compiled": "when a session opens"}
            for shape in shapes:
                modules.append(self._compile(source, shape))
                with _told(f"{self.plugin.__name__} does not save what it compiled"):
                    modules[-1].save(str(folder / _name(shape.frames)))
            return left_to_torch(modules)
        finally:
            _finalize(self.plugin)

    def open(self, folder: Path, threads: int) -> backends.Session:
        import torch

        torch.set_num_threads(threads)  # for what the plugin leaves to torch
        modules = {}
        try:
            for shape in (Shape(*values) for values in files.read_json(folder / SHAPES)):
                if self._option("need_compile"):
                    module = self._compile(folder / TORCHSCRIPT, shape)
                else:
                    path = folder / _name(shape.frames)
                    with _told(f"{path}: {self.plugin.__name__} does not load it"), quiet():
                        module = torch.jit.load(str(path))
                modules[shape.frames] = module
            packed = self.engine.form == "packed"
            session = Session(self.plugin, modules, self.engine.device, packed)
            if self._option("need_compile"):
                session.notes = left_to_torch(modules.values())
            return session
        except BaseException:
            _finalize(self.plugin)
            raise

    def versions(self) -> dict[str, str]:
        import torch

        name = ascend.package()
        driver, devices = ascend.smi()
        found = {
            "torch": torch.__version__,
            name: name and (ascend.version(name) or "unknown"),
            "CANN": ascend.cann(),
            "driver": driver,
            "device": next((d.name for d in devices if d.number == self._number()), None),
        }
        return {key: value for key, value in found.items() if key and value}

    def _option(self, name: str) -> Any:
        return self.engine.options.get(name, self.options[name])

    def _number(self) -> int:
        return int(self.engine.device.partition(":")[2])

    def _compile(self, source: Path, shape: Shape) -> Any:
        import torch

        plugin, soc = self.plugin, self._option("soc_version")
        device = next((d for d in ascend.smi()[1] if d.number == self._number()), None)
        if device and ascend.soc_version(device) != soc:
            raise UserError(
                f"soc_version is {soc}, but {self.engine.device} is an "
                f"{ascend.soc_version(device)}; set engines.<name>.options.soc_version"
            )
        policy = self._option("precision_policy") or POLICIES[self.engine.precision][0]
        batch, bins, frames = shape
        with _told(f"{plugin.__name__} does not compile {source.name} for {shape}"), quiet():
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


def _name(frames: int) -> str:
    return f"{frames}.pt"


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn whatever the plugin raises, whose classes are not documented, into one line.

    The log gets all of it: there is nothing else to learn from on hardware that nobody has tried.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        log.info("%s", traceback.format_exc())
        text = " ".join(str(error).split())  # TorchScript puts the cause last
        text = text if len(text) < 700 else f"{text[:200]} ... {text[-400:]}"
        raise UserError(f"{what} ({type(error).__name__}: {text})") from error


def _finalize(plugin: Any) -> None:
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


class Session(backends.Session):
    """Runs compiled modules, one for each width, on one stream. Packed ones get sorted input."""

    def __init__(self, plugin: Any, modules: dict[int, Any], device: str, packed: bool):
        self.plugin, self.modules, self.device, self.packed = plugin, modules, device, packed
        with _told(f"{plugin.__name__} has no stream on {device}"):
            self.stream = plugin.npu.Stream(device)

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        import torch

        frames = spectrograms.shape[3]
        if frames not in self.modules:
            known = ", ".join(map(str, self.modules))
            raise UserError(f"nothing was compiled for {frames} frames, only for {known}")
        x, n, unsort = torch.from_numpy(spectrograms), torch.from_numpy(lengths), None
        if self.packed:
            order, unsort = by_length(n)
            x, n = x[order], n[order]
        with _told(f"a batch does not get to the device {self.device}"):
            x = x.to(torch.float32).contiguous().to(self.device)
            n = n.to(torch.int32).contiguous().to(self.device)
        return self.modules[frames], x, n, unsort

    def forward(self, batch: Any) -> Any:
        module, x, n, unsort = batch
        told = _told(f"the network does not run on {self.device}")
        with told, self.plugin.npu.stream(self.stream):
            return (*module.forward(x, n), unsort)

    def synchronize(self) -> None:
        with _told(f"the network does not run on {self.device}"):
            self.stream.synchronize()

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        import torch

        *outputs, unsort = result
        with _told(f"the results do not come back from {self.device}"):
            # What torch computed may be on the host already: then this does nothing.
            outputs = [x.to("cpu") for x in outputs]
        probabilities, lengths = outputs
        if unsort is not None:
            probabilities, lengths = probabilities[unsort], lengths[unsort]
        return probabilities.to(torch.float32).numpy(), lengths.to(torch.int32).numpy()

    def close(self) -> None:
        """Give the device back. The plugin cannot be used again in this process."""
        self.modules = {}
        _finalize(self.plugin)
