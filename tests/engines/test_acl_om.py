"""The backend acl_om against strict stand-ins: its contract, and mistakes that break it."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_acl
import networks
import numpy as np
import pytest
from conftest import FAKES
from deepspeech2 import engines, files
from deepspeech2.cli import UserError
from deepspeech2.engines import Shape, acl_om, artefact, ascend
from deepspeech2.engines.acl_om import atc
from helpers import TINY, assert_one_line_error, python_without, run_stage, write_sealed

onnx = pytest.importorskip("onnx", reason="needs envs/onnxruntime.txt")
pytest.importorskip("onnxruntime", reason="needs envs/onnxruntime.txt")
from deepspeech2.engines.acl_om import session  # noqa: E402
from deepspeech2.model.onnx_graph import export  # noqa: E402

GENERATIONS = ("old", "new")
WITH = FAKES / "with_acl_om"
FRAMES, SIZE = 97, 3
RIGHT = {"fp16": 1e-3, "fp32": 1e-6}  # largest difference from the eager network


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A function that exports the tiny network, and keeps what it made."""
    folder = tmp_path_factory.mktemp("onnx")

    def exported(form="packed", opset=11, batch_size=SIZE):
        path = folder / f"{form}_{opset}_{batch_size}.onnx"
        if not path.exists():
            onnx.save(export(networks.make(TINY, form + "_whole"), opset, batch_size)[0], path)
        return path

    return exported


class Kit:
    """A machine with CANN and an NPU, as far as the backend can see, and what checks need."""

    def __init__(self, folder, exports, monkeypatch, generation):
        self.folder, self.exports, self.patch = folder, exports, monkeypatch
        self.calls, self.generation = [], generation
        self.fake, self.programs = fake_acl, False  # whether atc is started: it takes longer
        monkeypatch.setattr(sys, "path", [str(WITH), *sys.path])
        python = Path(sys.executable).parent
        monkeypatch.setenv("PATH", f"{WITH}{os.pathsep}{python}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", f"{WITH}{os.pathsep}{FAKES}")
        monkeypatch.setenv("FAKE_AIS_BENCH", generation)
        self.devices("310P3", "310P3")

        def run(command, **options):
            self.calls.append(command)
            if command[0] != "atc" or self.programs:
                return subprocess.run(command, **options)
            with contextlib.chdir(options["cwd"]), contextlib.redirect_stdout(io.StringIO()) as out:
                status = self.fake.atc(command[1:])
            return subprocess.CompletedProcess(command, status, out.getvalue(), "")

        monkeypatch.setattr(atc, "subprocess", SimpleNamespace(run=run))
        monkeypatch.setattr(acl_om.atc, "subprocess", atc.subprocess)

    def devices(self, *names):
        """What npu-smi lists."""
        found = [ascend.Device(number, name, "OK") for number, name in enumerate(names)]
        self.patch.setattr(ascend, "smi", lambda: ("23.0.0" if names else None, found))

    def backend(self, **entry):
        made = engines.create(engines.complete({"backend": "acl_om", "form": "packed", **entry}))
        made.prepare()
        return made

    def compiled(self, widths=(FRAMES,), source=None, **entry):
        """A backend, the folder it compiled into, and its notes."""
        backend = self.backend(**entry)
        folder = self.folder / f"compiled{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        shapes = [Shape(SIZE, 161, width) for width in widths]
        source = source or self.exports(backend.engine.form)
        notes = backend.compile(source, shapes, folder)
        json.dumps(notes)
        return backend, folder, notes

    def opened(self, **entry):
        backend, folder, _ = self.compiled(**entry)
        return backend.open(folder, 1)

    def error(self, function, *arguments, **keywords):
        """The line of the UserError that a call must end with."""
        with pytest.raises(UserError) as caught:
            function(*arguments, **keywords)
        assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
        return str(caught.value)


def batch(frames=FRAMES):
    return networks.batch(SIZE, frames, ordered=False)


