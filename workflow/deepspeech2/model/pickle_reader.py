"""Reads what torch.save wrote without running anything in it.

A torch checkpoint is a pickle and one block of numbers per tensor storage: records of a zip
archive, or, before torch 1.6, one after another in a file. A pickle may name any function of any
module and have it called. Here names are never looked up: the few that build tensors and
dictionaries map to functions below, and every other name becomes a class of inert objects that
keep what they are given. So checkpoints whose settings are objects of omegaconf or of other
packages load without those packages, and without torch.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepspeech2.cli import UserError

MAX_PICKLE_BYTES = 4 << 20  # the settings and names of a V3 checkpoint take about 20 kB
MAX_CLASSES = 1000  # that a pickle names; a V3 checkpoint names about 20
MAX_NODES = 1_000_000  # values and characters of the settings, as often as they are referred to
MAX_ARGUMENTS = 1_000_000  # of all that is built, likewise; a tensor takes about 20
MAX_NAME = 1000  # characters of a dictionary's key
LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # torch's first two pickles before 1.6: mark and version
STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
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

    def append(self, item):
        self.items.append(item)

    def extend(self, items):
        self.items.extend(items)

    def __setitem__(self, key, value):
        self.mapping[key] = value


class Member(str):
    """What an object was made of, if that is text: the value of a member of an enumeration."""


class Storage(NamedTuple):
    """A block of numbers of the checkpoint: its name, its numbers' dtype and how many they are."""

    key: str
    dtype: str
    size: int


