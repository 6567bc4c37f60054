"""The stand-ins for atc and ais_bench: what they refuse, so that they stay strict."""

import json
import sys

import fake_acl
import networks
import numpy as np
import pytest
from conftest import FAKES
from helpers import TINY

onnx = pytest.importorskip("onnx", reason="needs envs/onnxruntime.txt")
pytest.importorskip("onnxruntime", reason="needs envs/onnxruntime.txt")
from deepspeech2.model.onnx_graph import export  # noqa: E402

SHAPE = "spectrograms:2,1,161,50;lengths:2"
RIGHT = {
    "framework": "5", "model": "fixed.onnx", "output": "out", "soc_version": "Ascend310P3",
    "input_shape": SHAPE,
}  # fmt: skip
FREE = {"model": "free.onnx", "input_shape": "spectrograms:-1,1,161,50;lengths:-1"}
GEARS = {"model": "gears.onnx", "input_shape": "x:-1,3"}  # a network without lengths
DIMS = {**GEARS, "input_format": "ND", "input_shape": "x:2,-1"}
HEAD = '<ir_version: 7, opset_import: ["" : 11]> '
# Changes of the options (None: left out) that atc must refuse, and a word of why.
REFUSED = [
    *[({name: None}, "E10054") for name in ("framework", "model", "output", "soc_version")],
    ({"framework": "1"}, "E10001"),
    ({"framework": "9"}, "E10001: Value [9]"),
    ({"workspace": "1"}, "E10001"),
    ({"model": "none.onnx"}, "E16006"),
    ({"model": "half.onnx"}, "E16006"),
    ({"model": "opset17.onnx"}, "opset version 17"),
    ({"model": "loop.onnx", "input_shape": "x:2"}, "E19010"),
    ({"model": "computed.onnx"}, "must be constants"),
    ({"model": "matrix.onnx"}, "sequence_lens must be 1-D"),
    ({"soc_version": "310P3"}, "E10001"),
    ({"soc_version": "Ascend1"}, "E10001"),
    ({"input_format": "NHWC"}, "E10001"),
    ({"log": "all"}, "E10001"),
    ({"precision_mode": "fp16"}, "E10001"),
    ({"precision_mode": "force_fp16", "precision_mode_v2": "fp16"}, "exclude each other"),
    ({"output_type": "FP64"}, "E10001"),
    ({"input_shape": None}, "dynamic dimensions are left"),
    ({"input_shape": ""}, "dynamic dimensions are left"),
    ({"input_shape": "lengths:2"}, "lacks an input"),
    ({"input_shape": "spectrograms=2,1,161,50"}, "E10002"),
    ({"input_shape": "spectrograms:2,1,161,50,lengths:2"}, "E10002"),
    ({"input_shape": "spectrograms:[1~2],1,161,50;lengths:2"}, "E10002"),
    ({"input_shape": SHAPE + ";sizes:2"}, "E10016"),
    ({"input_shape": "spectrograms:2,1,161;lengths:2"}, "E10017"),
    ({"input_shape": "spectrograms:3,1,161,50;lengths:3"}, "E10017"),
    ({"input_shape": "spectrograms:2,1,161,-1;lengths:2"}, "need gears"),
    ({**FREE}, "need gears"),
    ({**FREE, "dynamic_batch_size": "1,2"}, "sequence_lens must be 1-D and static"),
    ({**GEARS, "dynamic_batch_size": "1,2", "dynamic_dims": "1,1"}, "exclude one another"),
    ({**GEARS, "dynamic_batch_size": "1"}, "2 to 100 gears"),
    ({**GEARS, "dynamic_batch_size": ",".join("1" * 101)}, "2 to 100 gears"),
    ({**GEARS, "dynamic_batch_size": "1,4096"}, "from 1 to 2048"),
    ({"dynamic_batch_size": "1,2"}, "a first dimension of -1"),
    ({**DIMS, "input_format": "NCHW", "dynamic_dims": "50;60"}, "input_format ND"),
    ({**DIMS, "dynamic_dims": "50,1;60,1"}, "a size for each -1"),
    ({**DIMS, "dynamic_image_size": "50,60"}, "is for images"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ONNX files of a tiny network, right ones and others."""
    place = tmp_path_factory.mktemp("onnx")
    net = networks.make(TINY, "packed_whole")
    fixed, free = (export(net, 11, size)[0] for size in (2, None))
    onnx.save(fixed, place / "fixed.onnx")
    onnx.save(free, place / "free.onnx")
    onnx.save(export(net, 17, 2)[0], place / "opset17.onnx")
    (place / "half.onnx").write_bytes(fixed.SerializeToString()[:9999])
    lstm = next(node for node in fixed.graph.node if node.op_type == "LSTM")
    weights, lengths = lstm.input[1], lstm.input[4]
    place_of = list(fixed.graph.node).index(lstm)
    fixed.graph.node.insert(place_of, onnx.helper.make_node("Neg", [weights], ["computed"]))
    lstm.input[1] = "computed"
    onnx.save(fixed, place / "computed.onnx")
    fixed.graph.node[place_of].CopyFrom(
        onnx.helper.make_node("Unsqueeze", [lengths], ["computed"], axes=[0])
    )
    lstm.input[1], lstm.input[4] = weights, "computed"
    onnx.save(fixed, place / "matrix.onnx")
    relu = "g (float[N, M] x) => (float[N, M] y) { y = Relu (x) }"
    onnx.save(onnx.parser.parse_model(f"{HEAD} {relu}"), place / "gears.onnx")
    text = (
        f"{HEAD} g (float[2] x) => (float[2] y) "
        "{ n = Constant <value = int64 {1}> () c = Constant <value = bool {1}> () "
        "y = Loop (n, c, x) <body = b (int64 i, bool k, float[2] u) => (bool k2, float[2] v) "
        "{ k2 = Identity (k) v = Identity (u) }> }"
    )
    onnx.save(onnx.parser.parse_model(text), place / "loop.onnx")
    return place


@pytest.fixture
def atc(folder, monkeypatch, capsys):
    """A function that calls atc with changed options; returns its status and what it printed."""
    monkeypatch.chdir(folder)

    def run(words=None, **changes):
        options = {name: value for name, value in {**RIGHT, **changes}.items() if value is not None}
        status = fake_acl.atc(words or [f"--{name}={value}" for name, value in options.items()])
        return status, capsys.readouterr().out

    return run


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_atc_refuses(changes, words, atc, folder):
    (folder / "out.om").unlink(missing_ok=True)
    status, text = atc(**changes)
    assert status == 255 and words in text and "ATC run failed" in text
    assert not (folder / "out.om").exists()


def test_atc_takes_what_the_manual_says(atc, folder):
    """One dash or two, `_` or `-`, a value behind a space; gears."""
    status, text = atc()
    assert status == 0 and "ATC run success" in text and (folder / "fusion_result.json").exists()
    assert atc(input_shape="spectrograms:2,1,161,50")[0] == 0  # the other is fixed in the file
    words = ["-framework", "5", "--model=fixed.onnx", "--output", "out", "-soc-version=Ascend310P3"]
    assert atc([*words, "--input-shape", SHAPE])[0] == 0
    assert atc(**GEARS, dynamic_batch_size="1,2")[0] == 0
    assert atc(**DIMS, dynamic_dims="50;60")[0] == 0


@pytest.fixture
def opened(atc, folder):
    """A function that compiles and opens, with changed options."""

    def run(**changes):
        assert atc(**changes)[0] == 0
        return fake_acl.InferSession(0, str(folder / "out.om"))

    return run


X, LENGTHS = np.ones((2, 1, 161, 50), "f4"), np.array([50, 40], "i4")
# Calls that InferSession must refuse, and a word of why.
CALLS = [
    ("s.infer([X])", "1 inputs for 2"),
    ("s.infer([X[:1], LENGTHS])", "spectrograms: 32200 bytes"),
    ("s.infer([X, LENGTHS.astype('i8')])", "lengths: 16 bytes"),
    ("s.infer([X.astype('f8'), LENGTHS])", "bytes for"),
    ("s.infer([LENGTHS, X])", "bytes for"),
    ("s.infer([X.tolist(), LENGTHS])", "invalid"),
    ("s.infer([X, LENGTHS], 'dymbatch')", "is no gear"),
    ("fake_acl.InferSession('0', path)", "device_id"),
    ("fake_acl.InferSession(2, path)", "device_id"),
    ("fake_acl.InferSession(0, Path(path))", "model path"),
    ("fake_acl.InferSession(0, path[:-1])", "model path"),
    ("fake_acl.InferSession(0, half)", "truncated"),
    ("fake_acl.InferSession(0, other)", "no offline model"),
]


@pytest.mark.parametrize("generation", ["old", "new"])
@pytest.mark.parametrize(("call", "words"), CALLS)
def test_infer_session_refuses(call, words, generation, opened, folder, monkeypatch):
    monkeypatch.setenv("FAKE_AIS_BENCH", generation)
    s, path = opened(), folder / "out.om"
    half, other = folder / "half.om", folder / "other.om"
    half.write_bytes(path.read_bytes()[:-9])
    other.write_bytes((folder / "fixed.onnx").read_bytes())
    scope = {"s": s, "X": X, "LENGTHS": LENGTHS, "fake_acl": fake_acl, "Path": type(path)}
    scope |= {"path": str(path), "half": str(half), "other": str(other)}
    with pytest.raises(RuntimeError, match=words):
        eval(call, scope)


def test_infer_session_sees_bytes_only(opened):
    """Another type of as many bytes is taken, and gives other numbers."""
    s = opened()
    right = s.infer([X, LENGTHS], "static")[0]
    wrong = s.infer([X.view("i4"), LENGTHS])[0]  # the same bits
    assert np.array_equal(right, wrong)
    wrong = s.infer([X.astype("i4"), LENGTHS])[0]
    assert not np.array_equal(right, wrong)


def test_the_generations_differ(opened, monkeypatch):
    s = opened()
    s.infer([X, LENGTHS], "no such mode")
    assert isinstance(s.sumary().exec_time_list[0], float)
    assert not hasattr(s, "summary") and not hasattr(s, "free_resource")
    monkeypatch.setenv("FAKE_AIS_BENCH", "new")
    s = opened()
    with pytest.raises(RuntimeError, match="wrong infer_mode"):
        s.infer([X, LENGTHS], "dynbatch")
    s.infer([X, LENGTHS])
    ((start, end),) = s.summary().exec_time_list
    assert start < end and not hasattr(s, "sumary")
    s.free_resource()
    for use in (s.get_inputs, s.summary, lambda: s.infer([X, LENGTHS])):
        with pytest.raises(RuntimeError, match="freed"):
            use()


def test_gears_must_be_set(opened):
    s = opened(**GEARS, dynamic_batch_size="1,2")
    x = np.ones((3, 3), "f4")
    with pytest.raises(RuntimeError, match="needs one to be set"):
        s.infer([x[:2]], "static")
    with pytest.raises(RuntimeError, match="is no gear"):
        s.infer([x], "dymbatch")
    assert s.infer([x[:2]], "dymbatch")[0].shape == (2, 3)


def test_precision_and_output_types(opened):
    """force_fp16 where nothing is said; the graph's own types come out unless another is named."""
    half, single = (
        opened(precision_mode=mode).infer([X, LENGTHS])[0] for mode in (None, "force_fp32")
    )
    assert half.dtype == single.dtype == np.float32 and not np.array_equal(half, single)
    assert np.array_equal(half, half.astype("f2"))
    assert opened(output_type="FP16").infer([X, LENGTHS])[0].dtype == np.float16


def test_another_kind_of_device_is_refused(opened, monkeypatch):
    with pytest.raises(RuntimeError, match="Ascend910B3 is not Ascend310P3"):
        opened(soc_version="Ascend910B3")


@pytest.fixture
def files(folder, tmp_path, opened):
    """Folders as the guide's preprocessing leaves them: three utterances, more than a batch."""
    random = np.random.default_rng(0)
    for number, frames in ((1, 50), (2, 40), (10, 30)):
        for name, values in (
            ("spect", random.standard_normal((1, 161, 50)).astype("f4")),
            ("sizes", np.array([frames], "i4")),
        ):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"data{number}.bin").write_bytes(values.tobytes())
    (tmp_path / "sizes/sizes.txt").write_text("ignored")
    opened()
    return tmp_path


def command(folder, place, *words, inputs="{0}/spect,{0}/sizes"):
    fake_acl.ais_bench(
        ["--model", str(folder / "out.om"), "--input", inputs.format(place), "--output", str(place),
         "--output_dir", "out", *words]
    )  # fmt: skip
    return json.loads((place / "out_summary.json").read_text())


def test_ais_bench_runs_the_guides_folders(folder, files, monkeypatch):
    """Numbers in their order; a last batch filled up with its own first file; 6 decimals."""
    seen, run = [], fake_acl.Model.run
    monkeypatch.setattr(
        fake_acl.Model, "run", lambda self, arrays: seen.append(arrays[1]) or run(self, arrays)
    )
    summary = command(folder, files, "--outfmt", "TXT", "--batchsize", "1")
    lengths = [np.frombuffer(one.tobytes(), "i4").tolist() for one in seen]
    assert lengths == [[0, 0], [50, 40], [30, 30]]  # the first one warms up
    names = {path.name for path in (files / "out").iterdir()}
    assert names == {f"data{n}_{output}.txt" for n in (1, 2, 10) for output in (0, 1)}
    text = (files / "out/data10_0.txt").read_text().splitlines()
    assert len(text) == 25 and len(text[0].split()) == 29 and text[0].endswith(" ")
    assert (files / "out/data10_1.txt").read_text() == "15 \n"
    times = summary["NPU_compute_time"]
    assert times["count"] == 2 and "percentile(99%)" in times
    assert summary["throughput"] == pytest.approx(1000 / times["mean"])  # of --batchsize
    monkeypatch.setenv("FAKE_AIS_BENCH", "new")
    assert "P99" in command(folder, files)["NPU_compute_time"]


def test_ais_bench_refuses(folder, files):
    with pytest.raises(RuntimeError, match="1 folders for 2 inputs"):
        command(folder, files, inputs="{0}/spect")
    with pytest.raises(RuntimeError, match="exclude one another"):
        command(folder, files, "--dymBatch", "2", "--dymDims", "x:1")
    with pytest.raises(RuntimeError, match="output_dirname needs output"):
        fake_acl.ais_bench(["--model", str(folder / "out.om"), "--output_dirname", "x"])
    (files / "spect/data2.bin").write_bytes(b"x" * 3)
    with pytest.raises(RuntimeError, match="arg0 tensorsize: 64400 filesize: 32200 not match"):
        command(folder, files)


def test_the_packages_have_what_the_real_ones_have(monkeypatch):
    monkeypatch.syspath_prepend(FAKES / "with_acl_om")
    for name in ("ais_bench", "ais_bench.infer", "ais_bench.infer.interface", "aclruntime"):
        __import__(name)
        monkeypatch.delitem(sys.modules, name)