def difference(found, x, lengths, form):
    """The largest from the eager network; lengths and types must be its own."""
    expected = networks.make(TINY, "static")(x, lengths)
    assert found[1].tolist() == expected[1].tolist()
    assert (found[0].dtype, found[1].dtype) == (np.float32, np.int32)
    pairs = zip(networks.valid(found), networks.valid(expected))
    return max(float(np.abs(ours - theirs.numpy()).max()) for ours, theirs in pairs)


def check_posteriors_are_the_networks(kit):
    """In both forms and precisions, of unordered lengths; fp16 is really computed in fp16."""
    found = {}
    for form in engines.FORMS:
        for precision, most in RIGHT.items():
            opened = kit.opened(form=form, precision=precision)
            found[precision] = difference(networks.run(opened, *batch()), *batch(), form)
            assert found[precision] < most
            opened.close()
        assert found["fp16"] > 10 * found["fp32"]


def check_inputs_get_their_types(kit):
    """Whatever the caller has: ais_bench would take their bytes for the model's types."""
    x, lengths = batch()
    opened = kit.opened()
    turned = np.asfortranarray(x.numpy().astype("f8"))
    _, feeds, _ = loaded = opened.upload(turned, lengths.numpy().astype("i8"))
    assert [one.dtype for one in feeds] == [np.float32, np.int32]
    assert all(one.flags.c_contiguous for one in feeds)
    result = opened.download(opened.forward(loaded))
    assert difference(result, x, lengths, "packed") < RIGHT["fp16"]


def check_packed_rows_are_sorted(kit):
    """Longest first, for the device; the caller has them in its own order."""
    x, lengths = batch()
    for form in engines.FORMS:
        opened = kit.opened(form=form)
        _, feeds, _ = opened.upload(x.numpy(), lengths.numpy())
        ordered = sorted(lengths.tolist(), reverse=True)
        assert feeds[1].tolist() == (ordered if form == "packed" else lengths.tolist())
        assert lengths.tolist() != ordered


def check_what_atc_is_told(kit):
    """The guide's options, each once; the precision is always named and recorded."""
    kit.programs = True
    kit.patch.setenv("FAKE_ATC_SUFFIX", "_linux_aarch64")
    kit.patch.chdir(kit.folder)
    _, folder, notes = kit.compiled(widths=(60, FRAMES))
    assert notes == {
        "input_format": "NCHW", "log": "error", "soc_version": "Ascend310P3",
        "precision_mode": "force_fp16",
    }  # fmt: skip
    told = [dict(word[2:].split("=") for word in call[1:]) for call in kit.calls]
    assert [call[0] for call in kit.calls] == ["atc", "atc"]
    for frames, options in zip((60, FRAMES), told):
        assert options.pop("output") and options.pop("model").endswith("packed_11_3.onnx")
        shape = f"spectrograms:{SIZE},1,161,{frames};lengths:{SIZE}"
        assert options == {"framework": "5", "input_shape": shape, **notes}
    # Nothing of what atc leaves about stays.
    names = {path.name for path in folder.iterdir()}
    assert names == {"60.om", "97.om", "about.json"} and list(kit.folder.iterdir()) == [folder]
    own = {"precision_mode": "must_keep_origin_dtype", "input_format": "ND", "log": "info"}
    notes = kit.compiled(precision="fp32", options=own)[2]
    assert notes == {**own, "soc_version": "Ascend310P3"}


def check_each_width_has_its_model(kit):
    backend, folder, _ = kit.compiled(widths=(60, FRAMES), buckets=[60])
    opened = backend.open(folder, 1)
    for frames in (60, FRAMES):
        x, lengths = batch(frames)
        found = networks.run(opened, x, lengths)
        assert difference(found, x, lengths, "packed") < RIGHT["fp16"]
    x, lengths = batch()
    line = kit.error(opened.upload, x.numpy()[..., :80], lengths.numpy())
    assert "nothing was compiled for 80 frames, only for 60, 97" in line
    line = kit.error(opened.upload, x.numpy()[:2], lengths.numpy()[:2])
    assert "a batch of (2, 1, 161, 97) with 2 lengths" in line
    assert "batch_size=3" in kit.error(opened.upload, x.numpy(), lengths.numpy()[:2])
    assert "batch_size=3" in kit.error(opened.upload, x.numpy()[:, :, :80], lengths.numpy())


