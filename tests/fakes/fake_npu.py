"""A strict stand-in for Huawei's torch_npu, and for a device: for tests only.

It has the functions that torch_npu 2.10.0 has under these names, as far as the project uses them,
and refuses more than it: a device must have been chosen before it is used, and no other is used
then. Its tensors are of torch's device type npu, as torch_npu's are, so tracing, saving and loading
are torch's own. What it computes, it computes with torch on the CPU. Its device is one whose matrix
unit makes float16 of float32 unless the plugin is told to keep it, and HF32 in convolutions.

A copy with non_blocking has no values before `synchronize`. One without waits for the device, as
the real one does; STATE.events tells it from one after `synchronize`. Nothing that it measures is a
real figure.
"""

import os
import types
from pathlib import Path

import torch
from torch.utils._pytree import tree_flatten, tree_map

DEVICES = 2
EVENTS = os.environ.get("FAKE_ASCEND_EVENTS")  # a folder for the events of each process
ATEN = torch.ops.aten
# What the matrix unit computes: convolutions, and the rest.
CONVOLUTIONS = {ATEN.convolution, ATEN._convolution}
PRODUCTS = {ATEN.mm, ATEN.addmm, ATEN.bmm, ATEN.baddbmm, ATEN.lstm, ATEN.gru, ATEN.rnn_tanh}
COMPOSITE = "CompositeImplicitAutograd"
COPIES = {ATEN.copy_, ATEN._to_copy}
# Operators that torch_npu has as a whole, where torch would take them apart for a new device.
WHOLE = ("lstm.input", "gru.input", "rnn_tanh.input", "arange", "arange.start")
OPTIONS = {"ACL_PRECISION_MODE": ("allow_fp32_to_fp16", "must_keep_origin_dtype")}
STORAGES = {}  # contents by the address of a tensor's storage


class Hf32:
    """Whether operators of a kind may compute in HF32."""

    __slots__ = ("_allowed",)

    def __init__(self, allowed):
        self._allowed = allowed

    @property
    def allow_hf32(self):
        return self._allowed

    @allow_hf32.setter
    def allow_hf32(self, value):
        if type(value) is not bool:
            raise TypeError("allow_hf32 must be a bool")
        self._allowed = value


class State:
    """What the process has done with the plugin so far, and how the stand-in behaves."""

    def __init__(self):
        self.device = None
        self.events = []
        self.late = []  # copies that happen when the device is waited for
        self.running = False  # whether something was computed since then
        self.bytes = 0
        self.jit_compile = None
        self.options = {}
        self.products = set()  # (operator, type of its input)
        self.conv, self.matmul = Hf32(True), Hf32(False)

    def note(self, event):
        if not (event == "compute" and self.events[-1:] == ["compute"]):
            self.events.append(event)
        if EVENTS:  # one line an event, a file a process
            Path(EVENTS, f"{os.getpid()}").write_text("\n".join(self.events) + "\n")

    def require(self, index):
        """Refuse what is on a device that was not chosen."""
        if self.device is None:
            raise RuntimeError("no device was chosen with set_device")
        if index != self.device:
            raise RuntimeError(f"npu:{index} is not the device that was chosen, npu:{self.device}")


STATE = State()


