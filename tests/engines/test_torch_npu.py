"""The backend torchscript on NPUs: against a strict stand-in for torch_npu, and without the plugin.

What a session must do is one check, which runs on the code as it is and on versions of it with
deliberate mistakes.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import fake_npu
import numpy as np
import pytest
import torch
from conftest import FAKES
from deepspeech2 import engines
from deepspeech2.cli import UserError
from deepspeech2.engines import torchscript
from deepspeech2.engines.torchscript import npu, session
from helpers import TINY, assert_one_line_error, run_stage, tiny_weights, write_safetensors
from networks import batch, run, valid

ENGINE = {"backend": "torchscript", "device": "npu:1"}
# Largest difference of a posterior. The stand-in computes as the CPU does; what HF32 or float16 in
# place of float32 change is above this.
TOLERANCES = {"fp32": 1e-6, "fp16": 5e-3, "bf16": 5e-2}
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BATCH = ["h2d", "h2d", "synchronize", "compute", "synchronize", "d2h", "d2h"]
CANN_MISSING = "libhccl.so: cannot open shared object file: No such file or directory"


@pytest.fixture
def plugin(monkeypatch):
    """The stand-in, in a process as new."""
    fake_npu.reset()
    monkeypatch.syspath_prepend(str(FAKES / "with_torch_npu"))
    yield fake_npu.STATE
    sys.modules.pop("torch_npu", None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny network that is surer of its labels than random weights are."""
    found = tiny_weights()
    found["fc.0.module.1.weight"] *= 10
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    return write_safetensors(path, TINY, found)


def open_session(weights, folder, **changes):
    """A backend on the stand-in and a session of it."""
    backend = importlib.import_module(torchscript.__name__).Backend(
        engines.complete({**ENGINE, **changes})
    )
    backend.prepare()
    folder.mkdir()
    backend.compile(weights, [], folder)
    return backend, backend.open(folder, threads=1)


def check(state, weights, folder, precision, traced):
    """What a session on an NPU must do."""
    from deepspeech2.model import network

    options = {"traced": traced}
    backend, opened = open_session(weights, folder, precision=precision, options=options)
    assert backend.fake and state.device == 1 and state.jit_compile is False
    plain = network.load_alone(weights, "packed")
    for size in (1, 3):
        x, lengths = batch(size, 77, ordered=False)
        state.events.clear()
        state.products.clear()
        probabilities, out = run(opened, x, lengths)
        assert state.events == BATCH
        kinds = dict(state.products)
        assert kinds["convolution"] == kinds["lstm"] == TYPES[precision]
        assert probabilities.dtype == np.float32 and out.dtype == np.int32
        for row, length in enumerate(lengths):
            alone = valid(plain(x[row : row + 1, ..., :length], lengths[row : row + 1]))[0]
            assert out[row] == len(alone)
            found = probabilities[row, : out[row]]
            np.testing.assert_allclose(found, alone, atol=TOLERANCES[precision])
    assert opened.peak_memory_bytes() > 0
    hf32 = {"allow_hf32": {"conv": False, "matmul": False}}
    assert opened.notes == {**hf32, **({} if precision != "fp32" else npu.KEEP)}
    versions = backend.versions()
    assert versions["device"] == "Fake310P3 1" and versions["torch_npu"] == "unknown"


@pytest.mark.parametrize("traced", [True, False], ids=["traced", "eager"])
@pytest.mark.parametrize("precision", TYPES)
def test_a_session_computes_what_the_cpu_does(plugin, weights, tmp_path, precision, traced):
    check(plugin, weights, tmp_path / "artefact", precision, traced)


# Deliberate mistakes: the module, what stands there and what instead, and the precision to run.
COPY = "x.to(self.device, non_blocking=self.pinned)"
LATE_COPY = "x.to(self.device, non_blocking=True)"
WAIT = "        self.synchronize()  # else"
HOME, LATE_HOME = 'x.to("cpu") for', 'x.to("cpu", non_blocking=True) for'
MISTAKES = {
    "no upload": (session, {COPY: "x"}, "fp32"),
    "no synchronize": (session, {"self.runtime.synchronize(self.device)": "pass"}, "fp32"),
    "upload not waited for": (session, {WAIT: "        #"}, "fp32"),
    "late upload, not waited for": (session, {COPY: LATE_COPY, WAIT: "        #"}, "fp32"),
    "no copy to the host": (session, {HOME: "x for"}, "fp32"),
    "late copy to the host": (session, {HOME: LATE_HOME}, "fp32"),
    "another device": (npu, {"set_device(device)": "set_device(0)"}, "fp32"),
    "no device": (npu, {"runtime.set_device(device)": "pass"}, "fp32"),
    "HF32 in convolutions": (npu, {"runtime.conv.allow_hf32 = runtime.": "runtime."}, "fp32"),
    "float16 for float32": (npu, {"runtime.set_option(dict(keep))": "pass"}, "fp32"),
    "compiled shape by shape": (npu, {"jit_compile=False": "jit_compile=True"}, "fp32"),
    "fp16 not requested": (torchscript, {"types[self.engine.precision]": "torch.float32"}, "fp16"),
    "network on the CPU": (torchscript, {"return net.to(self._place)": "return net"}, "fp32"),
    "traced on the CPU": (torchscript, {"(source), self._place": "(source), 'cpu'"}, "fp32"),
    "loaded to the CPU": (torchscript, {"map_location=self._place": "map_location='cpu'"}, "fp32"),
    "not marked": (torchscript, {'"__fake__"': '"fake"'}, "fp32"),
}


