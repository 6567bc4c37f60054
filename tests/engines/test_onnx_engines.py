"""The engines that start from ONNX, with their real libraries, on the CPU."""

import json

import networks
import numpy as np
import pytest
from deepspeech2 import engines
from deepspeech2.cli import UserError
from deepspeech2.engines import Shape
from helpers import TINY, python_without

onnx = pytest.importorskip("onnx", reason="needs envs/onnxruntime.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs envs/onnxruntime.txt")
openvino = pytest.importorskip("openvino", reason="needs envs/openvino.txt")
from deepspeech2.engines.onnxruntime import session as onnxruntime_session  # noqa: E402
from deepspeech2.model.onnx_graph import export  # noqa: E402

SHAPES = [Shape(3, 161, 200)]
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def backend(name, **entry):
    return engines.create(engines.complete({"backend": name, **entry}))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Files of tiny networks: static and packed LSTMs, a GRU, and one of one direction."""
    folder = tmp_path_factory.mktemp("onnx")
    _, gru, _, lookahead, _ = networks.ARCHITECTURES
    made = {}
    for name, architecture, form in (
        ("static", TINY, "static"),
        ("packed", TINY, "packed"),
        ("gru", gru, "static"),
        ("lookahead", lookahead, "static"),
    ):
        proto, _ = export(networks.make(architecture, form + "_whole"), 17)
        made[name] = folder / f"{name}.onnx", architecture
        onnx.save(proto, made[name][0])
    return made


def difference(session, architecture, size, frames):
    """The largest from the plain network, of an unordered batch."""
    x, lengths = networks.batch(size, frames, architecture.bins, ordered=False)
    found = networks.run(session, x, lengths)
    expected = networks.make(architecture, "static")(x, lengths)
    assert found[1].dtype == np.int32 and found[1].tolist() == expected[1].tolist()
    pairs = zip(networks.valid(found), networks.valid(expected))
    return max(float(np.abs(ours - theirs.numpy()).max()) for ours, theirs in pairs)


@pytest.mark.parametrize(
    ("name", "entry", "file", "tolerance"),
    [
        ("onnxruntime", {}, "static", 1e-6),
        ("onnxruntime", {"form": "packed"}, "packed", 1e-6),
        ("onnxruntime", {}, "gru", 1e-6),
        ("onnxruntime", {"options": {"graph_level": "disabled"}}, "lookahead", 1e-6),
        ("onnxruntime", {"precision": "int8"}, "static", 0.02),
        ("onnxruntime", {"precision": "int8", "options": {"reduce_range": True}}, "packed", 0.02),
        ("openvino", {}, "static", 1e-6),
        ("openvino", {}, "gru", 1e-6),
        ("openvino", {"options": {"hint": "throughput"}}, "lookahead", 1e-6),
        pytest.param(
            *("openvino", {"precision": "bf16"}, "static", 0.02),
            marks=pytest.mark.skipif(not HAS_BF16, reason="the CPU has no instructions for bf16"),
        ),
    ],
)
def test_sessions_compute_the_plain_network(tmp_path, exported, name, entry, file, tolerance):
    path, architecture = exported[file]
    made = backend(name, **entry)
    made.prepare()
    notes = made.compile(path, SHAPES, tmp_path)
    assert ("quantised" in notes) == (made.engine.precision == "int8")
    assert made.versions()[name]
    for threads in (1, 2):
        session = made.open(tmp_path, threads)
        try:
            for size, frames in ((1, 30), (3, 200), (16, 97)):
                found = difference(session, architecture, size, frames)
                assert found <= tolerance
            if made.engine.precision in ("int8", "bf16"):
                assert found > 1e-6  # it is another precision
        finally:
            session.close()


def test_outputs_stay_when_the_next_batch_is_computed(tmp_path, exported):
    for name in ("onnxruntime", "openvino"):
        (tmp_path / name).mkdir()
        made = backend(name)
        made.compile(exported["static"][0], SHAPES, tmp_path / name)
        session = made.open(tmp_path / name, 1)
        first = networks.run(session, *networks.batch(3, 90))
        kept = [array.copy() for array in first]
        networks.run(session, *networks.batch(5, 90))
        assert all(np.array_equal(one, two) for one, two in zip(first, kept))


def test_a_batch_is_shared_by_streams(tmp_path, exported):
    """As OpenVINO chooses on larger machines."""
    made = backend("openvino")
    made.compile(exported["static"][0], SHAPES, tmp_path)
    session = made.open(tmp_path, 1)
    session.requests = [session.requests[0]]
    x, lengths = networks.batch(5, 90, ordered=False)
    alone = networks.run(session, x, lengths)
    compiled = session.requests[0].get_compiled_model()
    session.requests = [compiled.create_infer_request() for _ in range(3)]
    shared = networks.run(session, x, lengths)
    for one, two in zip(networks.valid(alone), networks.valid(shared)):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)
    assert alone[1].tolist() == shared[1].tolist() and len(session.running) == 3


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_one_line(tmp_path, exported, name, damage):
    content = exported["static"][0].read_bytes()
    path = tmp_path / "x.onnx"
    changed = {"cut": content[: len(content) // 2], "empty": b"", "text": b"hello\n"}
    path.write_bytes(changed[damage])
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="cannot"):
        backend(name).compile(path, SHAPES, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("onnxruntime", {"precision": "bf16"}, "provider cpu computes fp32 or int8, not 'bf16'"),
        ("onnxruntime", {"options": {"provider": "cuda"}}, "serves the device cuda:N, not 'cpu'"),
        ("onnxruntime", {"options": {"provider": "gpu"}}, "provider 'gpu'"),
        ("onnxruntime", {"options": {"provider": ["cpu"]}}, "provider"),
        ("onnxruntime", {"device": "tpu:0"}, "serves the device cpu, not 'tpu:0'"),
        ("onnxruntime", {"options": {"graph_level": "most"}}, "graph_level 'most'"),
        ("openvino", {"form": "packed"}, "no form packed"),
        (
            *("onnxruntime", {"options": {"provider": "openvino"}, "form": "packed"}),
            "provider openvino has no form packed",
        ),
        ("openvino", {"precision": "int8"}, "fp32 or bf16"),
        ("openvino", {"device": "cuda:0"}, "serves the device cpu"),
        ("openvino", {"options": {"hint": "speed"}}, "hint 'speed'"),
    ],
)
def test_settings_that_cannot_be_served(name, entry, words):
    with pytest.raises(UserError, match=words):
        backend(name, **entry)


@pytest.mark.parametrize(
    ("device", "provider", "first"),
    [
        *(("cpu", None, "cpu"), ("cuda:1", None, "cuda"), ("npu:0", None, "cann")),
        *(("dml:0", None, "dml"), ("coreml", None, "coreml"), ("cuda:0", "tensorrt", "tensorrt")),
    ],
)
def test_a_provider_that_is_not_there_stops_before_any_work(device, provider, first):
    entry = {"device": device, "options": {"provider": provider}, "precision": "fp32"}
    made = backend("onnxruntime", **entry)
    assert made.provider == first
    if first == "cpu":
        made.prepare()
        return
    with pytest.raises(UserError, match=f"no provider {first} here .it has .*cpu") as caught:
        made.prepare()
    assert "\n" not in str(caught.value)


def test_the_provider_must_be_the_one_that_runs(monkeypatch, tmp_path, exported):
    """ONNX Runtime would go on with the CPU: with its name in its list, and with no node of it."""
    path, _ = exported["static"]
    way = onnxruntime_session.Way("XnnpackExecutionProvider", {}, "cpu", 0, "ORT_ENABLE_ALL")
    with pytest.raises(UserError, match="Xnnpack"):
        onnxruntime_session.opened(way, path, 1)
    real = onnxruntime.InferenceSession.get_providers
    monkeypatch.setattr(
        onnxruntime.InferenceSession,
        "get_providers",
        lambda session: ["XnnpackExecutionProvider", *real(session)],
    )
    with pytest.raises(UserError, match="computes nothing"):
        onnxruntime_session.placement(way, path, SHAPES[0])


def test_nodes_that_other_providers_ran_are_counted(monkeypatch, tmp_path, exported):
    """From a profile as onnxruntime-gpu writes it: its nodes, copies, and those on the CPU."""
    path, _ = exported["static"]
    events = [
        {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": kind, "provider": by}}
        for name, kind, by in (
            ("conv", "Conv", "CUDAExecutionProvider"),
            ("copy", "MemcpyToHost", "CUDAExecutionProvider"),
            ("shape", "Shape", "CPUExecutionProvider"),
            ("shape", "Shape", "CPUExecutionProvider"),
            ("gather", "Gather", "CPUExecutionProvider"),
        )
    ]
    (tmp_path / "profile.json").write_text(json.dumps([{"cat": "Session"}, *events]))
    session = onnxruntime_session.Session
    monkeypatch.setattr(session, "__init__", lambda self, *about: None)
    monkeypatch.setattr(session, "upload", lambda self, *batch: None)
    monkeypatch.setattr(session, "forward", lambda self, batch: None)
    fake = type("Profiled", (), {"end_profiling": lambda self: str(tmp_path / "profile.json")})
    monkeypatch.setattr(session, "session", fake(), raising=False)
    way = onnxruntime_session.Way("CUDAExecutionProvider", {}, "cuda", 0, "ORT_ENABLE_ALL")
    notes = onnxruntime_session.placement(way, path, SHAPES[0])
    assert notes == {"left to the CPU": {"Gather": 1, "Shape": 1}}


def test_a_cpu_without_bf16(monkeypatch):
    monkeypatch.setattr("deepspeech2.engines.openvino._computes", lambda: ["FP32", "INT8"])
    with pytest.raises(UserError, match="no instructions for bf16"):
        backend("openvino", precision="bf16").prepare()
    backend("openvino").prepare()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_library_that_cannot_be_loaded_is_one_line(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise ImportError('lib.so.9: cannot open shared object')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from deepspeech2 import engines; "
        f"print(*engines.backend_class({name!r}).examine().missing, sep='+')"
    )
    result = python_without([], code)
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert f"{name} is installed but cannot be" in line and "lib.so.9" in line and "+" not in line