def check_the_kind_of_the_device(kit):
    """It is the device's own where npu-smi tells, and nothing is compiled for another."""
    kit.devices("310P3", "910B4")
    assert kit.compiled(device="npu:1")[2]["soc_version"] == "Ascend910B4"
    kit.calls.clear()
    line = kit.error(kit.compiled, options={"soc_version": "Ascend910B3"})
    assert "soc_version is Ascend910B3, but npu:0 is an Ascend310P3; set engines." in line
    kit.devices()
    line = kit.error(kit.compiled)
    assert "npu-smi does not tell what npu:0 is; set engines.<name>.options.soc_version" in line
    assert not kit.calls
    other = {"soc_version": "Ascend910B3"}
    backend, folder, _ = kit.compiled(options=other)
    line = kit.error(backend.open, folder, 1)
    assert "97.om: ais_bench cannot load it" in line and "Ascend910B3 is not Ascend310P3" in line
    kit.devices("310P3")
    line = kit.error(kit.backend().open, folder, 1)
    assert "compiled for Ascend910B3, and npu:0 is an Ascend310P3; compile it there" in line


def check_the_device_that_is_named(kit):
    """ais_bench gets its number, here and for zeros."""
    backend, folder, _ = kit.compiled(device="npu:1")
    backend.open(folder, 1)
    backend = kit.backend(device="npu:7", options={"soc_version": "Ascend310P3"})
    assert "device_id 7 is invalid" in kit.error(backend.open, folder, 1)
    line = kit.error(backend.time_zeros, folder, Shape(SIZE, 161, FRAMES))
    assert "97.om: failed with status 1 (RuntimeError: device_id 7 is invalid)" in line


def check_zeros_are_timed_as_the_guide_does(kit):
    backend, folder, _ = kit.compiled()
    found = backend.time_zeros(folder, Shape(SIZE, 161, FRAMES))
    times = found["device_ms"]
    assert found["utterances_per_s"] == pytest.approx(1000 * SIZE / times["mean"])
    assert times["count"] == 20 and 0 < times["min"] <= times["median"] <= times["p99"]
    assert found["command"] == "ais_bench --model 97.om --loop 20 --batchsize 3 --device 0"
    assert not any(word in kit.calls[-1] for word in ("--input", "--pure_data_type"))


def check_the_devices_time_is_noted(kit):
    """Of both generations: milliseconds, or when each run began and ended."""
    opened = kit.opened()
    assert opened.profile() == {"device": 0.0}
    networks.run(opened, *batch())
    first = opened.profile()["device"]
    assert 0 < first < 10 and opened.profile() == {"device": 0.0}
    networks.run(opened, *batch())
    assert 0 < opened.profile()["device"] < 10
    opened.close()
    assert opened.notes["runs"] == 2
    assert 0 < opened.notes["device_ms"] < 10_000


def check_the_device_is_given_back(kit):
    """At the end, and where the second of two models cannot be loaded."""
    freed, free = [], kit.fake.NewSession.free_resource
    kit.patch.setattr(
        kit.fake.NewSession, "free_resource", lambda self: (freed.append(self), free(self))
    )
    backend, folder, _ = kit.compiled(widths=(60, FRAMES))
    opened = backend.open(folder, 1)
    loaded = opened.upload(*(one.numpy() for one in batch()))
    opened.close()
    assert opened.models == {} and len(freed) == 2 * (kit.generation == "new")
    if freed:
        assert "used after its resources were freed" in kit.error(opened.forward, loaded)
        freed.clear()
    content = (folder / "97.om").read_bytes()
    (folder / "97.om").write_bytes(content[:-100])
    line = kit.error(backend.open, folder, 1)
    assert "97.om: ais_bench cannot load it" in line and "truncated" in line
    assert len(freed) == (kit.generation == "new")