class NpuTensor(torch.Tensor):
    """A tensor on the device, which has its content on the host."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value, index):
        STATE.require(index)
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=torch.device("npu", index),
        )
        tensor.content, tensor.index = value, index
        STORAGES[tensor.untyped_storage()._cdata] = value
        STATE.bytes += value.nbytes
        return tensor

    @property
    def value(self):
        """Its content. What TorchScript loads is an empty tensor that was given a storage."""
        if self.numel() and not self.content.numel():
            whole = STORAGES[self.untyped_storage()._cdata]
            self.content = part(whole, self.storage_offset(), self.size(), self.stride())
        return self.content

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})

    def numpy(self, *args, **kwargs):
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy "
            "the tensor to host memory first."
        )


def part(whole, offset, size, stride):
    """The tensor of this size in the storage of another."""
    return torch.empty(0, dtype=whole.dtype).set_(whole.untyped_storage(), offset, size, stride)


def run(function, args, kwargs):
    """An operator on tensors of the device."""
    packet = function.overloadpacket
    if packet in COPIES:
        return copy(packet, *args, **kwargs)
    if packet == ATEN.set_:  # how TorchScript reads the content of a storage that it saves
        args[0].content = part(STORAGES[args[1]._cdata], *args[2:])
        return args[0]
    name = function.name()
    if packet not in PRODUCTS and torch._C._dispatch_has_kernel_for_dispatch_key(name, COMPOSITE):
        return function.decompose(*args, **kwargs)  # they come whole in inference mode
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    places = {str(x.device) for x in tensors if isinstance(x, NpuTensor) or x.dim()}
    if len(places) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(places))}! ({packet})"
        )
    for x in tensors:
        if isinstance(x, NpuTensor):
            STATE.require(x.index)
    named = kwargs.get("device")
    if named is not None and named.type != "npu":
        raise RuntimeError(f"{packet} cannot make a tensor on {named}")
    STATE.note("compute")
    STATE.running = True
    owners = {id(x.value): x for x in tensors if isinstance(x, NpuTensor)}
    lower = lowered(packet)

    def down(x):
        if isinstance(x, torch.device):
            return torch.device("cpu")
        return lower(x.value) if isinstance(x, NpuTensor) else x

    with torch.no_grad():
        found = function(*tree_map(down, args), **tree_map(down, kwargs))

    def up(x):
        if not isinstance(x, torch.Tensor):
            return x
        return owners.get(id(x)) if id(x) in owners else NpuTensor(x, STATE.device)

    return tree_map(up, found)


def lowered(packet):
    """What the matrix unit makes of the input of an operator."""
    unit = STATE.conv if packet in CONVOLUTIONS else STATE.matmul
    keeps = STATE.options.get("ACL_PRECISION_MODE") == "must_keep_origin_dtype"

    def lower(value):
        if packet not in CONVOLUTIONS | PRODUCTS or not value.is_floating_point():
            return value
        STATE.products.add((packet.__name__, value.dtype))
        if value.dtype != torch.float32:
            return value
        if not keeps:
            return value.half().float()
        if unit.allow_hf32:
            return ((value.contiguous().view(torch.int32) + 0x800) & ~0xFFF).view(torch.float32)
        return value

    return lower


def copy(packet, first, *rest, **kwargs):
    """Copies between host and device, and from type to type on the device."""
    if packet == ATEN._to_copy:
        place = kwargs.pop("device", None)
        late = kwargs.pop("non_blocking", False)
        if place is not None and place.type == "cpu":
            return to_host(first, torch.empty_like(first.value, **kwargs), late)
        STATE.require(first.index)
        STATE.note("compute")
        return NpuTensor(ATEN._to_copy(first.value, **kwargs), first.index)
    source, late = rest[0], rest[1] if len(rest) > 1 else kwargs.get("non_blocking", False)
    if not isinstance(first, NpuTensor):
        return to_host(source, first, late)
    STATE.require(first.index)
    if isinstance(source, NpuTensor):
        first.value.copy_(source.value)
        return first
    if not source.is_contiguous():
        raise RuntimeError("only contiguous tensors are copied to the device npu")
    STATE.note("h2d")
    transfer(first.value, source, late)
    return first


def to_host(tensor, target, late):
    STATE.require(tensor.index)
    STATE.note("d2h while it computes" if STATE.running else "d2h")
    transfer(target, tensor.value, late)
    return target


def transfer(target, source, late):
    """Copy at once, or when the device is waited for; what stands there until then is wrong."""
    if late:
        target.fill_(float("nan") if target.is_floating_point() else -1)
        STATE.late.append(lambda: target.copy_(source))
    else:
        target.copy_(source)


def number(device):
    """The number of a device: a number, "npu:1", a torch.device."""
    if type(device) is not int:
        device = torch.device(device)
        if device.type != "npu":
            raise ValueError(f"Expected a npu device, but got: {device}")
        device = (STATE.device or 0) if device.index is None else device.index
    if not 0 <= device < DEVICES:
        raise RuntimeError(f"Invalid device ID.\n[ERROR] device {device}, ERR00003 invalid value")
    return device


def set_device(device):
    index = number(device)
    STATE.device = index
    STATE.note(f"set_device {index}")


def synchronize(device=None):
    STATE.require(STATE.device if device is None else number(device))
    for step in STATE.late:
        step()
    STATE.late.clear()
    STATE.running = False
    STATE.note("synchronize")


def set_compile_mode(jit_compile=False):
    if type(jit_compile) is not bool:
        raise TypeError("jit_compile must be a bool")
    if STATE.device is not None:
        raise RuntimeError("the stand-in has its compile mode set before a device is chosen")
    STATE.jit_compile = jit_compile


def set_option(option):
    if not isinstance(option, dict):
        raise TypeError("npu option must be a dict.")
    for name, value in option.items():
        if value not in OPTIONS[name]:
            raise ValueError(f"value of {name} should be in {OPTIONS[name]} but got {value}")
    STATE.options.update(option)


def max_memory_allocated(device=None):
    STATE.require(number(device))
    return STATE.bytes


class Runtime(types.ModuleType):
    """What torch.npu is."""

    conv, matmul = property(lambda self: STATE.conv), property(lambda self: STATE.matmul)


RUNTIME = Runtime("torch.npu")
RUNTIME.set_device, RUNTIME.synchronize = set_device, synchronize
RUNTIME.set_compile_mode, RUNTIME.set_option = set_compile_mode, set_option
RUNTIME.max_memory_allocated = max_memory_allocated
RUNTIME.get_device_name = lambda device=None: f"Fake310P3 {number(device)}"
RUNTIME.device_count = lambda: DEVICES
RUNTIME.is_available = RUNTIME.is_initialized = lambda: True
RUNTIME.current_device = lambda: STATE.device or 0
RUNTIME._is_in_bad_fork = lambda: False
RUNTIME.manual_seed_all = lambda seed: None
LIBRARY = torch.library.Library("aten", "IMPL")


def install(name):
    """Make npu a device of torch, once in a process."""
    if hasattr(torch, "npu"):
        return
    torch.utils.backend_registration._setup_privateuseone_for_python_backend("npu", RUNTIME)

    def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
        return NpuTensor(torch.empty_strided(size, stride, dtype=dtype), index_of(device))

    def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        return NpuTensor(torch.empty(size, dtype=dtype), index_of(device))

    def index_of(device):
        return STATE.device if device is None or device.index is None else device.index

    LIBRARY.impl("empty_strided", empty_strided, "PrivateUse1")
    LIBRARY.impl("empty.memory_format", empty, "PrivateUse1")
    for operator in WHOLE:
        packet, _, overload = operator.partition(".")
        function = getattr(getattr(ATEN, packet), overload or "default")
        LIBRARY.impl(operator, lambda *a, f=function, **k: run(f, a, k), "PrivateUse1")


def reset():
    """A process as new."""
    STATE.__init__()
