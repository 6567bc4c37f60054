"""The engines' interface, and the registry of what implements it.

A backend is one module with the class `Backend`; a line in BACKENDS makes it known. It says what it
starts from, compiles that for one shape into a folder, and opens a session from the folder. A
session exposes the steps of an inference one by one, so that one loop times every backend's same
region: `forward` and `synchronize`, after `upload` and before `download`.
"""

from __future__ import annotations

import abc
import argparse
import importlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepspeech2.stage import UserError

SOURCES = ("torchscript", "onnx", "weights")


class Entry(NamedTuple):
    """Where a backend lives, and which export of the model it starts from (of SOURCES)."""

    module: str
    source: str


BACKENDS = {
    "torchscript": Entry("deepspeech2.backends.torchscript", "torchscript"),
}


class Engine(NamedTuple):
    """How to run a model: an entry of the configuration's `engines`."""

    backend: str
    device: str
    precision: str
    form: str
    padding: str
    options: dict[str, Any]


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
        """Probabilities (B, T', classes) float32 and output lengths (B,) int32 on the host."""

    def peak_memory_bytes(self) -> int | None:
        """The most memory that the device has held, or None where it is the host's."""
        return None

    def close(self) -> None:  # noqa: B027  most sessions have nothing to free
        """Free the device."""


class Backend(abc.ABC):
    """One way to compile and run the model."""

    fake = False  # true only for the tests' stand-ins of hardware; their rows never count

    def __init__(self, engine: Engine):
        self.engine = engine

    @abc.abstractmethod
    def check(self) -> None:
        """Raise `UserError` where the engine's settings, or what they need, cannot be served."""

    @abc.abstractmethod
    def compile(self, source: Path, shape: Shape, folder: Path) -> None:
        """Compile `source` for `shape` and write what `open` needs into the empty `folder`."""

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
    backend = importlib.import_module(BACKENDS[engine.backend].module).Backend(engine)
    backend.check()
    return backend


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command-line options that describe an engine."""
    parser.add_argument("--backend", required=True, help=", ".join(BACKENDS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--form", choices=("static", "packed"), default="static")
    parser.add_argument("--padding", choices=("longest", "batch"), default="longest")
    parser.add_argument("--options", default="{}", help="the backend's own settings (JSON)")


def from_arguments(args: argparse.Namespace) -> Engine:
    """The engine that the options of `add_arguments` describe."""
    try:
        options = json.loads(args.options)
    except json.JSONDecodeError as error:
        raise UserError(f"--options: broken JSON ({error.msg})") from None
    if not isinstance(options, dict):
        raise UserError("--options: must be a JSON object")
    return Engine(args.backend, args.device, args.precision, args.form, args.padding, options)
