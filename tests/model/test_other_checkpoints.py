"""Checkpoints of the same network in every common wrapping give the same weights, bit for bit."""

import argparse
import collections
import enum
import gzip
import io
import itertools
import json
import pickle
import re
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from conftest import ROOT
from deepspeech2.cli import UserError
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.model import checkpoint, convert
from deepspeech2.model.architecture import METADATA_KEY, UNPADDED, Architecture, rnn_input
from helpers import (
    LABELS,
    TINY,
    assert_one_line_error,
    run_stage,
    tiny_description,
    tiny_weights,
    v3_content,
)
from safetensors.torch import save_file

UNIDIRECTIONAL = Architecture(161, 29, "gru", 6, 3, False, 5)
RNN = Architecture(161, 29, "rnn", 4, 1, True)
SPECTROGRAM = Spectrogram()._asdict()
AUDIO = {**SPECTROGRAM, "noise_dir": None, "noise_prob": 0.4, "noise_levels": (0.0, 0.5)}


class Window(enum.Enum):
    hamming = "hamming"


class Settings(dict):
    """Like Lightning's AttributeDict."""


class SpectConfig:
    """Like a data class of deepspeech_pytorch."""

    def __init__(self):
        self.__dict__.update(SPECTROGRAM, window=Window.hamming)


def numbers(architecture):
    """Weights that every floating-point type holds exactly."""
    return {
        name: torch.from_numpy(np.round(values * 64).clip(-127, 127).astype("f4") / 64)
        for name, values in tiny_weights(architecture).items()
    }


def state_dict(architecture, prefix="", dtype=torch.float32, extras=()):
    found = collections.OrderedDict(
        (prefix + name, values.to(dtype)) for name, values in numbers(architecture).items()
    )
    found[f"{prefix}conv.seq_module.1.num_batches_tracked"] = torch.tensor(7)
    found.update({name: torch.ones(2) for name in extras})
    found._metadata = {"": {"version": 1}}  # as torch's have: a BUILD of the OrderedDict
    return found


def package(architecture, state, **changes):
    """What deepspeech.pytorch V2 serializes."""
    return {
        "hidden_size": architecture.hidden_size,
        "hidden_layers": architecture.hidden_layers,
        "rnn_type": architecture.rnn_type,
        "audio_conf": AUDIO,
        "labels": "".join(LABELS),
        "state_dict": state,
        "bidirectional": architecture.bidirectional,
        "optim_dict": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": []},
        "epoch": 3,
        "loss_results": torch.ones(5),
        **changes,
    }


def v1(architecture, state):
    """A V1 package: biasless layers, convolutions without mask, lookahead as a matrix."""
    old = {}
    for name, values in state.items():
        if name.partition("lookahead.0.")[1]:
            name, values = name.replace(".conv", ""), values[:, 0]
        if ".rnn.bias_" not in name:
            old[name.replace("conv.seq_module.", "conv.")] = values
    found = package(architecture, old, version="0.0.1", labels=list(LABELS))
    del found["bidirectional"]
    return found


def v3(architecture, state, **settings):
    content = v3_content(architecture)
    content["hyper_parameters"].update(settings)
    return {**content, "state_dict": state, "pytorch-lightning_version": "1.9.0", "callbacks": {}}


def lightning(kind):
    def content(architecture, state):
        found = v3(architecture, state, spect_cfg=SpectConfig())
        return {**found, "hyper_parameters": kind(found["hyper_parameters"])}

    return content


CONTAINERS = {
    "V3": v3,
    "V3 with a name space": lightning(lambda settings: argparse.Namespace(**settings)),
    "V3 with a dict of its own": lightning(Settings),
    "V3 with V2's settings": lambda a, s: {**package(a, s, rnn_type="none"), **v3(a, s)},
    "V2": package,
    "V2 with a class": lambda a, s: package(a, s, rnn_type=getattr(torch.nn, a.rnn_type.upper())),
    "last V2": lambda a, s: package(a, s, audio_conf={**AUDIO, "window": Window.hamming}),
    "V2 that says little": lambda a, s: {
        k: v for k, v in package(a, s).items() if k not in ("rnn_type", "hidden_size")
    },
    "state dict": lambda a, s: s,
    "state dict with an epoch": lambda a, s: {**s, "epoch": 3},
    "of a loop": lambda a, s: {"epoch": 3, "model_state_dict": s, "optimizer_state_dict": {}},
    "named model": lambda a, s: {"model": dict(s), "args": argparse.Namespace(lr=1)},
    "of parameters": lambda a, s: {
        "state_dict": {k: torch.nn.Parameter(v) if v.is_floating_point() else v
                       for k, v in s.items()}
    },
}  # fmt: skip
PREFIXES = "module. model. _orig_mod. module._orig_mod. model.module. _orig_mod.module.".split()
EXTRAS = (
    ("criterion.weight",),
    ("wer.errors", "cer.total", "val_loss.value"),
    ("n_averaged",),
    ("train_metrics.accuracy.total", "ctc_loss.weight", "WordErrorRate.wer"),
    ("loss_fn.weight", "MeanMetric.value", "model.criteria.0.weight", "best_wer", "global_step"),
)
FORMATS = ("zip", "old")


