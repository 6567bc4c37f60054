"""Reads a torch checkpoint without running anything in it.

A torch checkpoint is a zip archive with a pickle and one record per tensor storage. A pickle may
name any function of any module and have it called. Here names are never looked up: the few that
build tensors and dictionaries map to classes below, and every other name becomes a class of inert
objects that keep what they are given. So the checkpoints of deepspeech.pytorch, whose settings
are objects of omegaconf and of its own package, load without those packages, and without torch.
"""

from __future__ import annotations

import collections
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepspeech2.cli import UserError

MAX_PICKLE_BYTES = 4 << 20  # the settings and names of a V3 checkpoint take about 20 kB
MAX_NODES = 100_000  # of the settings, counted as often as they are referred to
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class Inert:
    """Stands for an object of an unknown class: keeps constructor arguments, state and items."""

    name = ""

    def __new__(cls, *args, **kwargs):
        self = object.__new__(cls)
        self.args, self.state, self.items, self.mapping = args, None, [], {}
        return self

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.state = state

    def append(self, item):
        self.items.append(item)

    def extend(self, items):
        self.items.extend(items)

    def __setitem__(self, key, value):
        self.mapping[repr(key)] = value


class Storage(NamedTuple):
    """A record of the archive: its name and its numbers' dtype."""

    key: str
    dtype: str


class Tensor(NamedTuple):
    """A tensor that has not been read yet. Offset, shape and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Builder:
    """A callable that the pickle may use. It has no attributes that the pickle could replace."""

    __slots__ = ("_function",)

    def __init__(self, function):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args):
        return self._function(*args)

    def __setattr__(self, name, value):
        raise pickle.UnpicklingError("the pickle tries to alter its reader")


def _tensor(storage, offset, shape, strides, *_):
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor with an impossible shape")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _ordered(*pairs):
    if pairs:  # torch writes them empty and fills them item by item
        raise pickle.UnpicklingError("an OrderedDict that is not empty at first")
    return collections.OrderedDict()


BUILDERS = {
    ("collections", "OrderedDict"): _Builder(_ordered),
    ("torch._utils", "_rebuild_tensor_v2"): _Builder(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Builder(lambda tensor, *_: tensor),
}


class _Unpickler(pickle._Unpickler):
    """Resolves no name outside the tables above.

    The variant in Python, because in it a huge memo index costs nothing, and because keys can be
    looked at: hashing a deeply nested tuple overflows the stack or takes forever.
    """

    dispatch = pickle._Unpickler.dispatch.copy()

    def load_setitem(self):
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self):
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self):
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self):
        _check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self):
        _check_keys(self.stack)
        super().load_frozenset()

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset

    def find_class(self, module, name):
        if (module, name) in BUILDERS:
            return BUILDERS[module, name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        return type("Inert", (Inert,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == "storage"):
            raise pickle.UnpicklingError("a reference to what is not a tensor storage")
        dtype, key = pid[1], pid[2]
        if dtype not in STORAGES.values() or not isinstance(key, str) or not key.isdecimal():
            raise pickle.UnpicklingError("a tensor storage of unknown kind")
        return Storage(key, dtype)


def _check_keys(keys) -> None:
    for key in keys:
        if not isinstance(key, (str, int, float, bytes, type, type(None))):
            raise pickle.UnpicklingError("a dictionary with keys that are not names")


class Checkpoint:
    """A torch checkpoint, opened; use as a context manager.

    `content` is what was pickled, with `Tensor` for tensors and `Inert` for unknown objects.
    """

    def __init__(self, path: str | Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such checkpoint") from None
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"{path}: not a torch checkpoint, or cut short ({error}); fetch it again"
            ) from None
        try:
            self.content, self._root = self._unpickle()
        except UserError:
            self._zip.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_) -> None:
        self._zip.close()

    def _unpickle(self) -> tuple[Any, str]:
        names = [n for n in self._zip.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(names) != 1:
            raise UserError(f"{self.path}: not a torch checkpoint (no data.pkl in it)")
        if self._zip.getinfo(names[0]).file_size > MAX_PICKLE_BYTES:
            raise UserError(f"{self.path}: data.pkl is larger than any checkpoint's")
        try:
            with self._zip.open(names[0]) as file:
                content = _Unpickler(file, encoding="utf-8").load()
        except Exception as error:  # a hostile pickle can provoke any exception in its reader
            raise UserError(f"{self.path}: not a DeepSpeech2 checkpoint ({error!r})") from None
        return content, names[0].rpartition("/")[0]

    def read(self, tensor: Tensor, name: str) -> np.ndarray:
        """The numbers of a tensor, called `name` in errors."""
        record = f"{self._root}/data/{tensor.storage.key}"
        try:
            info = self._zip.getinfo(record)
            if info.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{self.path}: tensor {name}: compressed, which torch never writes")
            data = self._zip.read(info)
        except (KeyError, zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
            raise UserError(f"{self.path}: tensor {name}: damaged record ({error!r})") from None
        bfloat16 = tensor.storage.dtype == "bfloat16"
        dtype = np.dtype("<u2" if bfloat16 else tensor.storage.dtype)
        numbers = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides))
        if last >= len(numbers) or math.prod(tensor.shape) > len(numbers):
            raise UserError(f"{self.path}: tensor {name}: cut short; fetch the checkpoint again")
        if bfloat16:
            numbers = (numbers.astype("<u4") << 16).view("<f4")
        strides = [s * numbers.itemsize for s in tensor.strides]
        view = np.lib.stride_tricks.as_strided(
            numbers[tensor.offset :], tensor.shape, strides, writeable=False
        )
        return np.ascontiguousarray(view).reshape(tensor.shape)


def plain(value: Any) -> Any:
    """omegaconf's pickled containers and values as dicts, lists and plain values.

    Members of an enumeration come as their value, classes as their dotted name. Raises `UserError`
    for settings that are nested too deeply or refer to each other too often.
    """
    nodes = 0

    def convert(value: Any, depth: int) -> Any:
        nonlocal nodes
        nodes += 1
        if depth > 32 or nodes > MAX_NODES:
            raise UserError("the checkpoint's settings are nested too deeply")
        if isinstance(value, dict):
            return {str(key): convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)) and not isinstance(value, (Tensor, Storage)):
            return [convert(item, depth + 1) for item in value]
        if isinstance(value, Inert):
            state = value.state
            if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
                state = state[1]
            if isinstance(state, dict):
                for key in ("_content", "_val"):
                    if key in state:
                        return convert(state[key], depth + 1)
            return convert(value.args[0], depth + 1) if value.args else None
        if isinstance(value, type) and issubclass(value, Inert):
            return value.name
        return value if isinstance(value, (bool, int, float, str)) else None

    return convert(value, 0)
