"""snakemake export: the files feed other programs as their JSON says, without this package."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from deepspeech2.files import sha256
from helpers import assert_one_line_error, run_stage

onnxruntime = pytest.importorskip("onnxruntime", reason="needs envs/onnxruntime.txt")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The embedded model's package, and what it was made of."""
    folder = tmp_path_factory.mktemp("export")
    given = ["--weights", folder / "m.safetensors", "--model", folder / "m.json"]
    checkpoint = ROOT / "resources/checkpoints/embedded.safetensors"
    traced = ["--torchscript", folder / "m.pt"], ["--index", folder / "t.json"]
    exported = ["--onnx", folder / "m.onnx"], ["--index", folder / "o.json"]
    stages = (
        ("model.convert", "--checkpoint", checkpoint, *given),
        ("model.torchscript", *given, *traced[0], *traced[1]),
        ("model.onnx", *given, *exported[0], *exported[1]),
        ("model.package", *given, *traced[0], "--torchscript-index", folder / "t.json",
         *exported[0], "--onnx-index", folder / "o.json", "--package", folder / "package"),
    )  # fmt: skip
    for name, *arguments in stages:
        result = run_stage(name, *arguments)
        assert result.returncode == 0, result.stderr
    return folder, stages[-1]


def features(samples, about):
    """The spectrogram as model.json describes it, by librosa."""
    librosa = pytest.importorskip("librosa")
    assert about["window_is"] == "periodic"  # librosa's are
    keys = ("n_fft", "hop_length", "window", "center", "pad_mode")
    found = np.log1p(np.abs(librosa.stft(samples, **{key: about[key] for key in keys})))
    return ((found - found.mean()) / found.std(ddof=1)).astype("f4")


def texts(probabilities, lengths, about):
    found = []
    for row, length in zip(probabilities, lengths):
        best = row[:length].argmax(-1)
        kept = [b for b, before in zip(best, [-1, *best]) if b not in (before, about["blank"])]
        found.append("".join(about["labels"][b] for b in kept))
    return found


def test_other_programs_hear_the_same(made):
    import soundfile

    folder = made[0] / "package"
    about = json.loads((folder / "model.json").read_text())
    assert set(about["files"]) == {"model.onnx", "model.pt", "model.safetensors"}
    for name, entry in about["files"].items():
        assert sha256(folder / name) == entry["sha256"]
    lines = (ROOT / "resources/sample/transcripts.tsv").read_text().splitlines()
    columns = lines[0].split("\t")
    rows = [dict(zip(columns, line.split("\t"))) for line in lines[1:4]]
    spectrograms = []
    for row in rows:
        samples, rate = soundfile.read(ROOT / "resources/sample" / row["path"], dtype="float32")
        assert rate == about["audio"]["sample_rate"]
        spectrograms.append(features(samples, about["spectrogram"]))
    lengths = np.array([s.shape[1] for s in spectrograms], about["inputs"][1]["dtype"])
    shape = [{"batch": 3, "frames": max(lengths)}.get(n, n) for n in about["inputs"][0]["shape"]]
    batch = np.zeros(shape, about["inputs"][0]["dtype"])
    for place, one in zip(batch, spectrograms):
        place[0, :, : one.shape[1]] = one
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [entry["name"] for entry in about["inputs"]], [e["name"] for e in about["outputs"]]
    probabilities, out = session.run(names[1], dict(zip(names[0], (batch, lengths))))
    assert out.tolist() == ((lengths + 1) // 2).tolist()
    assert list(probabilities.shape[2:]) == about["outputs"][0]["shape"][2:]
    traced = torch.jit.load(folder / "model.pt")
    expected, _ = traced(torch.from_numpy(batch), torch.from_numpy(lengths))
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-4)
    heard = texts(probabilities, out, about)
    words = [text.split() for text in heard]
    right = [row["transcript"].split() for row in rows]
    assert heard == texts(expected.numpy(), out, about)
    assert sum(map(len, right)) > 0 and words == right


def test_altered_files_are_refused(made):
    folder, (name, *arguments) = made
    content = (folder / "m.onnx").read_bytes()
    (folder / "m.onnx").write_bytes(content[:-1])
    try:
        assert_one_line_error(run_stage(name, *arguments), "m.onnx", "altered")
    finally:
        (folder / "m.onnx").write_bytes(content)
