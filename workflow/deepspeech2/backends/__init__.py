"""The engines' interface, and the registry of what implements it.

A backend is one module with the class `Backend`; a line in BACKENDS makes it known. It says what it
starts from, compiles that for given shapes into a folder, and opens a session from the folder. A
session exposes the steps of an inference one by one, so that one loop times every backend's same
region: `forward` and `synchronize`, after `upload` and before `download`.

Modules of backends import what computes (torch, a plugin) inside their functions: the settings of
every selected engine are checked whenever the workflow starts, which shall not take seconds.
"""

from __future__ import annotations

import abc
import argparse
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from deepspeech2.stage import UserError

SOURCES = ("torchscript", "onnx", "weights")


class Entry(NamedTuple):
    """Where a backend lives, and the kinds of devices on which its authors have ever run it.

    The table says so of every engine with another device.
    """

    module: str
    proven: Sequence[str] = ("cpu",)


BACKENDS = {
    "torchscript": Entry("deepspeech2.backends.torchscript"),
    "native": Entry("deepspeech2.backends.native"),
    "torch_aie": Entry("deepspeech2.backends.torch_aie", proven=()),
}


class Engine(NamedTuple):
    """How to run a model: an entry of the configuration's `engines`.

    `buckets` are widths in frames: a batch is padded to the least that holds its longest utterance
    (the longest of the set where none does). None: `padding` decides.
    """

    backend: str
    device: str
    precision: str
    form: str
    padding: str
    options: dict[str, Any]
    buckets: Sequence[int] = ()


class Shape(NamedTuple):
    """Shape of the input that an artefact is made for: (batch_size, 1, bins, frames)."""

    batch_size: int
    bins: int
    frames: int


class Session(abc.ABC):
    """A compiled model, ready to run. Arrays in and out are in the caller's order."""

    @abc.abstractmethod
    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        """Move a batch to the device: (B, 1, bins, T) float32 and (B,) int32 frames."""

    @abc.abstractmethod
    def forward(self, batch: Any) -> Any:
        """Start the network on what `upload` returned; may return before it is done."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait until what `forward` started is done."""

    @abc.abstractmethod
    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (B, T', classes) float32 and output lengths (B,) int32 on the host.

        They are in use while the next batch is computed, so they are no buffers of the session.
        """

    # What is worth a note in the record (plain JSON) of how it was opened.
    notes: ClassVar[dict[str, Any]] = {}

    def peak_memory_bytes(self) -> int | None:
        """The most memory that the device has held, or None where it is the host's."""
        return None

    def profile(self) -> dict[str, float]:
        """Seconds of `forward` by what was done in them, since the last call of this.

        Counting begins with the first call. Empty where a session does not know.
        """
        return {}

    def close(self) -> None:  # noqa: B027  most sessions have nothing to free
        """Free the device."""


class Backend(abc.ABC):
    """One way to compile and run the model."""

    fake = False  # true only for the tests' stand-ins of hardware; their rows never count
    # Where an engine's entry names none: device, precision, and the backend's own settings.
    device, precision = "cpu", "fp32"
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, engine: Engine):
        self.engine = engine

    @property
    def source(self) -> str:
        """Which export of the model it starts from (of SOURCES)."""
        return "torchscript"

    @classmethod
    def options_on(cls, device: str) -> dict[str, Any]:
        """Those of the backend's own settings that `device` has."""
        return cls.options

    @abc.abstractmethod
    def check(self) -> None:
        """Raise `UserError` where the engine's settings cannot be served. Looks at no device."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Import what computes and choose the device: first of all, and outside what is timed."""

    @abc.abstractmethod
    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        """Compile `source` for `shapes`, of one batch size, and write what `open` needs.

        `folder` is empty. Returns what is worth a note in the record (plain JSON).
        """

    @abc.abstractmethod
    def open(self, folder: Path, threads: int) -> Session:
        """A session of the artefact in `folder` that uses `threads` threads of the host."""

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """What computes, by name: libraries, drivers, devices."""


def create(engine: Engine) -> Backend:
    """The backend of an engine, its settings checked."""
    if engine.backend not in BACKENDS:
        raise UserError(f"unknown backend {engine.backend!r}; known are: {', '.join(BACKENDS)}")
    made = importlib.import_module(BACKENDS[engine.backend].module).Backend
    options = made.options_on(engine.device)
    for name in engine.options:
        if name not in options:
            known = ", ".join(options) or "none"
            raise UserError(f"backend {engine.backend} has no option {name!r}; known are: {known}")
    backend = made(engine)
    backend.check()
    return backend


def completed(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the configuration's `engines`, with what it leaves open as its backend has it."""
    if entry["backend"] not in BACKENDS:
        raise UserError(f"unknown backend {entry['backend']!r}; known are: {', '.join(BACKENDS)}")
    made = importlib.import_module(BACKENDS[entry["backend"]].module).Backend
    device = entry["device"] or made.device
    return {
        **entry,
        "device": device,
        "precision": entry["precision"] or made.precision,
        "options": {**made.options_on(device), **entry["options"]},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command-line options that describe an engine."""
    parser.add_argument("--backend", required=True, help=", ".join(BACKENDS))
    parser.add_argument("--device", help="the backend's own where none is named")
    parser.add_argument("--precision", help="the backend's own where none is named")
    parser.add_argument("--form", choices=("static", "packed"), default="static")
    parser.add_argument("--padding", choices=("longest", "batch"), default="longest")
    parser.add_argument("--options", default="{}", help="the backend's own settings (JSON)")
    parser.add_argument("--buckets", type=int, nargs="*", default=[], help="widths in frames")


def from_arguments(args: argparse.Namespace) -> Engine:
    """The engine that the options of `add_arguments` describe."""
    try:
        options = json.loads(args.options)
    except json.JSONDecodeError as error:
        raise UserError(f"--options: broken JSON ({error.msg})") from None
    if not isinstance(options, dict):
        raise UserError("--options: must be a JSON object")
    if any(bucket < 1 for bucket in args.buckets):
        raise UserError("--buckets: must be 1 or more")
    names = ("backend", "device", "precision", "form", "padding")
    entry = {**{name: getattr(args, name) for name in names}, "options": options}
    return Engine(**completed(entry), buckets=sorted(set(args.buckets)))