class Tensor(NamedTuple):
    """A tensor that has not been read yet. Offset, shape and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor with an impossible shape")
    if metadata:
        raise pickle.UnpicklingError("a tensor that is negated or conjugated as it is read")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _ordered(pairs=()):
    """Python 3 writes them empty and fills them item by item, Python 2 as a list of pairs."""
    pairs = [(key, value) for key, value in pairs]
    _check_keys(key for key, _ in pairs)
    return dict(pairs)


def _parameter(tensor, *_):
    return tensor


BUILDERS = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor"): _tensor,  # before torch 0.4
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}


class _Unpickler(pickle._Unpickler):
    """Resolves no name outside the tables above, and alters nothing but inert objects.

    The variant in Python, because in it a huge memo index costs nothing, and because keys can be
    looked at: hashing a deeply nested tuple overflows the stack or takes forever.
    """

    dispatch = pickle._Unpickler.dispatch.copy()

    def __init__(self, file):
        # Python 2 wrote bytes as text.
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.classes: dict[str, type[Inert]] = {}
        self.storages: dict[str, Storage] = {}
        self.arguments = 0

    def load_build(self):
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def load_bytearray8(self):
        raise pickle.UnpicklingError("a bytearray, of any size that it claims")

    def count_arguments(self):
        """What is called copies its arguments, which may be in the file once and used often."""
        args = self.stack[-1]
        parts = [part for part in self.stack[-2:] if hasattr(part, "__len__")]
        if isinstance(args, tuple):
            parts += [part for part in args[:4] if isinstance(part, (list, tuple))]
        self.arguments += sum(map(len, parts))
        if self.arguments > MAX_ARGUMENTS:
            raise pickle.UnpicklingError(f"more than {MAX_ARGUMENTS} arguments")

    def after(check, opcode):
        """What loads an opcode, after a check of the unpickler."""
        load = pickle._Unpickler.dispatch[opcode[0]]
        return lambda self: (check(self), load(self))

    for opcode in (pickle.REDUCE, pickle.NEWOBJ, pickle.NEWOBJ_EX):
        dispatch[opcode[0]] = after(count_arguments, opcode)
    for opcode in (pickle.SETITEMS, pickle.DICT):
        dispatch[opcode[0]] = after(lambda self: _check_keys(self.stack[::2]), opcode)
    for opcode in (pickle.ADDITEMS, pickle.FROZENSET):
        dispatch[opcode[0]] = after(lambda self: _check_keys(self.stack), opcode)
    dispatch[pickle.SETITEM[0]] = after(lambda self: _check_keys(self.stack[-2:-1]), pickle.SETITEM)
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module, name):
        if (module, name) in BUILDERS:
            return BUILDERS[module, name]
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        full = f"{module}.{name}"
        if full not in self.classes:
            if len(self.classes) == MAX_CLASSES:
                raise pickle.UnpicklingError(f"more than {MAX_CLASSES} classes")
            self.classes[full] = type("Inert", (Inert,), {"name": full})
        return self.classes[full]

    def persistent_load(self, pid):
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] == "module":
            return pid[1]  # a class, with its source before torch 1.6
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("a reference to what is not a tensor storage")
        # A type that is not in the table is refused once a weight is of it.
        storage = Storage(pid[2], getattr(pid[1], "name", pid[1]), pid[4])
        if [*map(type, storage)] != [str, str, int] or not storage.key.isdecimal():
            raise pickle.UnpicklingError("a tensor storage of unknown kind")
        known = self.storages.setdefault(storage.key, storage)
        if known != storage or pid[5:] not in ((), (None,)):
            raise pickle.UnpicklingError("a tensor storage that is a part of another")
        return storage


def _check_keys(keys: Iterable) -> None:
    for key in keys:
        known = isinstance(key, (str, int, float, bytes, type, type(None)))
        if not known or len(ascii(key)) > MAX_NAME:
            raise pickle.UnpicklingError("a dictionary with keys that are not names")


class Checkpoint:
    """A torch checkpoint, opened; use as a context manager.

    `content` is what was pickled, with `Tensor` for tensors and `Inert` for unknown objects.
    Raises `UserError` for every file that is not one.
    """

    def __init__(self, path: str | Path):
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}  # before torch 1.6: start and length in bytes
        self._latest: tuple[str, bytes] = ("", b"")  # storage that was read last: views share it
        self._file = open(path, "rb")  # noqa: SIM115  until __exit__
        try:
            self._zip = zipfile.ZipFile(self._file) if self._file.read(2) == b"PK" else None
            self._file.seek(0)
            self.content = self._from_file() if self._zip is None else self._from_zip()
        except Exception as error:  # a hostile file can provoke any exception in its reader
            self._file.close()
            raise UserError(
                f"{path}: not a torch checkpoint, or cut short ({error!r:.200}); fetch it again"
            ) from None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def _from_zip(self) -> Any:
        all_names = self._zip.namelist()
        if len(set(all_names)) < len(all_names):
            raise ValueError("two records of one name")
        if all_names and min(info.header_offset for info in self._zip.infolist()):
            raise ValueError("something before the archive, such as another checkpoint")
        names = [n for n in all_names if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("no data.pkl in it")
        if self._zip.getinfo(names[0]).file_size > MAX_PICKLE_BYTES:
            raise ValueError("data.pkl is larger than any checkpoint's")
        self._root = names[0].rpartition("/")[0]
        with contextlib.suppress(KeyError):
            if self._zip.open(f"{self._root}/byteorder").read(10) != b"little":
                raise ValueError("written on a big-endian machine")
        return _Unpickler(io.BytesIO(self._zip.read(names[0]))).load()

    def _from_file(self) -> Any:
        """Pickles of mark, version, machine, content and storages' keys; then the storages."""
        pickles = io.BytesIO(self._file.read(MAX_PICKLE_BYTES))
        if (_Unpickler(pickles).load(), _Unpickler(pickles).load()) != LEGACY:
            raise ValueError("a pickle that torch did not write")
        if _Unpickler(pickles).load().get("little_endian") is not True:
            raise ValueError("written on a big-endian machine")
        reader = _Unpickler(pickles)
        content, keys = reader.load(), _Unpickler(pickles).load()
        place, end = pickles.tell(), os.fstat(self._file.fileno()).st_size
        for key in keys:
            if place > end:
                break
            self._file.seek(place)
            size = int.from_bytes(self._file.read(8), "little")
            size *= _little(reader.storages[key].dtype).itemsize
            self._places[key] = place + 8, size
            place += 8 + size
        if place != end:
            raise ValueError("cut, or followed by something else")
        return content

    def _bytes(self, key: str) -> bytes:
        if self._latest[0] != key:
            if self._zip is None:
                start, size = self._places[key]
                self._file.seek(start)
                data = self._file.read(size)
            else:
                info = self._zip.getinfo(f"{self._root}/data/{key}")
                if info.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("compressed, which torch never does")
                data = self._zip.read(info)
            self._latest = key, data
        return self._latest[1]

    def read(self, tensor: Tensor, name: str) -> np.ndarray:
        """The numbers of a tensor, called `name` in errors; bfloat16 as float32."""
        try:
            key, dtype, size = tensor.storage
            data = self._bytes(key)
            if len(data) != size * _little(dtype).itemsize:
                raise ValueError(f"it has {len(data)} bytes, not {size} numbers of {dtype}")
            numbers = as_numbers(data, dtype)
        except Exception as error:
            raise UserError(
                f"{self.path}: tensor {name}: damaged record ({error!r:.200}); fetch it again"
            ) from None
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides))
        if last >= len(numbers) or math.prod(tensor.shape) > len(numbers):
            raise UserError(
                f"{self.path}: tensor {name} repeats numbers or reaches beyond its storage; save a "
                "contiguous copy"
            )
        # The stride of a dimension of one element means nothing, and may be any number.
        steps = [s * numbers.itemsize if n > 1 else 0 for n, s in zip(tensor.shape, tensor.strides)]
        view = np.lib.stride_tricks.as_strided(
            numbers[tensor.offset :], tensor.shape, steps, writeable=False
        )
        return np.ascontiguousarray(view).reshape(tensor.shape)


