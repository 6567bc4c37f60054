"""Say what this machine has for every backend, and what is missing.

Run it with the interpreter that is to run an engine: each has its own packages. It needs nothing
but that interpreter, so it runs where everything else is missing. --json is for programs, and
--require BACKEND ends with status 1 and one line where that backend cannot run (on --device).
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import sys
from typing import Any, NamedTuple

from deepspeech2 import ascend, cuda, stage
from deepspeech2.stage import UserError

# What the stages import that an engine's interpreter runs, by the names of their distributions.
PACKAGES = ("numpy", "torch", "safetensors", "psutil", "tqdm")


class Finding(NamedTuple):
    """What a backend finds here: names and versions, what is missing, and what looks doubtful."""

    backend: str
    found: dict[str, str]
    missing: list[str]
    doubts: list[str]


def _packages() -> tuple[dict[str, str], list[str]]:
    """Versions of PACKAGES, and a line that names those that are not installed."""
    found = {name: ascend.version(name) or "unknown version" for name in PACKAGES if _spec(name)}
    lacking = [name for name in PACKAGES if name not in found]
    line = f"{sys.executable} has no {', '.join(lacking)}; install them there (envs/ says which)"
    return found, [line] if lacking else []


def _spec(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def torchscript(device: str | None = None) -> Finding:
    """The CPU and GPUs, through torch. What a GPU lacks is missing only where `device` is one."""
    found, missing = _packages()
    found["cpu"] = f"{os.cpu_count()} cores"
    doubts = []
    if "torch" in found:
        try:
            lacking = cuda.missing("cuda" if device in (None, "cpu") else device)
            found.update({**cuda.versions(), **cuda.devices()})
        except Exception as error:  # a numpy that does not fit, a library that is not there
            missing.append(f"torch is installed but cannot be used ({error})")
        else:
            if lacking and device in (None, "cpu"):
                doubts.append(f"no engine with device cuda can run: {lacking}")
            elif lacking:
                missing.append(lacking)
            if not lacking:
                doubts.append("whoever wrote device cuda had no GPU, and has never run it")
    return Finding("torchscript", found, missing, doubts)


def native(device: str | None = None) -> Finding:
    """The CPU, through numba."""
    needed = ("numpy", "safetensors", "psutil", "tqdm", "numba", "llvmlite")
    found = {name: ascend.version(name) or "unknown version" for name in needed if _spec(name)}
    lacking = [name for name in needed if name not in found]
    if lacking:
        line = (
            f"{sys.executable} has no {', '.join(lacking)}; install them there (envs/ says which)"
        )
        return Finding("native", found, [line], [])
    import llvmlite.binding

    features = llvmlite.binding.get_host_cpu_features()
    found["cpu"] = f"{llvmlite.binding.get_host_cpu_name()}, {os.cpu_count()} cores"
    doubts = [
        f"the CPU lacks {name}: {precision} works, and is slower than fp32"
        for name, precision in (("avx512vnni", "int8"), ("avx512bf16", "bf16"))
        if not features.get(name)
    ]
    return Finding("native", found, [], doubts)


def torch_aie(device: str | None = None) -> Finding:
    """Ascend NPUs: plugin, CANN, driver, devices, and whether their versions go together."""
    found, missing = _packages()
    doubts = []
    name = ascend.package()
    if _spec("torch") or not name:  # it can be imported only beside torch
        try:
            ascend.plugin()
        except UserError as error:
            missing.append(str(error))
    lacking = [one for one in ascend.CANN_NEEDS if ascend.version(one) is None]
    if lacking:
        doubts.append(f"CANN's compiler needs {', '.join(lacking)} (envs/torch_aie.txt)")
    if name:
        found[name] = ascend.version(name) or "unknown version"
    python = platform.python_version()
    if name and not _fits(name, found.get("torch", ""), python):
        doubts.append(
            f"{name} with torch {found.get('torch', 'missing')} and Python {python} is no known "
            "combination"
        )
    cann = ascend.cann()
    if cann:
        found["CANN"] = cann
        fitting = [row[3] for row in ascend.TOGETHER if row[0].split()[0] == name]
        if fitting and not any(re.search(rf"\b{re.escape(cann)}", row) for row in fitting):
            doubts.append(f"{name} is known to go with {'; '.join(fitting)}, not with CANN {cann}")
    else:
        doubts.append(
            "ASCEND_TOOLKIT_HOME is not set: source /usr/local/Ascend/ascend-toolkit/set_env.sh"
        )
    driver, devices = ascend.smi()
    if driver:
        found["driver"] = driver
    else:
        doubts.append("npu-smi cannot be run: is the driver installed, and on the PATH?")
    for device in devices:
        found[f"npu:{device.number}"] = (
            f"{device.name}, {device.health} (soc_version: {ascend.soc_version(device)})"
        )
    if driver and not devices:
        doubts.append("npu-smi lists no device")
    return Finding("torch_aie", found, missing, doubts)


def _fits(name: str, torch: str, python: str) -> bool:
    """Whether ascend.TOGETHER has the plugin with this torch and Python."""
    for plugin, torches, pythons, _ in ascend.TOGETHER:
        known = re.findall(r"\d+\.\d+", torches)
        fits = plugin.split()[0] == name and python.startswith(pythons.split()[1] + ".")
        if fits and any(torch.startswith(one + ".") for one in known):
            return True
    return False


BACKENDS = {"torchscript": torchscript, "native": native, "torch_aie": torch_aie}


def report(findings: list[Finding]) -> str:
    """The findings for people."""
    lines = [f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}"]
    for one in findings:
        lines += ["", f"{one.backend}: {'cannot run here' if one.missing else 'can run here'}"]
        lines += [f"  has      {name} {version}" for name, version in one.found.items()]
        lines += [f"  missing  {text}" for text in one.missing]
        lines += [f"  doubtful {text}" for text in one.doubts]
    lines += ["", "Ascend: these versions are known to go together."]
    lines += [f"  {', '.join(row)}" for row in ascend.TOGETHER]
    return "\n".join(lines)


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="write the findings as JSON")
    kind.add_argument(
        "--require", choices=BACKENDS, help="end with status 1 and one line where it cannot run"
    )
    parser.add_argument("--device", help="of an engine, for --require")
    args = stage.parse(parser, argv)

    if args.require:
        missing = BACKENDS[args.require](args.device).missing
        if missing:
            raise UserError(f"backend {args.require} cannot run: {'; '.join(missing)}")
        return
    findings = [examine() for examine in BACKENDS.values()]
    if args.json:
        data: dict[str, Any] = {
            "python": platform.python_version(),
            "interpreter": sys.executable,
            "platform": platform.platform(),
            "backends": [one._asdict() for one in findings],
            "known_together": [list(row) for row in ascend.TOGETHER],
        }
        print(json.dumps(data, indent=1))
    else:
        print(report(findings))


if __name__ == "__main__":
    stage.run(main)
