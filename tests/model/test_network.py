"""The network's two forms, and their TorchScript exports."""

import numpy as np
import pytest
import torch
from deepspeech2 import cli, engines, files
from deepspeech2.cli import UserError
from deepspeech2.engines import Shape
from deepspeech2.engines.torchscript import cuda
from deepspeech2.model import network, trace
from deepspeech2.model.architecture import output_frames
from helpers import TINY, tiny_description, tiny_weights, write_safetensors, write_sealed
from networks import ARCHITECTURES, batch, make, run, valid
from safetensors.numpy import save_file
from torch import nn

EXACT = 1e-6


def difference(left, right):
    return max(float((a - b).abs().max()) for a, b in zip(valid(left), valid(right), strict=True))


@pytest.mark.parametrize("output", [0, 1, 2, 1023])  # frames after two whole pieces
def test_long_utterances_are_convolved_in_pieces(output):
    """By the network and its trace alike, which is the same as at once."""
    architecture = ARCHITECTURES[0]
    x, lengths = batch(2, 2 * (2 * network.PIECE + output) - 1, architecture.bins)
    for form in network.FORMS:
        net, whole = make(architecture, form), make(architecture, form + network.WHOLE)
        with torch.inference_mode():
            expected = whole(x, lengths)
            assert difference(net(x, lengths), expected) <= EXACT
            assert difference(trace.trace(net)(x, lengths), expected) <= EXACT


def test_cells_know_whether_they_train(monkeypatch):
    """cuDNN has gradients only where it is told so."""
    told, cell = [], network.CELLS["lstm"]
    monkeypatch.setitem(network.CELLS, "lstm", lambda *a: told.append(a[6]) or cell(*a))
    net = make(TINY, "static")
    for training in (True, False):
        net.train(training)(*batch(2, 20))
    assert told == [True] * 4 + [False] * 4


def test_one_export_has_no_branches():
    """For compilers of fixed shapes."""
    for form in network.EXPORTS:
        graph = str(trace.trace(make(ARCHITECTURES[0], form)).inlined_graph)
        assert ("prim::Loop" in graph) == (form in network.FORMS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("size", "frames"), [(1, 161), (3, 77), (16, 140), (3, 1), (1, 2)])
def test_trace_equals_eager_at_any_shape(architecture, size, frames):
    x, lengths = batch(size, frames, architecture.bins)
    packed = make(architecture, "packed")
    expected = packed(x, lengths)
    for form in network.FORMS:
        net = make(architecture, form)
        traced = trace.trace(net)
        assert (size, frames) != (len(trace.TRACE_LENGTHS), max(trace.TRACE_LENGTHS))
        with torch.inference_mode():
            assert difference(traced(x, lengths), net(x, lengths)) <= EXACT
            assert difference(traced(x, lengths), expected) <= EXACT
            assert difference(torch.jit.freeze(traced)(x, lengths), expected) <= EXACT
    assert expected[1].tolist() == [output_frames(int(n)) for n in lengths]
    assert expected[1].dtype == torch.int32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_computes_what_each_utterance_computes_alone(architecture):
    x, lengths = batch(5, 120, architecture.bins)
    packed = make(architecture, "packed")
    for form in network.FORMS:
        together = valid(make(architecture, form)(x, lengths))
        for row, length in enumerate(lengths):
            alone = valid(packed(x[row : row + 1, ..., :length], lengths[row : row + 1]))[0]
            assert float((together[row] - alone).abs().max()) <= 2e-6  # other GEMM shapes


def test_padding_beyond_the_longest_changes_nothing_in_the_static_form():
    x, lengths = batch(3, 100)
    net = make(TINY, "static")
    wide = torch.nn.functional.pad(x, (0, 57))
    assert difference(net(wide, lengths), net(x, lengths)) <= EXACT


def test_rounding_is_that_of_float32():
    """Against the same network in double precision."""
    x, lengths = batch(4, 90)
    for form in network.FORMS:
        net = make(TINY, form)
        single = net(x, lengths)
        double = net.double()(x.double(), lengths)
        assert difference((single[0].double(), single[1]), double) < 2e-6


def test_probabilities_sum_to_one():
    probabilities, _ = make(TINY, "static")(*batch(2, 50))
    np.testing.assert_allclose(probabilities.sum(-1).numpy(), 1, atol=1e-5)


def test_packed_layers_are_given_their_first_state(monkeypatch):
    """Else a trace by torch 2.0 holds the batch size that it was made with."""
    given = []

    def forward(rnn, x, state=None):
        given.append(state)
        return original(rnn, x, state)

    original = nn.LSTM.forward
    monkeypatch.setattr(nn.LSTM, "forward", forward)
    x, lengths = batch(3, 60)
    make(TINY, "packed")(x, lengths)
    assert [[part.shape for part in state] for state in given] == 2 * [2 * [(2, 3, 8)]]


@pytest.fixture
def exported(tmp_path):
    """TorchScript files of a tiny model by form."""
    files = {}
    for form in network.FORMS:
        files[form] = tmp_path / f"{form}.pt"
        torch.jit.save(trace.trace(make(TINY, form)), files[form])
    return files


def open_session(source, folder, **changes):
    folder.mkdir()
    backend = engines.create(engines.complete({"backend": "torchscript", **changes}))
    assert backend.compile(source, [Shape(4, 161, 100)], folder) == {}
    return backend.open(folder, threads=1)


