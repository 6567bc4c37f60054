"""The backend `acl_om`: Ascend NPUs, by offline models (.om) that CANN's atc makes of ONNX.

A file for each batch size and width, run by ais_bench's InferSession. **Never run on real
hardware**: options and functions were read in public code and manuals, and strict stand-ins in the
tests hold it to that.
"""

from __future__ import annotations

import importlib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from deepspeech2 import engines, files
from deepspeech2.cli import UserError
from deepspeech2.engines import Finding, Option, Shape, ascend, installed
from deepspeech2.engines.acl_om import atc

ABOUT = "about.json"
# What atc computes in, the first where nothing else is asked for.
MODES = {
    "fp16": ("force_fp16", "allow_mix_precision", "allow_fp32_to_fp16"),
    "fp32": ("force_fp32", "must_keep_origin_dtype"),
}
LOOPS = 20  # of zeros, as in the guide
LEVELS = "debug|info|warning|error|null"
INTERFACE = "ais_bench.infer.interface"
HUAWEIS = ("ais_bench", "aclruntime")  # packages that no registry has


class Backend(engines.Backend):
    """See the module."""

    proven = ()
    fixed_shapes = times_zeros = True
    opset = 11  # the guide's
    source = "onnx"
    device, precision = "npu:0", "fp16"
    options: ClassVar[dict[str, Option]] = {
        "precision_mode": Option(
            None,
            "of atc: force_fp16, allow_mix_precision or allow_fp32_to_fp16 at precision fp16, "
            "force_fp32 or must_keep_origin_dtype at fp32; null is the first",
            pattern="|".join(name for names in MODES.values() for name in names),
            optional=True,
        ),
        "soc_version": Option(
            None,
            "kind of the device, like Ascend310P3; null: as npu-smi tells",
            pattern="Ascend[0-9A-Za-z_-]+",
            optional=True,
        ),
        "input_format": Option("NCHW", "of atc: NCHW or ND", pattern="NCHW|ND"),
        "log": Option("error", f"of atc: {LEVELS.replace('|', ', ')}", pattern=LEVELS),
    }

    @classmethod
    def examine(cls, device: str | None = None) -> Finding:
        """Compiler, ais_bench, CANN, driver, devices."""
        found, missing = installed(cls.packages)
        theirs, lacking = installed(HUAWEIS)
        if lacking:
            missing.append(f"{lacking[0].partition(';')[0]}: Huawei's wheels (docs/hardware.md)")
        else:
            try:
                _interface()
            except UserError as error:
                missing.append(str(error))
        if program := shutil.which("atc"):
            found["atc"] = program
        else:
            missing.append(atc.MISSING)
        machine, doubts = ascend.examine()
        return Finding("acl_om", {**found, **theirs, **machine}, missing, doubts)

    def lacks(self) -> list[str]:
        lacking = super().lacks()
        try:
            self.soc_version()
        except UserError as error:
            lacking.append(str(error))
        return lacking

    def check(self) -> None:
        engine = self.engine
        ascend.require_device(engine)
        if engine.precision not in MODES:
            raise UserError(f"backend acl_om computes {' or '.join(MODES)}, not {engine.precision}")
        if engine.padding == "batch":
            raise UserError(
                "backend acl_om compiles fixed shapes, so padding must be longest; name buckets to "
                "have several widths"
            )
        modes, mode = MODES[engine.precision], engine.options.get("precision_mode")
        if mode not in (None, *modes):
            raise UserError(
                f"backend acl_om: precision_mode {mode!r} does not go with precision "
                f"{engine.precision}; choose {', '.join(modes)}"
            )

    def prepare(self) -> None:
        self.interface = _interface()
        self.fake = bool(getattr(sys.modules["ais_bench"], "__fake__", False))

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        soc, options = self.soc_version(), self.engine.options
        settings = {
            "input_format": options["input_format"],
            "log": options["log"],
            "soc_version": soc,
            "precision_mode": options["precision_mode"] or MODES[self.engine.precision][0],
        }
        for shape in shapes:
            atc.compile(source, shape, settings, folder / f"{shape.frames}.om")
        files.write_json(folder / ABOUT, {"shapes": shapes, **settings})
        return settings

    def open(self, folder: Path, threads: int) -> engines.Session:
        from deepspeech2.engines.acl_om.session import Session

        about, soc = files.read_sealed(folder / ABOUT), self.soc_version()
        if about["soc_version"] != soc:
            raise UserError(
                f"{folder}: compiled for {about['soc_version']}, and {self.engine.device} is an "
                f"{soc}; compile it there"
            )
        models = {folder / f"{shape[2]}.om": Shape(*shape) for shape in about["shapes"]}
        packed = self.engine.form == "packed"
        return Session(self.interface.InferSession, ascend.number(self.engine), models, packed)

    def time_zeros(self, folder: Path, shape: Shape) -> dict[str, Any]:
        """ais_bench's own figures of a model without input, as the guide calls it.

        It makes one set of zeros, lengths included, runs it `LOOPS` times, and times the device
        only; utterances/s are the batch size over the mean of that.
        """
        model, number = folder / f"{shape.frames}.om", ascend.number(self.engine)
        words = f"--loop {LOOPS} --batchsize {shape.batch_size} --device {number}".split()
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "ais_bench", "--model", str(model.resolve()), *words]
            command += ["--output", scratch, "--output_dirname", "zeros"]
            atc.run(command, scratch, f"ais_bench with {model}")
            try:
                (summary,) = Path(scratch).rglob("*_summary.json")
                # The 99th percentile's name differs from version to version.
                times = {
                    "p99" if "99" in name else name: float(value)
                    for name, value in files.read_json(summary)["NPU_compute_time"].items()
                }
                rate = 1000 * shape.batch_size / times["mean"]
            except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
                raise UserError(f"no figures in what ais_bench wrote ({error!r})") from None
        shown = ["ais_bench", "--model", model.name, *words]
        return {"utterances_per_s": rate, "device_ms": times, "command": shlex.join(shown)}

    def versions(self) -> dict[str, str]:
        driver, devices = ascend.smi()
        number = ascend.number(self.engine)
        versions = {
            **{name: engines.version(name) or "unknown" for name in HUAWEIS},
            "CANN": ascend.cann(),
            "driver": driver,
            "device": next((d.name for d in devices if d.number == number), None),
        }
        return {key: value for key, value in versions.items() if value}

    def soc_version(self) -> str:
        """The kind of the device as atc names it. Raises `UserError` where it cannot be known."""
        asked, number = self.engine.options["soc_version"], ascend.number(self.engine)
        there = next((ascend.soc_version(d) for d in ascend.smi()[1] if d.number == number), None)
        if asked and there and asked != there:
            raise UserError(
                f"soc_version is {asked}, but {self.engine.device} is an {there}; set "
                "engines.<name>.options.soc_version"
            )
        if not (asked or there):
            raise UserError(
                f"npu-smi does not tell what {self.engine.device} is; set "
                "engines.<name>.options.soc_version"
            )
        return asked or there


def _interface() -> Any:
    """The module of ais_bench that has InferSession; `UserError` where it cannot be imported."""
    try:
        return importlib.import_module(INTERFACE)
    except Exception as error:  # a library that is missing, a numpy that does not fit, and so on
        raise UserError(
            f"{INTERFACE} cannot be imported ({error}); has set_env.sh of CANN been sourced?"
        ) from None
