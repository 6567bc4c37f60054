"""The engines' interface, and the registry of what implements it.

A backend is one module or folder with the class `Backend`; a line in BACKENDS makes it known. It
names its options and packages, says what it finds on a machine and which export of the model it
starts from, compiles that for given shapes into a folder, and opens a session from the folder. A
session exposes the steps of an inference one by one, so that one loop times every backend's same
region: `forward` and `synchronize`, after `upload` and before `download`.

Nothing is imported here, nor at the top of a backend's module, that is not in Python itself: the
settings of every engine are checked whenever the workflow starts, which must not take seconds, and
the doctor runs where everything else is missing.
"""

from __future__ import annotations

import abc
import importlib
import importlib.util
import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from deepspeech2 import sources
from deepspeech2.cli import UserError
from deepspeech2.options import Option

if TYPE_CHECKING:
    import numpy as np

BACKENDS = {
    "torchscript": "deepspeech2.engines.torchscript",
    "native": "deepspeech2.engines.native",
    "onnxruntime": "deepspeech2.engines.onnxruntime",
    "openvino": "deepspeech2.engines.openvino",
    "torch_aie": "deepspeech2.engines.torch_aie",
    "acl_om": "deepspeech2.engines.acl_om",
}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
FORMS = ("static", "packed")
PADDINGS = ("longest", "batch")
# What every engine's stages import besides what computes, by the names of the distributions.
PACKAGES = ("numpy", "safetensors", "psutil", "tqdm")
# The stages whose output every run of an engine starts from.
BEFORE_A_RUN = tuple(
    f"deepspeech2.{stage}"
    for stage in ("features.preprocess", "model.torchscript", "model.onnx", "engines.compile")
)


class Export(NamedTuple):
    """What an engine starts from.

    `source` is torchscript, onnx or weights, `opset` ONNX's; with `fixed` it is for one batch size.
    """

    source: str
    form: str
    opset: int
    fixed: bool


class Engine(NamedTuple):
    """How to run a model: an entry of the configuration's `engines`, completed.

    `buckets` are widths in frames: a batch is padded to the least that holds its longest utterance
    (the longest of the set where none does). None: `padding` decides.
    """

    backend: str
    device: str
    precision: str
    form: str
    padding: str
    buckets: Sequence[int]
    options: dict[str, Any]

    @property
    def pad_to(self) -> str | Sequence[int]:
        """What batches are padded to, as `features.batches.Padding` has it."""
        return self.buckets or self.padding

    @classmethod
    def parse(cls, text: str) -> Engine:
        """The engine that JSON describes, or the name of a backend with its defaults."""
        entry: Any = {"backend": text}
        if text not in BACKENDS:
            try:
                entry = json.loads(text)
            except ValueError as error:
                raise ArgumentTypeError(f"neither a backend nor JSON ({error})") from None
        if not isinstance(entry, dict) or set(entry) - set(cls._fields):
            raise ArgumentTypeError(f"not a JSON object with {', '.join(cls._fields)}")
        try:
            return complete(entry)
        except UserError as error:
            raise ArgumentTypeError(str(error)) from None
        except (AttributeError, TypeError) as error:
            raise ArgumentTypeError(f"a value of the wrong type ({error})") from None

    def text(self) -> str:
        """The JSON that `parse` takes."""
        return json.dumps(self._asdict(), sort_keys=True)

    @property
    def export(self) -> Export:
        """The model's export that it starts from."""
        backend = create(self)
        whole = "_whole" if backend.fixed_shapes and backend.source == "torchscript" else ""
        return Export(backend.source, self.form + whole, backend.opset, backend.fixed_shapes)


class Shape(NamedTuple):
    """Shape of the input that an artefact is made for: (batch_size, 1, bins, frames)."""

    batch_size: int
    bins: int
    frames: int


