"""Checkpoints: V3 pickles without running them, our safetensors, and everything that is neither."""

import json
import pickle
import resource
import zipfile

import numpy as np
import pytest
import torch
from deepspeech2.cli import UserError
from deepspeech2.model import checkpoint, pickle_reader
from deepspeech2.model.architecture import METADATA_KEY, Architecture
from helpers import (
    LABELS,
    TINY,
    assert_one_line_error,
    run_stage,
    tiny_description,
    tiny_weights,
    v3_content,
    write_safetensors,
)

VARIANTS = [
    TINY,
    Architecture(161, 29, "gru", 5, 3, True),
    Architecture(161, 29, "rnn", 6, 1, True),
    Architecture(161, 29, "lstm", 7, 2, False, 4),
]


@pytest.mark.parametrize("architecture", VARIANTS)
def test_v3_and_safetensors_hold_the_same(tmp_path, architecture):
    torch.save(v3_content(architecture), tmp_path / "a.ckpt")
    write_safetensors(tmp_path / "a.safetensors", architecture)
    for name in ("a.ckpt", "a.safetensors"):
        weights, description = checkpoint.read(str(tmp_path / name))
        assert description == tiny_description(architecture)
        for key, expected in tiny_weights(architecture).items():
            np.testing.assert_array_equal(weights[key], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_widened(tmp_path, dtype):
    content = v3_content()
    state = {k: v.to(dtype) for k, v in content["state_dict"].items()}
    torch.save({**content, "state_dict": state}, tmp_path / "a.ckpt")
    weights, _ = checkpoint.read(str(tmp_path / "a.ckpt"))
    for name, expected in state.items():
        np.testing.assert_array_equal(weights[name].astype("f8"), expected.double().numpy())


def test_views_of_a_storage_are_read_as_torch_reads_them(tmp_path):
    content = v3_content()
    weight = content["state_dict"]["fc.0.module.1.weight"]
    content["state_dict"]["fc.0.module.1.weight"] = weight.t().contiguous().t()  # strided
    bias = content["state_dict"]["conv.seq_module.0.bias"]
    content["state_dict"]["conv.seq_module.0.bias"] = torch.cat([bias, bias])[32:]  # offset
    torch.save(content, tmp_path / "a.ckpt")
    weights, _ = checkpoint.read(str(tmp_path / "a.ckpt"))
    np.testing.assert_array_equal(weights["fc.0.module.1.weight"], weight.numpy())
    np.testing.assert_array_equal(weights["conv.seq_module.0.bias"], bias.numpy())


def test_half_precision_file_is_widened_by_the_stage(tmp_path):
    source = write_safetensors(tmp_path / "a.safetensors")
    out = ["--weights", tmp_path / "h.safetensors", "--model", tmp_path / "h.json"]
    assert run_stage("model.convert", "--checkpoint", source, *out, "--half").returncode == 0
    weights, _ = checkpoint.read(str(tmp_path / "h.safetensors"))
    assert {w.dtype for w in weights.values()} == {np.dtype("f2")}
    out = ["--weights", tmp_path / "w.safetensors", "--model", tmp_path / "w.json"]
    result = run_stage("model.convert", "--checkpoint", tmp_path / "h.safetensors", *out)
    assert result.returncode == 0, result.stderr
    wide, _ = checkpoint.read(str(tmp_path / "w.safetensors"))
    for name, values in weights.items():
        assert wide[name].dtype == np.float32
        np.testing.assert_array_equal(wide[name], values.astype("f4"))


class Payload:
    """Unpickled by `pickle`, it would run code that leaves a file behind."""

    def __init__(self, path, function="exec"):
        self.path, self.function = str(path), function

    def __reduce__(self):
        if self.function == "system":
            import os

            return os.system, (f"touch '{self.path}'",)
        return exec, (f"open({self.path!r}, 'w').close()",)


def _place(content, payload, where):
    """`content` with the payload somewhere in it."""
    if where == "top":
        return payload
    if where == "entry":
        return {"callbacks": payload, **content}
    if where == "key":
        return {**content, "callbacks": {("k", payload): 1}}
    if where == "list":
        return {**content, "optimizer_states": [[[payload]]]}
    if where == "labels":
        content["hyper_parameters"]["labels"] = [payload] * 29
    elif where == "label":
        content["hyper_parameters"]["labels"][5] = payload
    elif where == "setting":
        content["hyper_parameters"]["model_cfg"]["hidden_size"] = payload
    elif where == "rnn_type":
        content["hyper_parameters"]["model_cfg"]["rnn_type"] = payload
    elif where == "tensor":
        content["state_dict"]["conv.seq_module.0.bias"] = payload
    elif where == "hooks":
        content["state_dict"]["conv.seq_module.0.bias"] = payload_tensor(payload)
    return content


class payload_tensor:
    """A tensor whose rebuilding gets the payload in place of its backward hooks."""

    def __init__(self, payload):
        self.payload = payload

    def __reduce__(self):
        tensor = torch.zeros(32)
        function, args = tensor.__reduce_ex__(2)[:2]
        return function, (*args[:5], self.payload)


PLACES = "top entry key list labels label setting rnn_type tensor hooks".split()


@pytest.mark.parametrize("function", ["exec", "system"])
@pytest.mark.parametrize("where", PLACES)
def test_no_payload_runs_wherever_it_sits(tmp_path, where, function):
    proof = tmp_path / "proof"
    path = tmp_path / "a.ckpt"
    torch.save(_place(v3_content(), Payload(proof, function), where), path)
    with pytest.raises(Exception):  # noqa: B017  the reader of torch is not the one under test
        torch.load(path, weights_only=False)
        raise RuntimeError
    assert proof.exists(), "the payload is no danger, so this test shows nothing"
    proof.unlink()
    try:
        checkpoint.read(str(path))
    except UserError as error:
        assert str(path) in str(error)
    assert not proof.exists()


def _opcodes(proof):
    """Hand-written pickles that call through every opcode that can call."""
    code = f"open({str(proof)!r}, 'w').close()"
    quoted = pickle.dumps(code, 0)[:-1].rsplit(b"p", 1)[0]
    binary = b"X" + len(code).to_bytes(4, "little") + code.encode()
    return {
        "REDUCE": b"cbuiltins\nexec\n(" + quoted + b"tR.",
        "INST": b"(" + quoted + b"ibuiltins\nexec\n.",
        "OBJ": b"(cbuiltins\nexec\n" + quoted + b"o.",
        "NEWOBJ": b"\x80\x02cbuiltins\nexec\n" + binary + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cbuiltins\nexec\n" + binary + b"\x85}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93" + binary + b"\x85R.",
        "BUILD": b"\x80\x02cbuiltins\nobject\n)\x81}X\x0c\x00\x00\x00__setstate__"
        b"cbuiltins\nexec\nsb" + binary + b"b.",
        "PERSID": b"\x80\x02cbuiltins\nexec\n" + binary + b"\x85RQ.",
        "dotted": b"\x80\x04\x8c\x08builtins\x8c\x0dexec.__call__\x93" + binary + b"\x85R.",
        "EXT1": b"\x80\x02\x82\x01.",
        "alter": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x09\x00\x00\x00_function"
        b"cbuiltins\nexec\ns\x86b.",
        "alter class": b"\x80\x02ccollections\nOrderedDict\nN}X\x08\x00\x00\x00__init__"
        b"cbuiltins\nexec\ns\x86b.",
    }