def check_another_model_is_refused(kit):
    """ais_bench would take anything of as many bytes."""
    backend, folder, _ = kit.compiled()
    for change in (
        lambda inputs: inputs.reverse(),
        lambda inputs: inputs[1].__setitem__(2, "float32"),
        lambda inputs: inputs[0].__setitem__(1, [SIZE, 1, FRAMES, 161]),
        lambda inputs: inputs[0].__setitem__(0, "x"),
    ):
        content = (folder / "97.om").read_bytes().split(b"\n", 2)
        about = json.loads(content[1])
        change(about["inputs"])
        copy = kit.folder / "other"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        content[1] = json.dumps(about).encode()
        (copy / "97.om").write_bytes(b"\n".join(content))
        assert "97.om: takes the inputs [(" in kit.error(backend.open, copy, 1)
    opened = backend.open(folder, 1)
    done, order = opened.forward(opened.upload(*(one.numpy() for one in batch())))
    for outputs in (done[::-1], done[:1], [done[0][:2], done[1]]):
        assert "not probabilities and lengths" in kit.error(opened.download, (outputs, order))


def check_outputs_of_other_types_become_ours(kit):
    opened = kit.opened()
    done, order = opened.forward(opened.upload(*(one.numpy() for one in batch())))
    half = [done[0].astype("f2"), done[1].astype("i8")]
    assert difference(opened.download((half, order)), *batch(), "packed") < RIGHT["fp16"]


def check_failures_of_atc_are_one_line(kit):
    """An opset that it does not know, weights that are no constants, half a file, and so on."""
    packed = kit.exports()
    line = kit.error(kit.compiled, source=kit.exports(opset=17))
    assert line.startswith(
        "atc for packed_17_3.onnx, 3 x 97 frames: failed with status 255 (E16005"
    )
    assert "opset version 17 is not supported" in line
    model = onnx.load(packed)
    lstm = next(node for node in model.graph.node if node.op_type == "LSTM")
    model.graph.node.insert(0, onnx.helper.make_node("Neg", [lstm.input[1]], ["computed"]))
    lstm.input[1] = "computed"
    onnx.save(model, kit.folder / "computed.onnx")
    line = kit.error(kit.compiled, source=kit.folder / "computed.onnx")
    assert "weights of an LSTM must be constants" in line
    (kit.folder / "half.onnx").write_bytes(packed.read_bytes()[:5000])
    assert "E16006: Parsing [" in kit.error(kit.compiled, source=kit.folder / "half.onnx")
    line = kit.error(kit.compiled, source=kit.exports(batch_size=1))
    assert "E10017: shape [3, 1, 161, 97] of [spectrograms] is not the model's" in line
    kit.patch.setenv("FAKE_ATC_REFUSES", "LSTM")
    assert "E19010: No parser" in kit.error(kit.compiled)
    kit.programs, liar = True, kit.folder / "bin"
    liar.mkdir()
    kit.patch.setenv("PATH", f"{liar}:/usr/bin:/bin")
    for text, words in (
        ("echo ATC run failed", "made no .om (ATC run failed)"),
        ("true", "made no .om (it printed nothing)"),
        ("kill -9 $$", "failed with status -9"),
    ):
        (liar / "atc").write_text(f"#!/bin/sh\n{text}\n")
        (liar / "atc").chmod(0o755)
        assert words in kit.error(kit.compiled)
    (liar / "atc").unlink()
    assert "no program atc on the PATH" in kit.error(kit.compiled)