def put(monkeypatch, module, changes):
    """A copy of a module, changed, in the place of the real one."""
    text = Path(module.__file__).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {module.__name__}"
        text = text.replace(old, new)
    made = importlib.util.module_from_spec(module.__spec__)
    monkeypatch.setitem(sys.modules, module.__name__, made)
    exec(compile(text, module.__file__, "exec"), made.__dict__)
    if module is npu:
        monkeypatch.setattr(torchscript, "npu", made)


@pytest.mark.parametrize(("module", "changes", "precision"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_caught(plugin, weights, tmp_path, monkeypatch, module, changes, precision):
    put(monkeypatch, module, changes)
    with pytest.raises((AssertionError, UserError, RuntimeError, TypeError)):
        check(plugin, weights, tmp_path / "artefact", precision, traced=True)


@pytest.mark.parametrize("module", [session, npu, torchscript], ids=lambda m: m.__name__)
def test_a_copy_without_a_mistake_passes(plugin, weights, tmp_path, monkeypatch, module):
    """So what is caught is the mistake, not that the module is a copy."""
    put(monkeypatch, module, {})
    check(plugin, weights, tmp_path / "artefact", "fp32", traced=True)


def test_the_stand_in_is_strict(plugin):
    import torch_npu

    x = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="no device was chosen"):
        x.to("npu:0")
    with pytest.raises(RuntimeError, match="Invalid device ID"):
        torch_npu.npu.set_device("npu:2")
    torch_npu.npu.set_device(0)
    there = x.to("npu:0")
    assert str(there.device) == "npu:0" and torch_npu.npu.conv.allow_hf32
    with pytest.raises(RuntimeError, match="at least two devices, cpu and npu:0"):
        there + x
    with pytest.raises(RuntimeError, match="npu:1 is not the device that was chosen"):
        x.to("npu:1")
    with pytest.raises(TypeError, match="can't convert npu:0 device type tensor to numpy"):
        there.numpy()
    late = (there + 1).to("cpu", non_blocking=True)
    assert late.isnan().all()
    torch_npu.npu.synchronize(0)
    assert (late == 2).all() and ((there * 3).cpu() == 3).all()
    assert plugin.events[-3:] == ["synchronize", "compute", "d2h while it computes"]


def broken(folder):
    """A folder with a torch_npu that cannot be imported, which torch would import by itself."""
    package, about = folder / "torch_npu", folder / "torch_npu-2.10.0.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (package / "__init__.py").write_text(f"raise ImportError({CANN_MISSING!r})\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 2.10.0\n")
    (about / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    return folder


def test_a_plugin_that_is_missing_or_broken_is_one_line(monkeypatch, tmp_path):
    backend = engines.create(engines.complete(ENGINE))
    with pytest.raises(UserError, match=r"^device npu:1: no package torch_npu in .*hardware\.md"):
        backend.prepare()
    assert "no package torch_npu" in torchscript.Backend.examine("npu:1").missing[0]
    monkeypatch.syspath_prepend(str(broken(tmp_path)))
    words = r"^device npu:1: torch_npu 2\.10\.0 cannot be .*beside torch .*libhccl.*set_env\.sh"
    with pytest.raises(UserError, match=words):
        backend.prepare()
    (line,) = torchscript.Backend.examine("npu").missing
    assert "libhccl.so" in line and "\n" not in line
    found = torchscript.Backend.examine()
    assert not found.missing and "no engine with device npu can run" in found.doubts[-1]
    assert torchscript.Backend.examine("cpu").doubts == found.doubts[:-1]


def test_torch_does_not_import_a_broken_plugin_by_itself(tmp_path):
    """Or no engine could run beside it, not even on the CPU."""
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "1"}
    environment["PYTHONPATH"] += f"{os.pathsep}{broken(tmp_path)}"
    plain = [sys.executable, "-c", "import torch"]
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 5):
        failed = subprocess.run(plain, env=environment, capture_output=True, text=True)
        assert "Failed to load the backend extension: torch_npu" in failed.stderr
    one, *_ = json.loads(run_stage("doctor", "--json", env=environment).stdout)["backends"]
    assert one["missing"] == [] and "libhccl.so" in one["doubts"][-1]
    engine = '{"backend": "torchscript", "device": "npu:0", "precision": "fp16"}'
    failed = run_stage("doctor", "--require", engine, env=environment)
    assert_one_line_error(failed, "libhccl.so", "source CANN's set_env.sh", "docs/hardware.md")


def test_what_is_found_and_devices_that_are_not_there(plugin):
    found = torchscript.Backend.examine("npu:1")
    assert not found.missing and found.found["npu:1"] == "Fake310P3 1"
    (line,) = torchscript.Backend.examine("npu:2").missing
    assert line == "there is no device npu:2: torch_npu finds 2, counted from npu:0"
    fake_npu.RUNTIME.device_count = lambda: 0
    try:
        assert "finds no NPU: is the driver installed?" in npu.missing()
    finally:
        fake_npu.RUNTIME.device_count = lambda: fake_npu.DEVICES


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "npu:x"}, "serves cpu, cuda:N and npu:N, not"),
        ({"precision": "int8"}, "computes fp32 or fp16 or bf16 on npu"),
        ({"form": "packed"}, "on npu the form must be static"),
        ({"options": {"cuda_graphs": True}}, "no option 'cuda_graphs'; known are: traced"),
        ({"options": {"tf32": True}}, "no option 'tf32'"),
        ({"options": {"traced": 1}}, "must be true or false"),
        ({"device": "cuda:0", "options": {"traced": True}}, "no option 'traced'"),
    ],
)
def test_settings_are_checked(changes, words):
    with pytest.raises(UserError, match=words):
        engines.complete({**ENGINE, **changes})
