"""The network's two forms, and their TorchScript exports."""

import json

import numpy as np
import pytest
import torch
from deepspeech2 import backends, export, network
from deepspeech2.architecture import Architecture, output_frames
from deepspeech2.backends import Engine, Shape
from deepspeech2.stage import UserError
from helpers import TINY, tiny_description, tiny_weights
from safetensors.numpy import save_file
from torch import nn

ARCHITECTURES = [
    TINY,
    Architecture(161, 29, "gru", 12, 3, True),
    Architecture(161, 29, "rnn", 12, 2, True),
    Architecture(161, 29, "lstm", 12, 2, False, 5),
    Architecture(81, 7, "gru", 3, 1, False, 1),
]
EXACT = 1e-6


def make(architecture, form):
    net = network.DeepSpeech2(architecture, form)
    state = {k: torch.from_numpy(v) for k, v in tiny_weights(architecture).items()}
    missing = net.load_state_dict(state, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    assert not missing.unexpected_keys
    return net.eval().requires_grad_(False)


def batch(size, frames, bins=161, ordered=True):
    """Spectrograms with zeros past each length, and mixed lengths, the first the longest."""
    random = np.random.default_rng(size)
    lengths = random.integers(1, frames + 1, size)
    lengths[0] = frames
    lengths = np.sort(lengths)[::-1] if ordered else lengths
    x = random.standard_normal((size, 1, bins, frames)).astype("f4")
    for row, length in enumerate(lengths):
        x[row, ..., length:] = 0
    return torch.from_numpy(x), torch.from_numpy(lengths.astype("i4"))


def valid(result):
    probabilities, lengths = result
    return [probabilities[row, :length] for row, length in enumerate(lengths)]


def difference(left, right):
    return max(float((a - b).abs().max()) for a, b in zip(valid(left), valid(right), strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("size", "frames"), [(1, 161), (3, 77), (16, 140), (3, 1), (1, 2)])
def test_trace_equals_eager_at_any_shape(architecture, size, frames):
    x, lengths = batch(size, frames, architecture.bins)
    packed = make(architecture, "packed")
    expected = packed(x, lengths)
    for form in network.FORMS:
        net = make(architecture, form)
        traced = export.trace(net)
        assert (size, frames) != (len(export.TRACE_LENGTHS), max(export.TRACE_LENGTHS))
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
        torch.jit.save(export.trace(make(TINY, form)), files[form])
    return files


def open_session(source, folder, **changes):
    folder.mkdir()
    engine = Engine("torchscript", "cpu", "fp32", "static", "longest", {})._replace(**changes)
    backend = backends.create(engine)
    assert backend.compile(source, [Shape(4, 161, 100)], folder) == {}
    return backend.open(folder, threads=1)


def run(session, x, lengths):
    result = session.forward(session.upload(x.numpy(), lengths.numpy()))
    session.synchronize()
    return session.download(result)


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
        ({"device": "cuda:0"}, "'cuda:0'"),
        ({"precision": "int8"}, "'int8'"),
        ({"options": {"speed": 11}}, "'speed'"),
    ],
)
def test_engines_that_cannot_be_served_are_refused(change, word):
    engine = Engine("torchscript", "cpu", "fp32", "static", "longest", {})._replace(**change)
    with pytest.raises(UserError, match=word):
        backends.create(engine)


def test_load_refuses_altered_weights(tmp_path):
    save_file(tiny_weights(), tmp_path / "m.safetensors")
    description = {**tiny_description(), "weights_sha256": "0" * 64}
    (tmp_path / "m.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"m.safetensors: altered.*snakemake"):
        network.load(tmp_path / "m.safetensors", tmp_path / "m.json", "static")