def check_the_stand_in_is_marked(kit):
    backend = kit.backend()
    assert backend.fake is True and backend.proven == ()
    versions = backend.versions()
    assert versions["ais_bench"] == versions["aclruntime"] == "unknown"
    assert (versions["driver"], versions["device"]) == ("23.0.0", "310P3")


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.fixture
def run_check(tmp_path, exports, monkeypatch):
    """Runs a check by its name, on code that may have a mistake in one module."""
    names = ("ais_bench", "aclruntime")

    def run(check, generation, changed=None):
        if changed is not None:
            monkeypatch.setitem(sys.modules, changed.__name__, changed)
            if changed.__name__ == atc.__name__:
                monkeypatch.setattr(acl_om, "atc", changed)
        check(Kit(tmp_path, exports, monkeypatch, generation))

    yield run
    for name in [n for n in sys.modules if n.partition(".")[0] in names]:
        del sys.modules[name]


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, generation, run_check):
    run_check(check, generation)


# Deliberate mistakes: the check that notices, the module, what stands there, and what instead.
MISTAKES = [
    # As many bytes of another type, which ais_bench does not notice.
    (check_posteriors_are_the_networks, session, "(value[order], kind)", "(value[order], 'f4')"),
    (check_posteriors_are_the_networks, session,
     "return model.infer(feeds", "return model.infer(feeds[::-1]"),
    (check_posteriors_are_the_networks, session, "[unsort] for output", " for output"),
    (check_posteriors_are_the_networks, session,
     "np.argsort(order)", "order[[1, 2, 0]]"),
    (check_posteriors_are_the_networks, acl_om,
     "or MODES[self.engine.precision][0]", "or 'force_fp16'"),
    (check_posteriors_are_the_networks, acl_om,
     "or MODES[self.engine.precision][0]", "or 'force_fp32'"),
    (check_inputs_get_their_types, session, "(value[order], kind)", "(value[order])"),
    (check_packed_rows_are_sorted, session, "argsort(-lengths", "argsort(lengths"),
    (check_packed_rows_are_sorted, acl_om, '== "packed"', '== "static"'),
    (check_what_atc_is_told, atc, '"input_shape": f', '"x": f'),
    (check_what_atc_is_told, atc, "{batch},1,{bins},{frames}", "{batch},1,{bins},-1"),
    (check_what_atc_is_told, atc, "{batch},1,{bins},{frames}", "{batch},1,{frames},{bins}"),
    (check_what_atc_is_told, atc, "{lengths}:{batch}", "{lengths}:{batch},1"),
    (check_what_atc_is_told, atc, ";{lengths}:{batch}", ""),
    (check_what_atc_is_told, atc, "ONNX = 5", "ONNX = 1"),
    (check_what_atc_is_told, atc, "            **settings,", ""),
    (check_what_atc_is_told, atc, '"model*.om"', '"model.om"'),
    (check_what_atc_is_told, atc, '["atc", *words], scratch', '["atc", *words], "."'),
    (check_what_atc_is_told, acl_om, '"precision_mode": options', '"p": options'),
    (check_what_atc_is_told, acl_om, 'Option("NCHW"', 'Option("ND"'),
    (check_each_width_has_its_model, acl_om, 'f"{shape[2]}.om"', '"97.om"'),
    (check_each_width_has_its_model, session,
     "!= dimensions(shape):", "!= dimensions(shape) and False:"),
    (check_the_kind_of_the_device, acl_om, "there and asked != there", "False"),
    (check_the_kind_of_the_device, acl_om, "return asked or there", "return 'Ascend310P3'"),
    (check_the_kind_of_the_device, acl_om, 'about["soc_version"] != soc', "False"),
    (check_the_device_that_is_named, acl_om,
     "InferSession, ascend.number(self.engine)", "InferSession, 0"),
    (check_the_device_that_is_named, acl_om, "--device {number}", "--device 0"),
    (check_zeros_are_timed_as_the_guide_does, acl_om, "LOOPS = 20", "LOOPS = 10"),
    (check_zeros_are_timed_as_the_guide_does, acl_om, "1000 * shape.batch_size", "1000"),
    (check_zeros_are_timed_as_the_guide_does, acl_om, '"p99" if "99" in name else name', "name"),
    (check_the_devices_time_is_noted, session, "one[1] - one[0]", "one[1]"),
    (check_the_devices_time_is_noted, session,
     "one if np.isscalar(one) else one[1] - one[0]", "one"),
    (check_the_devices_time_is_noted, session,
     'model.summary() if hasattr(model, "summary") else model.sumary()', "model.sumary()"),
    (check_the_devices_time_is_noted, session, "self.profiled = self.profiled, sum", "_ = 0, sum"),
    (check_the_device_is_given_back, session, '"free_resource", int', '"free", int'),
    (check_the_device_is_given_back, session, "            self.close()\n", ""),
    (check_another_model_is_refused, session, "if found != wanted", "if False"),
    (check_another_model_is_refused, session, "[3, 1] or", "[3, 1] and"),
    (check_outputs_of_other_types_become_ours, session,
     "probabilities.astype(np.float32, copy=False)", "probabilities"),
    (check_failures_of_atc_are_one_line, atc,
     '"ATC run failed" in text or len(made) != 1', "False"),
    (check_failures_of_atc_are_one_line, atc, "if done.returncode:", "if False:"),
    (check_failures_of_atc_are_one_line, atc, "except FileNotFoundError", "except ValueError"),
    (check_the_stand_in_is_marked, acl_om, '"__fake__", False', '"fake", False'),
]  # fmt: skip
# What only one generation can show.
ONLY = {"one[1]": "new", "one": "new", "model.sumary()": "new", '"free", int': "new", "": "new"}


