"""ONNX exports: the plain network's numbers, the same bytes every time, and what they say."""

import json
import os

import networks
import numpy as np
import pytest
from conftest import ROOT
from deepspeech2.files import sha256
from deepspeech2.model.architecture import METADATA_KEY
from helpers import (
    LABELS,
    TINY,
    assert_one_line_error,
    python_without,
    run_stage,
    tiny_description,
    write_safetensors,
    write_sealed,
)

onnx = pytest.importorskip("onnx", reason="needs envs/onnxruntime.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs envs/onnxruntime.txt")
from deepspeech2.model.onnx_graph import export  # noqa: E402  needs onnx
from deepspeech2.model.tensors import INPUTS, OUTPUTS  # noqa: E402


def session_of(proto):
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def differences(session, architecture, size, frames, ordered=True):
    """Largest difference from the plain network, of the frames that count, and both shapes."""
    x, lengths = networks.batch(size, frames, architecture.bins, ordered)
    feeds = dict(zip(INPUTS, (x.numpy(), lengths.numpy())))
    probabilities, out = session.run(list(OUTPUTS), feeds)
    expected, expected_lengths = networks.make(architecture, "static")(x, lengths)
    assert probabilities.shape == expected.shape and out.dtype == np.int32
    assert out.tolist() == expected_lengths.tolist()
    pairs = zip(networks.valid((probabilities, out)), networks.valid((expected, out)))
    return max(float(np.abs(ours - theirs.numpy()).max()) for ours, theirs in pairs)


@pytest.mark.parametrize(
    "architecture", networks.ARCHITECTURES, ids=lambda a: "-".join(map(str, a))
)
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("form", ["static", "packed"])
def test_it_computes_what_the_plain_network_does(form, opset, architecture):
    """At batch sizes, widths and lengths that it was not exported with."""
    proto, _ = export(networks.make(architecture, form + "_whole"), opset)
    session = session_of(proto)
    assert [(i.name, i.shape[0]) for i in session.get_inputs()] == [(n, "batch") for n in INPUTS]
    for size, frames in ((1, 1), (1, 250), (3, 201), (16, 97)):
        assert differences(session, architecture, size, frames, ordered=False) <= 1e-6


@pytest.mark.parametrize("form", ["static", "packed"])
def test_one_batch_size_alone(form):
    proto, _ = export(networks.make(TINY, form + "_whole"), 11, 3)
    session = session_of(proto)
    assert [i.shape for i in session.get_inputs()] == [[3, 1, 161, "frames"], [3]]
    assert [o.shape[0] for o in session.get_outputs()] == [3, 3]
    assert differences(session, TINY, 3, 201) <= 1e-6
    with pytest.raises(Exception, match="invalid dimensions"):
        differences(session, TINY, 4, 201)


@pytest.mark.parametrize("form", ["static", "packed"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_what_compilers_want_of_it(form, batch_size):
    """Recurrent nodes have constant weights and no state that is computed; no branch, no loop."""
    proto, _ = export(networks.make(TINY, form + "_whole"), 11, batch_size)
    constants = {tensor.name for tensor in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type == "LSTM"]
    assert len(nodes) == TINY.hidden_layers * (2 if form == "static" else 1)
    for node in nodes:
        assert set(node.input[1:4]) <= constants and len(node.input) <= 5
        assert len(node.input) == (4 if form == "static" else 5)
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in proto.graph.node}
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 11)]


def stage(folder, *more, env=None):
    """The stage's command line, run, for a model in `folder`."""
    weights = write_safetensors(folder / "model.safetensors")
    content = {**tiny_description(), "weights_sha256": sha256(weights)}
    write_sealed(folder / "model.json", content)
    return run_stage(
        "model.onnx", "--weights", weights, "--model", folder / "model.json", "--onnx",
        folder / "x.onnx", "--index", folder / "x.json", *more, env=env,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["static", "packed"])
def test_the_same_weights_give_the_same_bytes(tmp_path, form):
    """In another process, another place, with other hashes of names; and it names no place."""
    found = []
    for number, name in enumerate(("one", "a longer place")):
        (tmp_path / name).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        result = stage(tmp_path / name, "--form", form, env=environment)
        assert result.returncode == 0 and "Warning" not in result.stderr, result.stderr
        found.append([(tmp_path / name / file).read_bytes() for file in ("x.onnx", "x.json")])
    assert found[0] == found[1]
    content = found[0][0]
    assert str(ROOT).encode() not in content and str(tmp_path).encode() not in content


def test_the_file_says_what_it_is(tmp_path):
    assert stage(tmp_path, "--opset", "11", "--batch-size", "2").returncode == 0
    about = {one.key: one.value for one in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert about["form"] == "static"
    assert about["weights_sha256"] == sha256(tmp_path / "model.safetensors")
    said = json.loads(about[METADATA_KEY])
    assert said["labels"] == LABELS and said["spectrogram"]["sample_rate"] == 16000
    index = json.loads((tmp_path / "x.json").read_text())
    assert (index["opset"], index["batch_size"]) == (11, 2)
    assert index["sha256"] == sha256(tmp_path / "x.onnx")
    assert index["exporter"]["onnx"] == onnx.__version__


def test_an_opset_that_is_not_ours(tmp_path):
    assert_one_line_error(stage(tmp_path, "--opset", "12"), "opset 12", "one of 11, 17")
    assert not (tmp_path / "x.onnx").exists()


def test_without_the_package(tmp_path):
    stage(tmp_path)
    code = "from deepspeech2 import cli\nfrom deepspeech2.model import onnx\ncli.run(onnx.main)"
    names = ("weights", "model.safetensors"), ("model", "model.json"), ("onnx", "y"), ("index", "z")
    options = [f"--{name}={tmp_path / file}" for name, file in names]
    code = f"import sys\nsys.argv[1:] = {options}\n{code}"
    result = python_without(["onnx"], code)
    assert_one_line_error(result, "needs the package onnx", "envs/onnxruntime.txt")
