"""On an NVIDIA GPU: does it compute what the plain network computes on the CPU?

    python -m pytest -v tests/engines/test_on_cuda.py

Without a GPU that torch can use, all of it skips. It passes on an H100 with torch 2.11.0.
"""

import numpy as np
import pytest
import torch
from deepspeech2 import engines
from deepspeech2.engines.torchscript import cuda
from helpers import TINY, write_safetensors
from networks import ARCHITECTURES, batch, make, run, valid

MISSING = cuda.missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"needs a GPU: {MISSING}")

# Largest difference of a posterior of a tiny network. bf16's on a CPU is below 0.02.
TOLERANCES = {"fp32": 2e-5, "tf32": 5e-3, "fp16": 5e-3, "bf16": 5e-2}
ENGINE = {"backend": "torchscript", "device": "cuda:0"}


@pytest.fixture(scope="module", autouse=True)
def flags():
    """What `prepare` sets for the whole process, back to what it was."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


def open_session(folder, architecture=TINY, **changes):
    """A session of a tiny network on the GPU."""
    weights = write_safetensors(folder / "model.safetensors", architecture)
    backend = engines.create(engines.complete({**ENGINE, **changes}))
    backend.prepare()
    (folder / "artefact").mkdir()
    backend.compile(weights, [], folder / "artefact")
    return backend.open(folder / "artefact", threads=1)


def assert_near(found, architecture, x, lengths, tolerance):
    """Every row is what the plain network computes of it alone, on the CPU."""
    probabilities, out = found
    assert probabilities.dtype == np.float32 and out.dtype == np.int32
    packed = make(architecture, "packed")
    for row, length in enumerate(lengths):
        alone = valid(packed(x[row : row + 1, ..., :length], lengths[row : row + 1]))[0]
        assert out[row] == len(alone)
        np.testing.assert_allclose(probabilities[row, : out[row]], alone, atol=tolerance)


def shuffled(size, frames, bins=161):
    """A batch in no order."""
    x, lengths = batch(size, frames, bins, ordered=False)
    return x.flip(0).contiguous(), lengths.flip(0).contiguous()


@pytest.mark.parametrize("form", ["static", "packed"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_precision_at_every_batch_size(tmp_path, architecture, precision, form):
    session = open_session(tmp_path, architecture, precision=precision, form=form)
    for size, frames in ((1, 161), (3, 77), (16, 140), (2, 1)):
        x, lengths = shuffled(size, frames, architecture.bins)
        found = run(session, x, lengths)
        assert_near(found, architecture, x, lengths, TOLERANCES[precision])
    assert session.peak_memory_bytes() > 0


def test_tf32_is_an_option(tmp_path):
    session = open_session(tmp_path, options={"tf32": True})
    x, lengths = shuffled(5, 90)
    assert_near(run(session, x, lengths), TINY, x, lengths, TOLERANCES["tf32"])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_cuda_graphs_change_nothing(tmp_path, precision):
    """At several shapes in turn, and with more than one batch under way."""
    plain = open_session(tmp_path / "a", precision=precision)
    graphs = open_session(tmp_path / "b", precision=precision, options={"cuda_graphs": True})
    inputs = [shuffled(size, frames) for size, frames in ((4, 100), (1, 60), (4, 100), (3, 60))]
    for x, lengths in inputs:
        for ours, theirs in zip(run(graphs, x, lengths), run(plain, x, lengths), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(graphs.graphs) == 3
    uploaded = [graphs.upload(x.numpy(), lengths.numpy()) for x, lengths in inputs]
    results = [graphs.forward(one) for one in uploaded]
    graphs.synchronize()
    for (x, lengths), result in zip(inputs, results, strict=True):
        expected = run(plain, x, lengths)[0]
        np.testing.assert_array_equal(graphs.download(result)[0], expected)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_same_bytes_every_time(tmp_path, precision):
    session = open_session(tmp_path, precision=precision)
    x, lengths = shuffled(8, 120)
    first = run(session, x, lengths)[0]
    assert all((run(session, x, lengths)[0] == first).all() for _ in range(5))


def test_forward_only_starts_the_work(tmp_path):
    """Else the timed region would be another one. The convolutions alone take tens of ms here."""
    session = open_session(tmp_path)
    x, lengths = batch(64, 1600)
    uploaded = session.upload(x.numpy(), lengths.numpy())
    for _ in range(3):
        session.forward(uploaded)
        session.synchronize()
    done = torch.cuda.Event()
    session.forward(uploaded)
    done.record()
    assert not done.query()
    session.synchronize()
    assert done.query()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gradients_of_the_cpu(architecture):
    """In the mode for training; cuDNN has none in the other."""
    engines.create(engines.complete(ENGINE)).prepare()  # without TF32
    x, lengths = shuffled(5, 90, architecture.bins)
    found = []
    for device in ("cpu", "cuda"):
        net = make(architecture, "static").train().requires_grad_(True).to(device)
        logits, _ = net.logits(x.to(device), lengths.to(device))
        logits.square().mean().backward()
        found.append([parameter.grad.cpu().numpy() for parameter in net.parameters()])
    for ours, theirs in zip(*found, strict=True):
        assert np.linalg.norm(theirs - ours) <= 1e-2 * np.linalg.norm(ours) + 1e-5


def test_versions_name_what_computed(tmp_path):
    backend = engines.create(engines.complete(ENGINE))
    assert {"torch", "CUDA", "cuDNN", "device"} <= set(backend.versions())