@pytest.mark.parametrize("opcode", _opcodes("x"))
def test_no_opcode_calls_anything(tmp_path, opcode):
    proof, path = tmp_path / "proof", tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", _opcodes(proof)[opcode])
    with pytest.raises(UserError, match=str(path)):
        checkpoint.read(str(path))
    assert not proof.exists()
    # The tables that every later checkpoint is read with are as they were.
    torch.save(v3_content(), tmp_path / "good.ckpt")
    checkpoint.read(str(tmp_path / "good.ckpt"))


def test_importing_is_no_part_of_reading(tmp_path):
    import sys

    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"cantigravity\nthing\n.")
    with pytest.raises(UserError):
        checkpoint.read(str(path))
    assert "antigravity" not in sys.modules


def _settings(**changes):
    def change(content):
        for key, value in changes.items():
            content["hyper_parameters"][key] = value
        return content

    return change


def _model(**changes):
    def change(content):
        content["hyper_parameters"]["model_cfg"].update(changes)
        return content

    return change


def _tensor(name, value):
    def change(content):
        if value is None:
            del content["state_dict"][name]
        else:
            content["state_dict"][name] = value
        return content

    return change


BAD = [
    (lambda content: [1, 2], "no dict"),
    (lambda content: {}, "'state_dict'"),
    (lambda content: {"state_dict": {}}, "tensors are called nothing at all"),
    (_settings(labels=None), "set models.<name>.labels"),
    (_settings(labels=list("ABC")), "3 labels imply"),
    (_settings(labels=["AB"] * 29), "single characters"),
    (_settings(labels=["A"] * 29), "only once"),
    (_settings(spect_cfg={}), "set models.<name>.spectrogram: {sample_rate, window_size, "),
    (_settings(spect_cfg={"sample_rate": 8000, "window_size": 0.02, "window_stride": 0.01,
                          "window": "hamming"}), "sample_rate must be"),
    (_settings(spect_cfg={"sample_rate": 16000, "window_size": 0.02, "window_stride": 0.0,
                          "window": "hamming"}), "window_stride must be"),
    (_settings(spect_cfg={"sample_rate": 16000, "window_size": 0.02, "window_stride": 0.01,
                          "window": "kaiser"}), "kaiser"),
    (_settings(spect_cfg={"sample_rate": 16000, "window_size": float("inf"),
                          "window_stride": 0.01, "window": "hann"}), "a.ckpt"),
    (_model(rnn_type="transformer"), "'transformer'"),
    (_model(hidden_size="many"), "bad one"),
    (_model(hidden_size=9), "shape"),
    (_model(hidden_layers=10**9), "hidden_layers must be from 1 to 64"),
    (_model(hidden_layers=3), "missing"),
    (_model(hidden_layers=1), "belongs to no"),
    (_tensor("rnns.0.rnn.bias_hh_l0", None), "rnns.0.rnn.bias_hh_l0 is missing"),
    (_tensor("rnns.0.rnn.bias_hh_l0", torch.zeros(5)), "rnns.0.rnn.bias_hh_l0 has the shape (5,)"),
    (_tensor("extra.weight", torch.zeros(5)), "extra.weight belongs to no"),
    (_tensor("extra.weight", "text"), "not a tensor"),
    (_model(hidden_size=8.9), "hidden_size must be of type int"),
    (_model(hidden_size=True), "hidden_size must be of type int"),
    (_model(lookahead_context=0), "lookahead_context must be from 1"),
    (_settings(labels=["\ud800", *LABELS[1:]]), "printable"),
    (_tensor("rnns.0.rnn.bias_hh_l0", torch.zeros(1).expand(32)), "beyond its storage"),
    (_tensor("extra.weight", torch.zeros(1).expand(1 << 40)), "belongs to no"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_checkpoints_are_named(tmp_path, change, words):
    path = tmp_path / "a.ckpt"
    torch.save(change(v3_content()), path)
    with pytest.raises(UserError) as error:
        checkpoint.read(str(path))
    assert words in str(error.value) and "a.ckpt" in str(error.value)


def test_what_is_no_checkpoint(tmp_path):
    torch.save(v3_content(), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    nested = b"\x80\x02" + b"(" * 2000 + b"l" * 2000 + b"."
    bombs = tmp_path / "z"
    with zipfile.ZipFile(bombs, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b" " * (pickle_reader.MAX_PICKLE_BYTES + 1))
    for data in (b"", b"hello", b"PK", whole[:5000], whole[: len(whole) // 2], nested,
                 json.dumps({}).encode(), bombs.read_bytes()):  # fmt: skip
        path = tmp_path / "bad.ckpt"
        path.write_bytes(data)
        with pytest.raises(UserError, match="bad.ckpt"):
            checkpoint.read(str(path))
    with pytest.raises(UserError, match="no such file"):
        checkpoint.read(str(tmp_path / "absent.ckpt"))


def test_bad_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    whole = write_safetensors(path).read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="cut short"):
        checkpoint.read(str(path))
    from safetensors.numpy import save_file

    save_file(tiny_weights(), path, {"other": "x"})
    with pytest.raises(UserError, match="set models.<name>.labels"):
        checkpoint.read(str(path))
    save_file(tiny_weights(), path, {METADATA_KEY: "{}"})
    with pytest.raises(UserError, match="no DeepSpeech2 description"):
        checkpoint.read(str(path))
    write_safetensors(path, description={**tiny_description(), "labels": LABELS[:-1]})
    with pytest.raises(UserError, match="28 labels imply"):
        checkpoint.read(str(path))
    description = tiny_description()
    for value in (1e400, -1, "0.01", []):
        description["spectrogram"]["window_stride"] = value
        write_safetensors(path, description=description)
        with pytest.raises(UserError, match="window_stride must be"):
            checkpoint.read(str(path))


@pytest.mark.parametrize(("value", "half"), [(np.nan, False), (1e300, False), (1e5, True)])
def test_weights_that_are_not_finite_once_cast(tmp_path, value, half):
    weights = {**tiny_weights(), "fc.0.module.0.bias": np.full(8, value, "f8")}
    source = write_safetensors(tmp_path / "a.safetensors", weights=weights)
    out = ["--weights", tmp_path / "o.safetensors", "--model", tmp_path / "o.json"]
    result = run_stage("model.convert", "--checkpoint", source, *out, *["--half"] * half)
    assert_one_line_error(result, "fc.0.module.0.bias holds NaN or infinity")
    assert not (tmp_path / "o.safetensors").exists()


def nested(opcode, depth):
    """A pickle of a dictionary whose key is a deeply nested tuple."""
    return b"\x80\x02}" + b"N" + opcode * depth + b"Ns."


BOMBS = {
    "deep key": nested(b"\x85", 300_000),
    "doubling key": nested(b"2\x86", 40),
    "deep key in a set": b"\x80\x04\x8f(N" + b"\x85" * 300_000 + b"\x90.",
    "huge memo index": b"\x80\x02Nr\x00\x00\x00\x10.",
    "doubling settings": b"\x80\x02}X\x0a\x00\x00\x00state_dict}s"
    b"X\x10\x00\x00\x00hyper_parameters}X\x06\x00\x00\x00labels" + b"]" + b"".join(
        b"q" + bytes([i]) + b"0](" + (b"h" + bytes([i])) * 10 + b"e" for i in range(20)
    ) + b"ss.",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_end_soon_and_in_one_line(tmp_path, bomb):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", BOMBS[bomb])

    def limits():
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))

    out = ["--weights", tmp_path / "o.safetensors", "--model", tmp_path / "o.json"]
    result = run_stage("model.convert", "--checkpoint", path, *out, preexec_fn=limits)
    assert_one_line_error(result, "a.ckpt" if bomb != "doubling settings" else "settings")


def test_truncated_tensor_record(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(v3_content(), path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "b.ckpt", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[:-4] if name.endswith("/data/0") else data)
    with pytest.raises(UserError, match="damaged record .* bytes, not"):
        checkpoint.read(str(tmp_path / "b.ckpt"))


def test_stage_refuses_a_wrong_hash_and_writes_nothing(tmp_path):
    source = write_safetensors(tmp_path / "a.safetensors")
    out = tmp_path / "out"
    result = run_stage(
        "model.convert", "--checkpoint", source, "--sha256", "0" * 64,
        "--weights", out / "m.safetensors", "--model", out / "m.json",
    )  # fmt: skip
    assert_one_line_error(result, "SHA-256", "a.safetensors")
    assert not out.exists()