class Finding(NamedTuple):
    """What a backend finds on a machine: names and versions, what is missing, what is doubtful."""

    backend: str
    found: dict[str, str]
    missing: list[str]
    doubts: list[str]


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

        They are in use while the next batch is computed, so they must not be buffers that the
        session uses again.
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
    # Whether posteriors are the same bits with any number of threads.
    same_bits = False
    # Whether it compiles for one shape at a time, and is given TorchScript without branches, or
    # ONNX for its batch size.
    fixed_shapes = False
    opset = 17  # of ONNX, where that is its source
    times_zeros = False  # whether it has `time_zeros`, for a published figure of zeros
    # Kinds of devices on which its authors have ever run it; the table says so of all others.
    proven: ClassVar[Sequence[str]] = ("cpu",)
    # The file of envs/, without suffix, that installs what it needs besides the workflow's own.
    extra = ""
    # What its stages import, by the names of the distributions.
    packages: ClassVar[Sequence[str]] = PACKAGES
    # Where an engine's entry names none: device, precision, and the backend's own options.
    device, precision = "cpu", "fp32"
    options: ClassVar[dict[str, Option]] = {}

    def __init__(self, engine: Engine):
        self.engine = engine

    @property
    def source(self) -> str:
        """Which export of the model it starts from: torchscript, onnx or weights."""
        return "torchscript"

    @classmethod
    def options_on(cls, device: str) -> dict[str, Option]:
        """Those of its options that `device` has."""
        return cls.options

    @classmethod
    def examine(cls, device: str | None = None) -> Finding:
        """What this machine has and lacks for it. Imports nothing that may be missing."""
        found, missing = installed(cls.packages)
        return Finding(cls.__module__.rpartition(".")[2], found, missing, [])

    def lacks(self) -> list[str]:
        """What is missing here for this engine, a line each."""
        return self.examine(self.engine.device).missing

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

    def time_zeros(self, folder: Path, shape: Shape) -> dict[str, Any]:
        """Figures of an artefact with zeros as input, by the vendor's own program."""
        raise NotImplementedError

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """What computes, by name: libraries, drivers, devices."""


def backend_class(name: str) -> type[Backend]:
    """The class of the backend `name`."""
    if name not in BACKENDS:
        raise UserError(f"unknown backend {name!r}; known are: {', '.join(BACKENDS)}")
    return importlib.import_module(BACKENDS[name]).Backend


def create(engine: Engine) -> Backend:
    """The backend of an engine, its settings checked.

    With any device of a kind (`cuda:*`) it is that of the first: who computes takes one before
    (engines/pool.py).
    """
    engine = engine._replace(device=engine.device.replace(":*", ":0"))
    backend = backend_class(engine.backend)(engine)
    backend.check()
    options = backend.options_on(engine.device)
    for name, value in engine.options.items():
        if name not in options:
            known = ", ".join(options) or "none"
            raise UserError(f"backend {engine.backend} has no option {name!r}; known are: {known}")
        options[name].check(f"backend {engine.backend}: {name}", value)
    return backend


def complete(entry: dict[str, Any]) -> Engine:
    """The engine of an entry, checked, with its backend's own where the entry names nothing."""
    backend = backend_class(entry.get("backend", ""))
    device = entry.get("device") or backend.device
    defaults = {name: option.default for name, option in backend.options_on(device).items()}
    engine = Engine(
        entry["backend"],
        device,
        entry.get("precision") or backend.precision,
        entry.get("form", FORMS[0]),
        entry.get("padding", PADDINGS[0]),
        sorted(set(entry.get("buckets") or ())),
        {**defaults, **(entry.get("options") or {})},
    )
    for name, allowed in (("precision", PRECISIONS), ("form", FORMS), ("padding", PADDINGS)):
        if getattr(engine, name) not in allowed:
            raise UserError(f"{name}: {getattr(engine, name)!r} is not one of {', '.join(allowed)}")
    if not all(type(bucket) is int and bucket > 0 for bucket in engine.buckets):
        raise UserError("buckets: must be whole numbers of frames, 1 or more")
    if engine.buckets and engine.padding == "batch":
        raise UserError("buckets: not together with padding batch")
    create(engine)
    return engine


def code_sha256(stage: str, engine: Engine) -> str:
    """Hash over the code of a stage, its engine, and all that made what it starts from."""
    return sources.digest(stage, BACKENDS[engine.backend], *BEFORE_A_RUN)


def version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def is_installed(package: str) -> bool:
    """Whether a module of that name can be found. Nothing is imported."""
    return importlib.util.find_spec(package) is not None


def installed(packages: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Versions of the packages that are there, and a line that names those that are not."""
    found = {name: version(name) or "unknown version" for name in packages if is_installed(name)}
    lacking = ", ".join(name for name in packages if name not in found)
    line = f"{sys.executable} has no {lacking}; install them there (envs/ says which)"
    return found, [line] if lacking else []