def mutant(module, old, new):
    """The module with a mistake in it, as a module of the same name that nobody else imports."""
    text = Path(module.__file__).read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {module.__name__}"
    made = importlib.util.module_from_spec(module.__spec__)
    exec(compile(text.replace(old, new), module.__file__, "exec"), made.__dict__)
    return made


@pytest.mark.parametrize(("check", "module", "old", "new"), MISTAKES)
def test_mistakes_are_caught(check, module, old, new, run_check):
    """The check passes on the code as it is (test_contract) and not on the code with a mistake."""
    errors = (UserError, OSError, TypeError, LookupError, AttributeError)
    with pytest.raises((AssertionError, pytest.fail.Exception, *errors)):
        run_check(check, ONLY.get(new, "old"), mutant(module, old, new))


@pytest.mark.parametrize("module", [acl_om, atc, session], ids=lambda module: module.__name__)
def test_a_copy_without_a_mistake_passes(module, run_check):
    """So what is caught is the mistake, not that the module is a copy."""
    copy = mutant(module, "import annotations", "import annotations")
    run_check(check_what_atc_is_told, "old", copy)


WRONG = [
    ({"device": "cpu"}, "backend acl_om serves the devices npu:N, not 'cpu'"),
    ({"device": "npu:2000"}, "npu:2000"),
    ({"precision": "int8"}, "computes fp16 or fp32, not int8"),
    ({"padding": "batch"}, "padding must be longest; name buckets"),
    (
        {"options": {"precision_mode": "force_fp32"}},
        "does not go with precision fp16",
    ),
    (
        {"precision": "fp32", "options": {"precision_mode": "force_fp16"}},
        "choose force_fp32, must",
    ),
    ({"options": {"precision_mode": "fp16"}}, "precision_mode 'fp16'"),
    ({"options": {"soc_version": "310P3"}}, "soc_version '310P3': must be a text that matches Asc"),
    ({"options": {"input_format": "NHWC"}}, "input_format 'NHWC'"),
    ({"options": {"log": "all"}}, "log 'all'"),
    ({"options": {"framework": 5}}, "has no option 'framework'; known are: precision_mode, soc_v"),
]


@pytest.mark.parametrize(("entry", "words"), WRONG)
def test_settings_are_checked(entry, words):
    with pytest.raises(UserError) as caught:
        engines.complete({"backend": "acl_om", **entry})
    assert words in str(caught.value)