def _little(dtype: str) -> np.dtype:
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


def as_numbers(data: bytes, dtype: str) -> np.ndarray:
    """The numbers in little-endian bytes, those of bfloat16 as float32, which holds them all."""
    kind = _little(dtype)
    numbers = np.frombuffer(data, kind, len(data) // kind.itemsize)
    return (numbers.astype("<u4") << 16).view("<f4") if dtype == "bfloat16" else numbers


def mapping(value: Any) -> dict | None:
    """The items of a dictionary, or of an inert one; None for anything else."""
    return value if isinstance(value, dict) else getattr(value, "mapping", None) or None


def plain(value: Any, path: str | Path) -> Any:
    """Pickled settings of a checkpoint as dicts, lists and plain values.

    omegaconf's containers and values, name spaces, data classes and dictionaries of other classes
    come as what they hold, members of an enumeration as their value, classes as their dotted name.
    Raises `UserError` for settings that are nested too deeply, too long or refer to each other too
    often.
    """
    nodes = 0

    def convert(value: Any, depth: int) -> Any:
        nonlocal nodes
        nodes += len(value) if isinstance(value, str) else 1
        if depth > 32 or nodes > MAX_NODES:
            raise UserError(f"{path}: the checkpoint's settings are nested too deeply or too long")
        if isinstance(value, dict):
            return {str(key): convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)) and not isinstance(value, (Tensor, Storage)):
            return [convert(item, depth + 1) for item in value]
        if isinstance(value, Inert):
            if value.name.endswith(".scalar"):  # numpy's, in bytes
                return None
            state = value.state
            if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
                state = state[1]
            if not isinstance(state, dict):
                state = {}
            for key in ("_content", "_val"):
                if key in state:
                    return convert(state[key], depth + 1)
            # Some versions of Python write a member of an enumeration as getattr(class, name).
            args = value.args[value.name.endswith(".getattr") :]
            first = args[0] if args else None
            found = convert(value.mapping or value.items or state or first or None, depth + 1)
            return Member(found) if isinstance(found, str) else found
        if isinstance(value, type) and issubclass(value, Inert):
            return value.name
        if isinstance(value, int) and value.bit_length() > 64:
            return None  # no setting; longer ones cannot even be shown
        return value if isinstance(value, (bool, int, float, str)) else None

    return convert(value, 0)