def save(content, path, kind):
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def converted(path, tmp_path, given=True):
    """Arrays and description that the stage makes; what the checkpoint lacks is given."""
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(LABELS))
    out = tmp_path / "out.safetensors", tmp_path / "out.json"
    settings = [labels, SPECTROGRAM] if given else [None, None]
    convert.main(path, None, *settings, *out)
    weights, _ = checkpoint.read(out[0])
    return weights, json.loads(out[1].read_text())


def assert_the_same(weights, architecture):
    expected = {name: values.numpy() for name, values in numbers(architecture).items()}
    assert weights.keys() == expected.keys()
    for name, values in expected.items():
        assert weights[name].dtype == np.float32 and weights[name].shape == values.shape
        assert weights[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("architecture", [TINY, UNIDIRECTIONAL, RNN], ids=lambda a: a.rnn_type)
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container(tmp_path, container, kind, architecture):
    content = CONTAINERS[container](architecture, state_dict(architecture))
    path = save(content, tmp_path / "a.pth", kind)
    complete = container.startswith(("V2", "V3", "last V2"))
    if container.startswith("V2"):
        weights, description = converted(path, tmp_path, given=False)
        assert description["spectrogram"]["window"] == "hamming_symmetric"
    else:
        weights, description = converted(path, tmp_path, given=not complete)
        assert description["spectrogram"] == SPECTROGRAM
    assert_the_same(weights, architecture)
    assert description["labels"] == LABELS
    assert description["architecture"] == architecture._asdict()
    read_from_shapes = "the architecture is read from the tensors' shapes"
    assert (read_from_shapes in description.get("notes", [])) != complete


VARIANTS = [
    *((c, p, torch.float32, ()) for c, p in itertools.product(("V3", "state dict"), PREFIXES)),
    *((c, "", d, ()) for c in ("V2", "V3") for d in (torch.float16, torch.bfloat16, torch.float64)),
    *((c, "", torch.float32, e) for c in ("V3", "state dict") for e in EXTRAS),
    ("V3", "model.", torch.bfloat16, ("criterion.weight",)),
    ("V2", "module.", torch.float64, ("module.wer.total", "loss.weight")),
    ("of a loop", "module._orig_mod.", torch.float16, ("n_averaged",)),
]


@pytest.mark.parametrize("kind", [*FORMATS, "safetensors"])
@pytest.mark.parametrize(("container", "prefix", "dtype", "extras"), VARIANTS)
def test_prefixes_types_and_extras(tmp_path, container, prefix, dtype, extras, kind):
    state = state_dict(TINY, prefix, dtype, extras)
    if kind == "safetensors":
        path = tmp_path / "a.safetensors"
        save_file(dict(state), path, {"format": "pt"})
    else:
        path = save(CONTAINERS[container](TINY, state), tmp_path / "a.ckpt", kind)
    given = kind == "safetensors" or not container.startswith("V")
    weights, description = converted(path, tmp_path, given)
    assert_the_same(weights, TINY)
    notes = " ".join(description.get("notes", []))
    for word in (f"{prefix}*" if prefix else "", *extras):
        assert word in notes
    name = str(dtype).partition(".")[2]
    assert (f"{name} is converted" in notes) == (dtype != torch.float32)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("architecture", [TINY, UNIDIRECTIONAL], ids=lambda a: a.rnn_type)
def test_v1s_names(tmp_path, architecture, kind):
    """Where its network is the same as V3's; layers without biases are those with zeros."""
    path = save(v1(architecture, state_dict(architecture)), tmp_path / "a.pth", kind)
    weights, description = converted(path, tmp_path, given=False)
    for name, values in numbers(architecture).items():
        expected = np.zeros(values.shape, "f4") if ".rnn.bias_" in name else values.numpy()
        np.testing.assert_array_equal(weights[name], expected)
    assert "no biases" in " ".join(description["notes"])


def test_the_weights_are_the_same_file(tmp_path):
    """Notes are in model.json only."""
    contents = set()
    for prefix, extras in (("", ()), ("module.", ("wer.total",))):
        path = save(v3(TINY, state_dict(TINY, prefix, extras=extras)), tmp_path / "a.ckpt", "zip")
        _, description = converted(path, tmp_path, given=False)
        contents.add((tmp_path / "out.safetensors").read_bytes())
        assert ("notes" in description) == bool(prefix)
    assert len(contents) == 1


VIEWS = {
    "one storage": lambda w: _in_one_storage(w),
    "transposed": lambda w: {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in w.items()},
    "with an offset": lambda w: {k: torch.cat([v, v])[len(v) :] for k, v in w.items()},
    "every second": lambda w: {k: v.repeat_interleave(2, 0)[::2] for k, v in w.items()},
    "permuted": lambda w: {k: v.movedim(0, -1).contiguous().movedim(-1, 0) for k, v in w.items()},
    "with gradients": lambda w: {k: v.clone().requires_grad_() for k, v in w.items()},
}


def _in_one_storage(weights):
    """As cuDNN has those of a layer."""
    flat, found, start = torch.cat([v.flatten() for v in weights.values()]), {}, 0
    for name, values in weights.items():
        found[name] = flat[start : start + values.numel()].view(values.shape)
        start += values.numel()
    return found


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("view", VIEWS)
def test_views(tmp_path, view, kind):
    path = save(v3(TINY, VIEWS[view](numbers(TINY))), tmp_path / "a.ckpt", kind)
    assert_the_same(converted(path, tmp_path, given=False)[0], TINY)


def _pickled(content, place, storage_class, python_2=False):
    """A checkpoint in torch's old format with hand-made persistent ids: no GPU is needed here."""
    blocks = []

    class Global:
        def __init__(self, module, name):
            self.module, self.name = module, name

    class Rebuilt:
        def __init__(self, tensor):
            self.tensor = tensor

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if isinstance(value, tuple) and value[:1] == ("block",):
                return ("storage", Global(*storage_class), value[1], place, value[2], None)
            return None

        def save(self, value, save_persistent_id=True):
            if isinstance(value, Global):
                return self.write(f"c{value.module}\n{value.name}\n".encode())
            if isinstance(value, Rebuilt):
                key, tensor = str(len(blocks) + 94000), value.tensor
                blocks.append((key, tensor))
                self.save(Global("torch._utils", "_rebuild_tensor"))
                self.save((("block", key, tensor.numel()), 0, tuple(tensor.shape), tensor.stride()))
                return self.write(pickle.REDUCE)
            if python_2 and type(value) is dict:
                self.save(Global("collections", "OrderedDict"))
                self.save(([[k, v] for k, v in value.items()],))
                return self.write(pickle.REDUCE)
            return super().save(value, save_persistent_id)

    class File:
        data = b""

        def write(self, data):
            self.data += data

    state = {name: Rebuilt(values) for name, values in content.pop("state_dict").items()}
    file = File()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        file.write(pickle.dumps(value, 2))
    Pickler(file, 2).dump({**content, "state_dict": state})
    file.write(pickle.dumps([key for key, _ in blocks], 2))
    for _, tensor in blocks:
        file.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
    return file.data


@pytest.mark.parametrize("python_2", [False, True])
@pytest.mark.parametrize("storage", [("torch", "FloatStorage"), ("torch.cuda", "FloatStorage")])
@pytest.mark.parametrize("place", ["cpu", "cuda:0", "cuda:7", "npu:0", "mps"])
def test_what_gpus_and_old_torch_wrote(tmp_path, place, storage, python_2):
    content = package(TINY, numbers(TINY), optim_dict={}, loss_results=[1.0])
    path = tmp_path / "a.pth"
    path.write_bytes(_pickled(content, place, storage, python_2))
    assert_the_same(converted(path, tmp_path, given=False)[0], TINY)


CHECKPOINTS = sorted((ROOT.parent / "shared" / "checkpoints").glob("tiny*.ckpt"))


@pytest.mark.skipif(not CHECKPOINTS, reason="needs the shared checkpoints")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_lightnings_own_in_other_wrappings(tmp_path, path, kind):
    plain, description = checkpoint.read(path)
    state = {f"module.{name}": torch.tensor(values) for name, values in plain.items()}
    save(package(Architecture(**description["architecture"]), state), tmp_path / "a.pth", kind)
    weights, _ = converted(tmp_path / "a.pth", tmp_path, given=False)
    for name, values in plain.items():
        assert weights[name].tobytes() == values.tobytes()


def _renamed(change):
    return lambda: {change(name): values for name, values in numbers(TINY).items()}


def _with(**changes):
    return lambda: package(TINY, numbers(TINY), **changes)


def _unpadded():
    state = numbers(TINY)
    for end in ("", "_reverse"):
        state[f"rnns.0.rnn.weight_ih_l0{end}"] = torch.ones(32, rnn_input(161, UNPADDED))
    return v1(TINY, state)


def _changed(**tensors):
    return lambda: {**numbers(TINY), **{k.replace("__", "."): v for k, v in tensors.items()}}


REFUSED = [
    (_renamed(lambda name: f"encoder.{name}"), ["tensors are called encoder.*", "module."]),
    (_renamed(lambda name: name.replace("rnns.", "lstm.")), ["tensors are called conv.*, fc.*"]),
    (lambda: {f"{p}.{k}": v for p in ("model", "module") for k, v in numbers(TINY).items()},
     ["model.*, module.*"]),
    (lambda: {"net": numbers(TINY), "ema": numbers(TINY)}, ["tensors in net, ema"]),
    (_renamed(lambda n: n if n.startswith("fc") else f"module.{n}"),
     ["fc.0.module.0.weight belongs to no"]),
    (lambda: {"net": dict(_renamed(lambda name: f"encoder.{name}x")())}, ["called encoder.*"]),
    (lambda: [1], ["no dict in it"]),
    (lambda: torch.nn.Linear(2, 2), ["Linear", "state_dict()"]),
    (lambda: {"epoch": 3}, ["no 'state_dict'"]),
    (lambda: package(TINY, {}), ["called nothing at all"]),
    (_unpadded, ["weight_ih_l0 has the shape (32, 672)", "without padding, as in V1"]),
    (_changed(rnns__0__batch_norm__module__weight=torch.ones(1312)), ["rnns.0.batch_norm"]),
    (_changed(conv__seq_module__6__weight=torch.ones(32)), ["conv.seq_module.6.weight belongs"]),
    (_changed(attention__weight=torch.ones(3)), ["attention.weight belongs to no"]),
    (_changed(rnns__0__rnn__weight_hh_l0=torch.ones(3, 5)), ["shapes are no DeepSpeech2"]),
    (_changed(rnns__0__rnn__weight_hh_l0=torch.ones(3)), ["shapes are no DeepSpeech2"]),
    (_changed(fc__0__module__0__bias=torch.ones(8, dtype=torch.int64)), ["int64"]),
    (_changed(fc__0__module__0__bias=torch.ones(8, dtype=torch.complex64)), ["a.pth"]),
    (_changed(fc__0__module__0__bias=torch.ones(8).to_sparse()), ["fc.0.module.0.bias is missing"]),
    (_changed(fc__0__module__0__bias=torch.full((8,), 1e300, dtype=torch.float64)), ["infinity"]),
    (lambda: {**numbers(TINY), "conv.0.bias": torch.ones(32)}, ["conv.0.bias belongs to no"]),
    (_with(audio_conf={**AUDIO, "sample_rate": 8000}), ["sample_rate must be 16000"]),
    (_with(audio_conf={**AUDIO, "window": "kaiser"}), ["kaiser", "hamming, hann, blackman"]),
    (_with(audio_conf={**AUDIO, "window_size": 0.032}), ["weight_ih_l0 has the shape"]),
    (_with(labels="_ABC"), ["4 labels imply"]),
    (_with(hidden_size=9), ["has the shape"]),
    (_with(rnn_type="gru"), ["has the shape"]),
]  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_others_are_refused_by_name(tmp_path, case, kind):
    make, words = REFUSED[case]
    content = make()
    with_settings = isinstance(content, dict) and "audio_conf" in content
    path = save(content, tmp_path / "a.pth", kind)
    with pytest.raises(UserError) as error:
        converted(path, tmp_path, given=not with_settings)
    for word in ("a.pth", *words):
        assert word in str(error.value)


ASKED = [
    ({}, None, {}, "models.<name>.labels"),
    ({}, LABELS, {}, "spectrogram: {sample_rate, window_size, window_stride, window}"),
    ({}, LABELS, {"window": "hann", "sample_rate": 16000}, "spectrogram: {window_size, window_st"),
    ({"audio_conf": {**AUDIO, "window": None}}, None, {}, "models.<name>.spectrogram: {window}"),
    ({"labels": None}, None, {}, "set models.<name>.labels"),
    ({}, LABELS[:-1], SPECTROGRAM, "28 labels imply"),
    ({}, LABELS, {**SPECTROGRAM, "sample_rate": 8000}, "sample_rate must be 16000"),
    ({}, LABELS, {**SPECTROGRAM, "window_size": 0.032}, "weight_ih_l0 has the shape"),
    ({"epoch": 1}, LABELS[::-1], {}, "remove models.<name>.labels"),
    ({"epoch": 1}, None, {"window": "hamming"}, "its own window is 'hamming_symmetric'; remove"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "labels", "spectrogram", "words"), ASKED)
def test_what_the_checkpoint_does_not_say_is_asked_for(
    tmp_path, changes, labels, spectrogram, words
):
    """Never more than what it does not say, and never another than it says."""
    content = package(TINY, numbers(TINY), **changes) if changes else numbers(TINY)
    path = save(content, tmp_path / "a.pth", "zip")
    with pytest.raises(UserError) as error:
        checkpoint.read(path, labels, spectrogram)
    assert words in str(error.value) and "a.pth" in str(error.value)


def test_what_is_missing_is_set(tmp_path):
    content = package(TINY, numbers(TINY), audio_conf={**AUDIO, "window": None})
    path = save(content, tmp_path / "a.pth", "zip")
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    out = ["--weights", tmp_path / "o.safetensors", "--model", tmp_path / "o.json"]
    assert_one_line_error(
        run_stage("model.convert", "--checkpoint", path, *out), "models.<name>.spectrogram"
    )
    settings = ["--labels", tmp_path / "labels.json", "--spectrogram", '{"window": "hann"}']
    result = run_stage("model.convert", "--checkpoint", path, *settings, *out)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["spectrogram"] == {**SPECTROGRAM, "window": "hann"}


def _hostile(pickled):
    def make(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", pickled)

    return make


def _often(function, arguments, call):
    return _hostile(
        b"\x80\x02" + function + b"q\0" + arguments + b"q\1" + (b"h\0h\1" + call + b"0") * 300_000
    )


def _saved(content):
    return lambda path: torch.save(content, path)


def _old(content):
    return lambda path: path.write_bytes(content)


OLD_START = b"".join(
    pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)
HOSTILE = {
    "bytearray of 8 GiB": _hostile(b"\x80\x05\x96" + (8 << 30).to_bytes(8, "little") + b"x."),
    "bytes of 8 GiB": _hostile(b"\x80\x05\x8e" + (8 << 30).to_bytes(8, "little") + b"x."),
    "many classes": _hostile(b"".join(b"ca\n%d\n" % n for n in range(400_000)) + b"."),
    "one class, often": _hostile(b"\x80\x02" + b"c\n\n" * 1_390_000 + b"."),
    "many objects": _hostile(b"\x80\x02ca\nb\nq\x00" + b"h\x00)\x81" * 1_000_000 + b"."),
    "its own items": _hostile(b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\0\0\0itemsca\nb\nsb."),
    "arguments used often": _often(b"ca\nb\n", b"(" + b"N" * 1_000_000 + b"t", b"R"),
    "arguments used often by __new__": _often(b"ca\nb\n", b"(" + b"N" * 1_000_000 + b"t", b"\x81"),
    "text as arguments": _often(b"ca\nb\n", b"X\x40\x42\x0f\0" + b"N" * 1_000_000, b"R"),
    "pairs used often": _often(
        b"ccollections\nOrderedDict\n", b"(NN\x86q\x02" + b"h\x02" * 400_000 + b"l\x85", b"R"
    ),
    "shape used often": _often(
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\x00("
        + b"K\x01" * 400_000
        + b"tq\x02h\x02t",
        b"R",
    ),
    "long texts used often": _saved(
        package(TINY, numbers(TINY), labels=["e\u0301" * 300_000] * 90_000)
    ),
    "a long text as settings": _saved(
        package(TINY, numbers(TINY), rnn_type=["x" * 10**6] * 90_000)
    ),
    "a long name with loss": _saved({**numbers(TINY), "loss" * 200_000 + "-": torch.ones(1)}),
    "a long name with wer": _saved({**numbers(TINY), "a_wer_" * 150_000 + "-": torch.ones(1)}),
    "a long number as a key": _saved({**package(TINY, numbers(TINY)), 10**5000: 1}),
    "a long number in settings": _saved(package(TINY, numbers(TINY), labels=10**5000)),
    "a long number among tensors": _saved(v3(TINY, {**numbers(TINY), 10**5000: 1})),
    "cut at once": _old(b"\x80"),
    "a pickle of something else": _old(pickle.dumps({"state_dict": {}})),
    "big-endian": _old(OLD_START.replace(b"\x88", b"\x89")),
    "keys without storages": _old(OLD_START + pickle.dumps({}, 2) + pickle.dumps(["1"], 2)),
    "keys that are none": _old(OLD_START + pickle.dumps({}, 2) + pickle.dumps(7, 2)),
    "a tar, as before torch 0.2": _old(b"sys_info".ljust(257, b"\0") + b"ustar".ljust(300, b"\0")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_soon_and_in_one_line(tmp_path, name):
    import resource

    def limits():
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))

    HOSTILE[name](tmp_path / "a.ckpt")
    out = ["--weights", tmp_path / "o.safetensors", "--model", tmp_path / "o.json"]
    result = run_stage(
        "model.convert", "--checkpoint", tmp_path / "a.ckpt", *out, preexec_fn=limits
    )
    assert_one_line_error(result, "a.ckpt")


CASES = ROOT.parent / "shared" / "cases"
DAMAGED = {
    "ckpt_bytearray8/8gib.ckpt": "bytearray",
    "ckpt_shared_storage/amp.ckpt.gz": "int8",
    "ckpt_traceback/items.ckpt": "called nothing at all",
    "ckpt_traceback/name.ckpt": "damaged record",
}


@pytest.mark.skipif(not CASES.exists(), reason="needs the shared cases")
@pytest.mark.parametrize("name", DAMAGED)
def test_files_that_once_broke_the_reader(tmp_path, name):
    data = (CASES / name).read_bytes()
    (tmp_path / "a.ckpt").write_bytes(gzip.decompress(data) if name.endswith(".gz") else data)
    with pytest.raises(UserError, match=DAMAGED[name]):
        checkpoint.read(tmp_path / "a.ckpt")


@pytest.mark.parametrize("dtype", ["int8", "int64", "bool", "complex64", "float8_e4m3fn"])
@pytest.mark.parametrize("ours", [False, True])
def test_safetensors_of_other_types(tmp_path, dtype, ours):
    state = numbers(TINY)
    state["fc.0.module.0.bias"] = state["fc.0.module.0.bias"].to(getattr(torch, dtype))
    metadata = {METADATA_KEY: json.dumps(tiny_description())} if ours else None
    save_file(state, tmp_path / "a.safetensors", metadata)
    given = () if ours else (LABELS, SPECTROGRAM)
    with pytest.raises(UserError, match=r"fc.0.module.0.bias is of type .*; weights are of float"):
        checkpoint.read(tmp_path / "a.safetensors", *given)


def test_names_that_a_terminal_would_obey(tmp_path):
    """They come from outside: shown in the notes and errors, never raw."""
    state = {**numbers(TINY), "loss.\x1b[2J\ud800\n": torch.ones(1)}
    path = save(v3(TINY, state), tmp_path / "a.ckpt", "zip")
    _, description = converted(path, tmp_path, given=False)
    assert description["notes"] == [r"left out: loss.\x1b[2J\ud800\n"]
    many = {**numbers(TINY), **{f"loss.{n}": torch.ones(1) for n in range(5000)}}
    path = save(v3(TINY, many), tmp_path / "a.ckpt", "zip")
    (note,) = converted(path, tmp_path, given=False)[1]["notes"]
    assert "loss.9" in note and note.endswith("and 4990 more") and len(note) < 200


@pytest.mark.parametrize("end", [-1, -100, 3000, 400])
def test_old_files_cut_short(tmp_path, end):
    path = save(v3(TINY, numbers(TINY)), tmp_path / "a.ckpt", "old")
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(UserError, match="cut short"):
        checkpoint.read(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_small_file_is_no_large_network(tmp_path, kind):
    """All tensors in one storage, which is as large as the largest of them."""
    shapes = Architecture(161, 29, "lstm", 256, 9, True).shapes()
    block = torch.ones(max(int(np.prod(shape)) for shape in shapes.values()))
    state = {name: block[: int(np.prod(shape))].view(shape) for name, shape in shapes.items()}
    path = save(state, tmp_path / "a.ckpt", kind)
    with pytest.raises(UserError, match="more numbers than the file"):
        checkpoint.read(path, LABELS, SPECTROGRAM)


def test_a_stride_that_means_nothing(tmp_path):
    """Of a dimension of one element: it may be any number."""
    weight = torch.as_strided(numbers(TINY)["conv.seq_module.0.weight"], (32, 1, 41, 11),
                              (451, 1 << 61, 11, 1))  # fmt: skip
    state = {**numbers(TINY), "conv.seq_module.0.weight": weight}
    path = save(v3(TINY, state), tmp_path / "a.ckpt", "zip")
    assert_the_same(checkpoint.read(path)[0], TINY)


@pytest.mark.parametrize("kind", FORMATS)
def test_pickles_in_other_places_stay_inert(tmp_path, kind):
    class Payload:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'proof')!r}, 'w').close()",)

    for place in ("optim_dict", "audio_conf", "labels", "rnn_type", "state_dict", "meta"):
        path = save(package(TINY, numbers(TINY), **{place: Payload()}), tmp_path / "a.pth", kind)
        try:
            checkpoint.read(path)
        except UserError as error:
            assert "a.pth" in str(error)
        assert not (tmp_path / "proof").exists(), place


LAST = [*LABELS[1:], "_"]
BLANKS = {
    "V2": lambda: (package(TINY, numbers(TINY), labels="".join(LAST)), None),
    "V3": lambda: (v3(TINY, numbers(TINY), labels=LAST), None),
    "V3, in the middle": lambda: (v3(TINY, numbers(TINY), labels=["a", "_", *LABELS[2:]]), None),
    "given": lambda: (numbers(TINY), LAST),
}


@pytest.mark.parametrize("case", BLANKS)
def test_a_blank_that_is_not_the_first_label(tmp_path, case):
    """deepspeech.pytorch V3 looks it up; here it would be decoded as a character."""
    content, labels = BLANKS[case]()
    path = save(content, tmp_path / "a.pth", "zip")
    with pytest.raises(UserError, match="is _, which deepspeech.pytorch takes for the blank"):
        checkpoint.read(path, labels, SPECTROGRAM if labels else None)


@pytest.mark.parametrize("value", [-1.0, -1e-6])
@pytest.mark.parametrize("name", ["conv.seq_module.1", "rnns.1.batch_norm.module", "fc.0.module.0"])
def test_variances_below_zero(tmp_path, name, value):
    state = numbers(TINY)
    state[f"{name}.running_var"][-1] = value
    path = save(v3(TINY, state), tmp_path / "a.ckpt", "zip")
    with pytest.raises(UserError, match=f"{name}.running_var holds variances below zero"):
        converted(path, tmp_path, given=False)


def _again(data, change):
    """The archive in `data` with other records."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in change(records):
            archive.writestr(name, content)
    return found.getvalue()


TWO = {
    "one after the other": ("zip", lambda data: data + data),
    "something before": ("zip", lambda data: b"PK" + data),
    "two contents": ("zip", lambda data: _again(data, lambda r: [*r, ("b/data.pkl", b"N.")])),
    "two of a name": ("zip", lambda data: _again(data, lambda r: [(r[2][0], b"0" * 999), *r])),
    "old, one after the other": ("old", lambda data: data + data),
    "old, something after": ("old", lambda data: data + b"x"),
    "old, cut behind its network": ("old", lambda data: data[:-1]),
    "old, cut before the last storage": ("old", lambda data: data[: -8 - 5 * 4]),
}


@pytest.mark.parametrize("case", TWO)
def test_two_checkpoints_in_a_file_and_parts_of_one(tmp_path, case):
    kind, change = TWO[case]
    path = save(package(TINY, numbers(TINY)), tmp_path / "a.pth", kind)
    assert checkpoint.read(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"a.pth: not a torch checkpoint, or cut short"):
        checkpoint.read(path)


def test_safetensors_that_begin_like_a_zip(tmp_path):
    """Their header is 0x4B50 bytes long, or that and a multiple of 65536."""
    path = tmp_path / "a.safetensors"
    save_file(numbers(TINY), path, {"x": ""})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    save_file(numbers(TINY), path, {"x": "y" * (0x4B50 - length)})
    assert path.read_bytes()[:2] == b"PK"
    assert_the_same(checkpoint.read(path, LABELS, SPECTROGRAM)[0], TINY)


OTHER_TYPES = ("complex64", "complex128", "float8_e4m3fn", "uint16", "int8")


@pytest.mark.parametrize("dtype", OTHER_TYPES)
def test_types_of_tensors_that_are_not_weights(tmp_path, dtype):
    """They are of no matter beside the network; a weight of theirs is refused by its type."""
    other = torch.ones(8).to(getattr(torch, dtype))
    path = save(package(TINY, numbers(TINY), ema={"x": other}), tmp_path / "a.pth", "zip")
    assert_the_same(checkpoint.read(path)[0], TINY)
    state = {**numbers(TINY), "fc.0.module.0.bias": other}
    path = save(package(TINY, state), tmp_path / "a.pth", "zip")
    with pytest.raises(UserError, match=r"fc.0.module.0.bias (is of type|$)|not a tensor: fc.0"):
        checkpoint.read(path)


def test_a_second_network_is_noted(tmp_path):
    state = numbers(TINY)
    ema = {name: values + 1 for name, values in state.items()}
    path = save({**v3(TINY, state), "ema_weights": ema}, tmp_path / "a.ckpt", "zip")
    weights, description = converted(path, tmp_path, given=False)
    assert_the_same(weights, TINY)
    assert description["notes"] == ["left out: ema_weights"]


class ByName(enum.Enum):
    """As Python 3.11.0 to 3.11.3 pickled a member of an enumeration."""

    hann = "hann"

    def __reduce_ex__(self, protocol):
        return getattr, (type(self), self.name)


def test_enumerations_by_name_and_python_2s_bytes(tmp_path):
    content = package(
        TINY, numbers(TINY), audio_conf={**AUDIO, "window": ByName.hann}, meta="bytes"
    )
    path = save(content, tmp_path / "a.pth", "zip")
    text = b"X\x05\0\0\0bytes"
    data = _again(
        path.read_bytes(), lambda r: [(n, d.replace(text, b"U\x02\xff\xfe")) for n, d in r]
    )
    assert text in path.read_bytes() and text not in data
    path.write_bytes(data)
    weights, description = converted(path, tmp_path, given=False)
    assert_the_same(weights, TINY)
    assert description["spectrogram"]["window"] == "hann"


class AttributeDict(dict):
    """Like those of many packages: pickled as an object with items."""


@pytest.mark.parametrize("kind", [dict, AttributeDict, collections.OrderedDict,
                                  lambda d: collections.defaultdict(int, d),
                                  lambda d: argparse.Namespace(**d)])  # fmt: skip
@pytest.mark.parametrize("window", ["hann", Window.hamming, ByName.hann])
def test_which_window_a_package_means(tmp_path, kind, window):
    """A name is scipy's, symmetric; a member of an enumeration is librosa's."""
    audio = kind({**AUDIO, "window": window})
    path = save(package(TINY, numbers(TINY), audio_conf=audio), tmp_path / "a.pth", "zip")
    expected = "hann_symmetric" if window == "hann" else window.value
    assert checkpoint.read(path)[1]["spectrogram"]["window"] == expected


def test_settings_that_numpy_or_torch_hold(tmp_path):
    """What shapes tell is read from them, the rest is asked for."""
    settings = {"hidden_size": np.int64(8), "hidden_layers": torch.tensor(2)}
    settings |= {"bidirectional": np.bool_(True), "rnn_type": np.str_("lstm")}
    path = save(package(TINY, numbers(TINY), **settings), tmp_path / "a.pth", "zip")
    weights, description = checkpoint.read(path)
    assert_the_same(weights, TINY)
    assert description["architecture"] == TINY._asdict()
    audio = {**AUDIO, "window_size": np.float32(0.02)}
    path = save(package(TINY, numbers(TINY), audio_conf=audio), tmp_path / "a.pth", "zip")
    with pytest.raises(UserError, match=r"set models.<name>.spectrogram: {window_size} to"):
        checkpoint.read(path)


@pytest.mark.parametrize("protocol", range(1, 6))
def test_protocols(tmp_path, protocol):
    content = v3(TINY, numbers(TINY), spect_cfg=SpectConfig())
    torch.save(content, tmp_path / "a.ckpt", pickle_protocol=protocol)
    weights, description = checkpoint.read(tmp_path / "a.ckpt")
    assert_the_same(weights, TINY)
    assert description["spectrogram"] == SPECTROGRAM


LIES = {
    "half": (b"FloatStorage", b"HalfStorage"),
    "double": (b"FloatStorage", b"DoubleStorage"),
    "a number too few": (b"K\x08(N?tq)", b"K\x07\\1"),
    "a number too many": (b"K\x08(N?tq)", b"K\x09\\1"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("lie", LIES)
def test_storages_of_another_length_than_the_pickle_says(tmp_path, lie, kind):
    """Numbers of half the width would be others, and enough for every tensor."""
    before, after = LIES[lie]
    path = save(package(TINY, numbers(TINY)), tmp_path / "a.pth", kind)
    data = path.read_bytes()
    assert re.search(before, data)
    if kind == "zip":
        data = _again(data, lambda r: [(n, re.sub(before, after, d)) for n, d in r])
    else:
        data = re.sub(before, after, data)
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged record .*it has|cut short|more numbers than"):
        checkpoint.read(path)