def test_what_an_engine_starts_from():
    engine = engines.complete({"backend": "acl_om", "form": "packed"})
    assert engine.export == ("onnx", "packed", 11, True)
    assert (engine.device, engine.precision) == ("npu:0", "fp16")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"opset": 17}, "exported with opset 17, and the engine takes 11"),
        ({"batch_size": 4}, "exported with batch_size 4, and the engine takes 3"),
        ({"batch_size": None}, "exported with batch_size any, and the engine takes 3"),
        ({"form": "packed"}, "exported with form packed, and the engine takes static"),
        ({"sha256": "0" * 64}, "altered since"),
    ],
)
def test_an_export_for_something_else_is_refused_before_any_work(tmp_path, changes, words):
    source = tmp_path / "model.onnx"
    source.write_bytes(b"x")
    about = {"form": "static", "opset": 11, "batch_size": 3, "sha256": files.sha256(source)}
    index = write_sealed(tmp_path / "model.json", {**about, **changes})
    failed = run_stage(
        "engines.compile", "--source", source, "--source-index", index,
        "--features-index", tmp_path / "none.json", "--batch-size", 3, "--engine", "acl_om",
        "--artefact", tmp_path / "compiled", "--index", tmp_path / "compiled.json",
    )  # fmt: skip
    assert_one_line_error(failed, words, "rebuild it with")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shapes": [Shape(4, 161, 97)._asdict()]}, "made for the batch size 4, not 3"),
        ({"versions": {"CANN": "7.0"}}, "made with CANN 7.0, and here is None"),
        ({"engine": {}}, "made for other settings of the engine"),
    ],
)
def test_an_artefact_for_something_else_is_refused(tmp_path, changes, words, monkeypatch):
    monkeypatch.setattr(ascend, "smi", lambda: (None, []))
    backend = engines.create(engines.complete({"backend": "acl_om"}))
    monkeypatch.setattr(backend, "versions", dict)
    content = {
        "engine": backend.engine._asdict(), "shapes": [Shape(3, 161, 97)._asdict()],
        "versions": {}, "files": {},
    }  # fmt: skip
    index = write_sealed(tmp_path / "compiled.json", json.loads(json.dumps(content)))
    artefact.require_artefact(tmp_path, index, backend, 3)
    write_sealed(index, {**content, **changes})
    with pytest.raises(UserError, match=words):
        artefact.require_artefact(tmp_path, index, backend, 3)


def test_zeros_are_only_for_engines_that_have_them(tmp_path):
    failed = run_stage(
        "engines.zeros", "--artefact", tmp_path, "--artefact-index", tmp_path / "i.json",
        "--batch-size", 1, "--engine", "torchscript", "--zeros", tmp_path / "zeros.json",
    )  # fmt: skip
    assert_one_line_error(failed, "backend torchscript has no figures of zeros")


def test_the_doctor_says_what_is_missing(tmp_path, monkeypatch):
    """Nothing is there; the packages are there and broken; all is there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = acl_om.Backend.examine()
    assert any("has no ais_bench, aclruntime: Huawei's wheels" in line for line in found.missing)
    assert any("no program atc on the PATH" in line for line in found.missing)
    assert any("npu-smi cannot be run" in line for line in found.doubts)
    lacking = engines.create(engines.complete({"backend": "acl_om"})).lacks()
    assert any("npu-smi does not tell what npu:0 is" in line for line in lacking)
    for name in ("ais_bench", "aclruntime"):
        (tmp_path / f"{name}.py").write_text("import libascendcl_is_missing\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from deepspeech2 import cli, doctor; cli.call(doctor.main, [])"
    )
    done = python_without([], code)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr
    assert "ais_bench.infer.interface cannot be imported (No module named" in done.stdout


def test_the_doctor_finds_all(tmp_path, exports, monkeypatch):
    Kit(tmp_path, exports, monkeypatch, "new")
    found = acl_om.Backend.examine()
    assert found.missing == [] and found.found["atc"] == str(WITH / "atc")
    assert "npu:1" in found.found and found.found["ais_bench"] == "unknown version"
    for name in [n for n in sys.modules if n.partition(".")[0] in ("ais_bench", "aclruntime")]:
        monkeypatch.delitem(sys.modules, name)
