"""The stand-in itself: what it refuses, so that it stays as strict as the backend's tests need."""

import subprocess
import sys

import fake_ascend
import pytest
import torch
from conftest import FAKES

# Lines that must be refused, after `setup`, and a word of why.
DEVICE = "p.set_device(0); "
INPUTS = "i = [p.Input([2, 3]), p.Input([2], dtype=p.dtype.INT32)]; "
COMPILE = "k = dict(inputs=i, precision_policy=p.PrecisionPolicy.FP16); "
REFUSED = [
    # Surface.
    ("p.npu.synchronize()", AttributeError, "synchronize"),
    ("p.npu.Event()", AttributeError, "Event"),
    # Inputs.
    ("p.Input()", ValueError, "either"),
    ("p.Input([1], [2])", TypeError, "takes one shape"),
    ("p.Input([1], opt_shape=[1])", TypeError, "takes one shape"),
    ("p.Input([1], min_shape=[1], max_shape=[1])", ValueError, "either"),
    ("p.Input(min_shape=[1])", ValueError, "either"),
    ("p.Input(min_shape=[2], max_shape=[1])", ValueError, "above"),
    ("p.Input(min_shape=[1], max_shape=[1, 1])", ValueError, "above"),
    ("p.Input([1.0])", TypeError, "int"),
    ("p.Input([True])", TypeError, "int"),
    ("p.Input([-1])", ValueError, "0 or more"),
    ("p.Input([1] * 9)", TypeError, "at most 8"),
    ("p.Input([1], dtype='float')", TypeError, "no type"),
    ("p.Input([1], format='ND')", TypeError, "format"),
    # The compiler.
    (INPUTS + COMPILE + "p.compile(module=m, **k)", TypeError, "module"),
    (INPUTS + COMPILE + "p.compile(m, i, **k)", TypeError, "positional"),
    (INPUTS + COMPILE + "p.compile(m, workspace=1, **k)", TypeError, "workspace"),
    (INPUTS + COMPILE + "p.compile(object(), **k)", TypeError, "ScriptModule"),
    (INPUTS + COMPILE + "p.compile(m, **{**k, 'inputs': i[:1]})", ValueError, "a list of 2"),
    (INPUTS + COMPILE + "p.compile(m, **{**k, 'inputs': tuple(i)})", ValueError, "a list of 2"),
    (INPUTS + COMPILE + "p.compile(m, min_block_size=1025, **k)", ValueError, "min_block_size"),
    (INPUTS + COMPILE + "p.compile(m, optimization_level='1', **k)", ValueError, "optimization"),
    (INPUTS + COMPILE + "p.compile(m, truncate_long_and_double=1, **k)", ValueError, "truncate"),
    (INPUTS + COMPILE + "p.compile(m, torch_executed_ops=['lstm'], **k)", ValueError, "executed"),
    (INPUTS + COMPILE + "p.compile(m, soc_version='Ascend1', **k)", ValueError, "soc_version"),
    (INPUTS + COMPILE + "p.compile(m, **{**k, 'precision_policy': 'FP16'})", ValueError, "policy"),
    # Devices.
    ("p.set_device('npu:0')", TypeError, "int"),
    ("p.set_device(True)", TypeError, "int"),
    ("p.set_device(9)", RuntimeError, "MIE07E000005"),
    ("x.to('npu:0')", RuntimeError, "MIE07E000005"),
    ("p.npu.Stream('npu:0')", RuntimeError, "MIE07E000005"),
    ("p.npu.default_stream()", RuntimeError, "MIE07E000005"),
    (DEVICE + "x.to('npu:1')", RuntimeError, "MIE07E000005"),
    (DEVICE + "p.npu.Stream('npu:1')", RuntimeError, "MIE07E000005"),
    (DEVICE + "p.npu.set_stream(None)", TypeError, "MIE07E000007"),
    # Tensors there.
    (DEVICE + "x.to('npu:0') + 1", RuntimeError, "not possible"),
    (DEVICE + "x.to('npu:0').sum()", RuntimeError, "not possible"),
    (DEVICE + "x.to('npu:0').numpy()", RuntimeError, "not possible"),
    (DEVICE + "print(x.to('npu:0'))", RuntimeError, "not possible"),
    (DEVICE + "x.to('npu:0').to(torch.float16)", RuntimeError, "only be copied"),
    (DEVICE + "x.to('npu:0', torch.float16)", RuntimeError, "cannot change the type"),
    (DEVICE + "x.t().to('npu:0')", RuntimeError, "contiguous"),
    (DEVICE + "x.to('npu:0', non_blocking=True)", RuntimeError, "pinned"),
    (DEVICE + "m(x.to('npu:0'), n.to('npu:0'))", RuntimeError, ""),
    # What was compiled.
    (DEVICE + "c(x, n)", RuntimeError, "must be on the device"),
    (DEVICE + "c(x.to('npu:0'))", RuntimeError, "MIE08E000001"),
    (DEVICE + "c(x[:1].to('npu:0'), n.to('npu:0'))", RuntimeError, "MIE08E000001"),
    (DEVICE + "c(x.half().to('npu:0'), n.to('npu:0'))", RuntimeError, "MIE08E000001"),
    (DEVICE + "c(x.to('npu:0'), n.long().to('npu:0'))", RuntimeError, "MIE08E000001"),
    # After the end.
    (DEVICE + "p.finalize(); p.finalize()", RuntimeError, "MIE08E010101"),
    (DEVICE + "p.finalize(); p.set_device(0)", RuntimeError, "MIE08E010101"),
    (DEVICE + "p.finalize(); x.to('npu:0')", RuntimeError, "MIE08E010101"),
    (DEVICE + "p.finalize(); p.Input([1])", RuntimeError, "MIE08E010101"),
    (DEVICE + "p.finalize(); c.save('x')", RuntimeError, "MIE08E010101"),
    (DEVICE + "p.finalize(); p.npu.default_stream()", RuntimeError, "MIE08E010101"),
]
TORCH_AIE_ONLY = [
    ("p.PrecisionPolicy.PREF_FP16", AttributeError, "PREF_FP16"),
    ("p.Input(min_shape=[-1], max_shape=[-1])", ValueError, "above"),
    (INPUTS + COMPILE + "p.compile(m, ir='ts', **k)", TypeError, "ir"),
]
SURFACE = set(
    "Input compile export_engine set_device finalize dtype TensorFormat PrecisionPolicy _enums npu"
    .split()
)  # fmt: skip


