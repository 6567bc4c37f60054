"""What a machine with an Ascend NPU has: the plugin for torch, CANN, the driver, the devices; and
what Huawei's libraries' failures become.

Everything here is the standard library's, so that it can say what is missing where all else is.
The plugin was called torch_aie and is called mindietorch since 2024; both have the same functions
for what is needed here.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import importlib.util
import os
import re
import subprocess
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from deepspeech2.cli import UserError, log

if TYPE_CHECKING:
    from deepspeech2.engines import Engine

PACKAGES = ("torch_aie", "mindietorch")
# Which versions were published to go together: plugin, torch, Python, CANN.
COMPATIBLE_VERSIONS = (
    ("torch_aie 6.3", "torch 2.0.1", "Python 3.9", "CANN 6.3.RC2 or 7.0.RC1"),
    ("torch_aie 7.0", "torch 2.0.0 or 2.0.1", "Python 3.9", "CANN 7.0.RC1 or 7.0.0"),
    ("mindietorch 1.0.RC1", "torch 2.1.0", "Python 3.10", "CANN 8.0.RC1"),
    ("mindietorch 1.0.RC2, RC3, 1.0.0", "torch 2.1.0", "Python 3.10", "CANN 8.0.RC2, RC3, 8.0.0"),
)
# What CANN's compiler imports in the Python that starts it, by the names of their distributions.
CANN_NEEDS = (
    "attrs decorator sympy cffi PyYAML pathlib2 psutil protobuf scipy requests absl-py".split()
)
INSTALL = (
    "install CANN and Huawei's wheel of torch_aie (Python 3.9, torch 2.0, CANN 7.0) or mindietorch "
    "(Python 3.10, torch 2.1, CANN 8.0) in the interpreter that engines.<name>.python names "
    "(docs/hardware.md; all versions: python -m deepspeech2.doctor)"
)


class Device(NamedTuple):
    """A device as npu-smi lists it: its number for `device: npu:<number>`, name, health."""

    number: int
    name: str
    health: str


def package() -> str | None:
    """The name of the plugin that is installed, or None. Nothing is imported."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:  # not just a folder of that name
            return name
    return None


def plugin() -> Any:
    """The imported plugin. Raises `UserError`, in one line, where there is none or it is broken."""
    name = package()
    if name is None:
        raise UserError(f"no package {' or '.join(PACKAGES)}: {INSTALL}")
    try:
        importlib.import_module("torch")  # the plugins need it to be there first
        return importlib.import_module(name)
    except Exception as error:  # a numpy that does not fit raises AttributeError, and so on
        raise UserError(
            f"{name} is installed but cannot be imported ({error}); has set_env.sh of CANN been "
            "sourced, and do the versions go together? See python -m deepspeech2.doctor"
        ) from None


def is_compatible(name: str, torch: str, python: str) -> bool:
    """Whether COMPATIBLE_VERSIONS has the plugin with this torch and Python."""
    for plugin, torches, pythons, _ in COMPATIBLE_VERSIONS:
        known = re.findall(r"\d+\.\d+", torches)
        fits = plugin.split()[0] == name and python.startswith(pythons.split()[1] + ".")
        if fits and any(torch.startswith(one + ".") for one in known):
            return True
    return False


def cann(environment: Mapping[str, str] = os.environ) -> str | None:
    """The version of CANN that set_env.sh has put into the environment."""
    for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        home = environment.get(name)
        if not home:
            continue
        for path in sorted(glob.glob(f"{glob.escape(home)}/*-linux/ascend_*_install.info")):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    found = re.search(r"(?m)^version=(\S+)", file.read(10000))
            except OSError:
                continue
            if found:
                return found.group(1)
        return "unknown version"
    return None


def smi() -> tuple[str | None, list[Device]]:
    """Version of npu-smi, which is the driver's, and its devices; None where it cannot be run."""
    try:
        done = subprocess.run(
            ["npu-smi", "info"], capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None, []
    return read_smi(done.stdout)


def read_smi(text: str) -> tuple[str | None, list[Device]]:
    """Version and devices from what `npu-smi info` prints.

    A device has two lines: card, name and health, then chip, number and bus. Where no number
    stands, they are numbered in their order, chips of one card included.
    """
    found = re.search(r"Version:\s*(\S+)", text)
    lines = re.findall(
        r"(?m)^\|\s*\d+\s+(\S+)\s*\|\s*([A-Za-z]+)\s*\|.*\n"
        r"\|\s*\d+(?:\s+(\d+))?\s*\|\s*[0-9A-Fa-f]{4}:",
        text,
    )
    devices = [Device(int(n or count), *line) for count, (*line, n) in enumerate(lines)]
    return (found.group(1) if found else None), devices


def soc_version(device: Device) -> str:
    """The name by which a compiler knows a device's kind: npu-smi's 310P3 is Ascend310P3."""
    return device.name if device.name.startswith("Ascend") else f"Ascend{device.name}"


def number(engine: Engine) -> int:
    """The number of an engine's device."""
    return int(engine.device.partition(":")[2])


def require_device(engine: Engine) -> None:
    """Raise `UserError` unless an engine's device is npu:N."""
    if not re.fullmatch(r"npu:\d{1,4}", engine.device) or number(engine) > 1024:
        raise UserError(f"backend {engine.backend} serves the devices npu:N, not {engine.device!r}")


def examine() -> tuple[dict[str, str], list[str]]:
    """CANN, driver and devices that are found here, by name, and what is doubtful of them."""
    found, doubts = {}, []
    version = cann()
    if version:
        found["CANN"] = version
    else:
        doubts.append(
            "ASCEND_TOOLKIT_HOME is not set: source /usr/local/Ascend/ascend-toolkit/set_env.sh"
        )
    driver, devices = smi()
    if driver:
        found["driver"] = driver
    else:
        doubts.append("npu-smi cannot be run: is the driver installed, and on the PATH?")
    for one in devices:
        found[f"npu:{one.number}"] = f"{one.name}, {one.health} (soc_version: {soc_version(one)})"
    if driver and not devices:
        doubts.append("npu-smi lists no device")
    return found, doubts


@contextlib.contextmanager
def plugin_errors(what: str) -> Iterator[None]:
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