@pytest.mark.parametrize("form", network.FORMS)
def test_a_session_keeps_the_order_of_unsorted_input(exported, tmp_path, form):
    session = open_session(exported[form], tmp_path / "artefact", form=form)
    x, lengths = batch(6, 100, ordered=False)
    lengths = lengths[[3, 0, 5, 1, 2, 4]]
    x = x[[3, 0, 5, 1, 2, 4]]
    assert lengths.tolist() != sorted(lengths.tolist(), reverse=True)
    probabilities, out = run(session, x, lengths)
    assert probabilities.dtype == np.float32 and out.dtype == np.int32
    assert out.tolist() == [output_frames(int(n)) for n in lengths]
    packed = make(TINY, "packed")
    for row, length in enumerate(lengths):
        alone = valid(packed(x[row : row + 1, ..., :length], lengths[row : row + 1]))[0]
        np.testing.assert_allclose(probabilities[row, : out[row]], alone, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"backend": "tensorrt"}, "torchscript"),
        ({"device": "tpu:0"}, "'tpu:0'"),
        ({"device": "cuda:0:1"}, "'cuda:0:1'"),
        ({"precision": "int8"}, "fp32 or bf16 on cpu, not 'int8'"),
        ({"precision": "fp16"}, "fp32 or bf16 on cpu, not 'fp16'"),
        ({"device": "cuda", "precision": "int8"}, "fp32 or fp16 or bf16 on cuda, not 'int8'"),
        ({"options": {"speed": 11}}, "'speed'"),
        ({"options": {"tf32": True}}, "no option 'tf32'; known are: none"),
        ({"device": "cuda", "options": {"tf32": 1}}, "tf32 1: must be true or false"),
        ({"device": "cuda", "precision": "fp16", "options": {"tf32": True}}, "tf32 is a way to"),
        ({"device": "cuda", "form": "packed", "options": {"cuda_graphs": True}}, "form static"),
        ({"device": "cuda", "padding": "batch", "options": {"cuda_graphs": True}}, "buckets"),
    ],
)
def test_engines_that_cannot_be_served_are_refused(change, word):
    with pytest.raises(UserError, match=word):
        engines.complete({"backend": "torchscript", **change})


def write_model(folder, architecture=TINY):
    """A model as the stage `convert` writes it; the path of its weights."""
    return write_safetensors(folder / "model.safetensors", architecture)


@pytest.mark.parametrize("form", network.FORMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bf16_is_near_the_eager_network(tmp_path, architecture, form):
    """From the weights, at any shape, unsorted; out comes float32 with sums of one."""
    session = open_session(
        write_model(tmp_path, architecture), tmp_path / "artefact", precision="bf16", form=form
    )
    for size, frames in ((4, 40), (1, 33)):  # few: without instructions for it, bfloat16 is slow
        x, lengths = batch(size, frames, architecture.bins, ordered=False)
        x, lengths = x.flip(0), lengths.flip(0)
        probabilities, out = run(session, x, lengths)
        assert probabilities.dtype == np.float32 and out.dtype == np.int32
        assert out.tolist() == [output_frames(int(n)) for n in lengths]
        packed = make(architecture, "packed")
        for row, length in enumerate(lengths):
            alone = valid(packed(x[row : row + 1, ..., :length], lengths[row : row + 1]))[0]
            found = probabilities[row, : out[row]]
            np.testing.assert_allclose(found, alone, atol=0.02)
            np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
            assert float(np.abs(found - alone.numpy()).max()) > 1e-7  # it is another precision


def test_what_stays_float32(tmp_path):
    net = network.load_alone(write_model(tmp_path), "static", torch.bfloat16)
    kept = {name for name, x in net.state_dict().items() if x.dtype == torch.float32}
    norms = {name for name in net.state_dict() if "norm" in name or "module.1." in name}
    assert "rnns.1.rnn.weight_hh_l0" not in kept and "conv.seq_module.0.weight" not in kept
    assert "fc.0.module.1.weight" in kept and "rnns.1.batch_norm.module.running_var" in kept
    assert {n for n in norms if not n.endswith("tracked")} <= kept


def test_an_engine_starts_from_what_has_its_precision():
    engine = engines.complete({"backend": "torchscript", "form": "packed"})
    assert engines.create(engine).source == "torchscript"
    assert engine.export[:2] == ("torchscript", "packed")
    for change in ({"precision": "bf16"}, {"device": "cuda"}, {"device": "cuda:1"}):
        engine = engines.complete({"backend": "torchscript", **change})
        assert engine.export.source == "weights"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_without_a_gpu_an_engine_of_one_says_so(device):
    entry = {"backend": "torchscript", "device": device, "precision": "fp16"}
    backend = engines.create(engines.complete(entry))
    with pytest.raises(UserError, match=f"device {device}: torch .*CUDA"):
        backend.prepare()


def test_why_cuda_cannot_be_used(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "was built without CUDA; install" in cuda.missing("cuda:0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "new enough for CUDA 13.0?" in cuda.missing("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert cuda.missing("cuda:2") == "there is no device cuda:2: torch finds 2, counted from cuda:0"
    assert cuda.missing("cuda:1") is cuda.missing("cuda") is cuda.missing() is None


def test_load_refuses_altered_weights(tmp_path):
    save_file(tiny_weights(), tmp_path / "m.safetensors")
    description = {**tiny_description(), "weights_sha256": "0" * 64}
    write_sealed(tmp_path / "m.json", description)
    with pytest.raises(UserError, match=r"m.safetensors: altered.*snakemake"):
        network.load(tmp_path / "m.safetensors", tmp_path / "m.json", "static")


def test_a_description_of_other_shapes_is_named(tmp_path):
    """Its seal fits."""
    weights = write_safetensors(tmp_path / "m.safetensors")
    about = {**tiny_description(), "weights_sha256": files.sha256(weights)}
    about["architecture"]["hidden_size"] += 8
    index = write_sealed(tmp_path / "m.json", about)
    text = "m.json: it, or a file .*size mismatch.*; rebuild it"
    with pytest.raises(UserError, match=text), cli.naming_used():
        network.load(weights, index, "static")