class Two(torch.nn.Module):
    """Takes two inputs, as the network does."""

    def forward(self, x, n):
        return x * 2, n + 1


@pytest.fixture
def names(monkeypatch):
    """Imports the stand-in as a flavour; returns what the lines above use."""

    def start(flavour):
        fake_ascend.reset(flavour)
        monkeypatch.syspath_prepend(FAKES / f"with_{flavour}")
        plugin = __import__(flavour)
        x, n = torch.ones(2, 3), torch.ones(2, dtype=torch.int32)
        traced = torch.jit.trace(Two(), (x, n))
        made = plugin.compile(
            traced,
            inputs=[plugin.Input([2, 3]), plugin.Input([2], dtype=plugin.dtype.INT32)],
            precision_policy=plugin.PrecisionPolicy.FP32,
        )
        return {"p": plugin, "torch": torch, "x": x, "n": n, "m": traced, "c": made}

    yield start
    fake_ascend.reset("torch_aie")


@pytest.mark.parametrize("flavour", ["torch_aie", "mindietorch"])
@pytest.mark.parametrize(("line", "kind", "words"), REFUSED)
def test_it_refuses(line, kind, words, flavour, names):
    with pytest.raises(kind, match=words or None):
        exec(line, names(flavour))


@pytest.mark.parametrize(("line", "kind", "words"), TORCH_AIE_ONLY)
def test_what_only_mindietorch_has(line, kind, words, names):
    with pytest.raises(kind, match=words or None):
        exec(line, names("torch_aie"))
    exec(line, names("mindietorch"))


@pytest.mark.parametrize("flavour", ["torch_aie", "mindietorch"])
def test_its_surface_is_the_plugins(flavour, names):
    plugin = names(flavour)["p"]
    assert {name for name in vars(plugin) if not name.startswith("__")} == SURFACE
    npu = {name for name in vars(plugin.npu) if not name.startswith("__")}
    assert npu == {"Stream", "stream", "set_stream", "current_stream", "default_stream"}


def test_results_come_when_somebody_waits(names):
    made = names("torch_aie")
    made["p"].set_device(0)
    there = [made[name].to("npu:0") for name in ("x", "n")]
    stream = made["p"].npu.Stream("npu:0")
    with made["p"].npu.stream(stream):
        result, lengths = made["c"](*there)
    (job,) = stream.jobs
    assert job.outputs is None and result.device == torch.device("npu:0")
    stream.synchronize()
    assert job.outputs is not None and result.to("cpu").tolist() == [[2.0] * 3] * 2
    assert lengths.cpu().tolist() == [2, 2]


def test_an_artefact_needs_the_plugin(names, tmp_path):
    """In a process without it, and in one that has it but has not imported it, it does not load."""
    made = names("torch_aie")
    made["c"].save(str(tmp_path / "c.pt"))
    load = f"import torch; torch.jit.load({str(tmp_path / 'c.pt')!r})"
    done = subprocess.run([sys.executable, "-I", "-c", load], capture_output=True, text=True)
    assert done.returncode != 0 and "Error" in done.stderr
    fake_ascend.reset("torch_aie")
    with pytest.raises(RuntimeError):
        torch.jit.load(str(tmp_path / "c.pt"))
    made = names("torch_aie")
    assert isinstance(torch.jit.load(str(tmp_path / "c.pt")), fake_ascend.Compiled)
    fake_ascend.STATE.soc = "Ascend910B4"
    with pytest.raises(RuntimeError, match="Ascend310P3 cannot run on Ascend910B4"):
        torch.jit.load(str(tmp_path / "c.pt"))


def test_the_plugin_wants_torch_first():
    path = [str(FAKES), str(FAKES / "with_torch_aie")]
    code = f"import sys; sys.path[:0] = {path}; import torch_aie"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "torch must be imported before" in done.stderr
