"""What the backend torch_aie must do, as checks that each run it against the strict stand-in.

A check takes a `Kit` and raises where the contract is broken. test_ascend runs all of them, once as
torch_aie and once as mindietorch, and then again on versions of the code with deliberate mistakes.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_ascend
import numpy as np
import torch
from conftest import FAKES
from deepspeech2 import engines
from deepspeech2.cli import UserError
from deepspeech2.engines import Shape, ascend
from deepspeech2.model import network, trace

BINS = 161
FRAMES = (97, 60, 90, 41, 76)  # of five utterances; a batch of 2 leaves one row to fill up


class Features:
    """Five utterances of noise; the interface of FeatureSet, without files."""

    def __init__(self, frames=FRAMES):
        order = sorted(frames, reverse=True)
        self.utterances = [
            {"id": f"u{n}", "frames": f, "seconds": f / 100, "manifest_position": n}
            for n, f in enumerate(order)
        ]
        self.frames_max, self.bins = order[0], BINS
        random = np.random.default_rng(0)
        self.data = [random.standard_normal((BINS, f)).astype("f4") for f in order]

    def __len__(self):
        return len(self.utterances)

    def load(self, position):
        padded = np.zeros((BINS, self.frames_max), "f4")
        padded[:, : self.data[position].shape[1]] = self.data[position]
        return padded


class Kit:
    """A new process, as far as the plugin is concerned, and what the checks need in it."""

    def __init__(self, flavour, folder, net, modules, traces):
        self.flavour, self.folder, self.net, self.traces = flavour, Path(folder), net, Path(traces)
        self.timing, self.loop, self.features = modules
        self.set = Features()
        self.new_process()

    def new_process(self):
        fake_ascend.reset(self.flavour)
        sys.path[:] = [p for p in sys.path if p not in (str(FAKES / f"with_{f}") for f in FLAVOURS)]
        sys.path.insert(0, str(FAKES / f"with_{self.flavour}"))
        self.state = fake_ascend.STATE

    def backend(self, **changes):
        return engines.create(engines.complete({"backend": "torch_aie", **changes}))

    def batches(self, batch_size=2, padding="longest"):
        return self.features.Batches(self.set, batch_size, padding)

    def source(self, form):
        path = self.traces / f"{form}.pt"
        if not path.exists():
            net = network.DeepSpeech2(self.net.architecture, form + network.WHOLE)
            net.load_state_dict(self.net.state_dict())
            torch.jit.save(trace.trace(net.eval().requires_grad_(False)), str(path))
        return path

    def compiled(self, batch_size=2, widths=None, **changes):
        """A backend, the folder it compiled into in a process of its own, and its notes."""
        if self.state.finalized:
            self.new_process()
        backend = self.backend(**changes)
        number = len(list(self.folder.glob("artefact*")))
        folder = self.folder / f"artefact{number}"
        folder.mkdir()
        shapes = [Shape(batch_size, BINS, w) for w in widths or [self.set.frames_max]]
        backend.prepare()
        notes = backend.compile(self.source(backend.engine.form), shapes, folder)
        json.dumps(notes)
        return backend, folder, notes

    def opened(self, batch_size=2, widths=None, **changes):
        """A session in a new process, with its backend."""
        _, folder, _ = self.compiled(batch_size, widths, **changes)
        compiled = self.state.compiled
        self.new_process()
        self.state.before = compiled
        backend = self.backend(**changes)
        backend.prepare()
        return backend.open(folder, 1), backend

    def open_again(self, folder, **changes):
        """Open an artefact in a new process, where that is to fail."""
        self.new_process()
        backend = self.backend(**changes)
        backend.prepare()
        return backend.open(folder, 1)

    def expected(self):
        """Posteriors of each utterance alone, by the eager network in float32."""
        found = {}
        for utterance, data in zip(self.set.utterances, self.set.data):
            with torch.no_grad():
                p, n = self.net(torch.from_numpy(data)[None, None], torch.tensor([data.shape[1]]))
            found[utterance["id"]] = p[0, : int(n[0])].numpy()
        return found

    def run(self, session, batch_size=2, padding="longest"):
        found = list(self.loop.infer(session, self.batches(batch_size, padding)))
        assert len(found) == len(self.set)  # no row that fills a batch up
        return dict(found)

    def error(self, function, *arguments, **keywords):
        """The line of the UserError that a call must end with."""
        try:
            function(*arguments, **keywords)
        except UserError as error:
            return str(error)
        raise AssertionError("no UserError")


FLAVOURS = ("torch_aie", "mindietorch")


def _same(found, expected, tolerance):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape and found[name].dtype == np.float32
        assert np.abs(found[name] - values).max() <= tolerance, name


def check_posteriors_are_the_networks(kit):
    """In both forms and precisions; float32 is exact, float16 is not and must not be."""
    for form in network.FORMS:
        for precision, low, high in (("fp32", 0, 1e-5), ("fp16", 1e-6, 2e-2)):
            session, _ = kit.opened(form=form, precision=precision)
            found = kit.run(session)
            _same(found, kit.expected(), high)
            apart = max(np.abs(found[n] - v).max() for n, v in kit.expected().items())
            assert apart >= low, "float32 where float16 was asked for"


def check_rows_come_back_in_their_order(kit):
    """Also where the caller's batch is not sorted, as packing needs it."""
    for form in network.FORMS:
        session, _ = kit.opened(batch_size=5, form=form, precision="fp32")
        rows = [3, 0, 4, 1, 2]
        lengths = np.array([kit.set.utterances[r]["frames"] for r in rows], np.int32)
        spectrograms = np.stack([kit.set.load(r)[None] for r in rows])
        result = session.forward(session.upload(spectrograms, lengths))
        session.synchronize()
        probabilities, found = session.download(result)
        assert found.dtype == np.int32 and probabilities.dtype == np.float32
        assert found.tolist() == [(n - 1) // 2 + 1 for n in lengths]
        expected = kit.expected()
        for row, utterance in enumerate(rows):
            values = expected[f"u{utterance}"]
            assert np.abs(probabilities[row, : found[row]] - values).max() < 1e-5


def check_order_of_events(kit):
    """Upload, clock, forward on the own stream, wait for it, clock, download."""
    session, _ = kit.opened()
    events = kit.state.events
    assert events[:1] == ["set_device 0"] and events.index("load") > 0
    del events[:]

    def clock():
        events.append("clock")
        return float(len(events))

    kit.timing.time = SimpleNamespace(perf_counter=clock)
    times = [kit.timing.time_batch(session, kit.batches(), start) for start in (0, 2, 4)]
    # The stream is made when the session opens, and used again for every batch.
    one = ["clock", "clock", "h2d", "h2d", "clock"]
    one += ["enter", "forward on stream 2", "leave", "synchronize stream 2", "clock"]
    one += ["d2h", "d2h", "clock"]
    assert events == 3 * one, events
    assert [t.utterances for t in times] == [2, 2, 1]  # without the row that fills up
    assert all(t.padded_frames == 2 * kit.set.frames_max for t in times)


def check_fill_up_rows_do_not_count(kit):
    session, _ = kit.opened()
    del kit.state.events[:]
    kit.run(session)
    one = ["h2d", "h2d", "enter", "forward on stream 2", "leave", "synchronize stream 2"]
    assert kit.state.events == 3 * [*one, "d2h", "d2h"]
    settings = kit.timing.Settings(0, 1, 0.0, 2, 1.0, 1.0, None)
    figures = kit.timing.summarise(kit.timing.measure(session, kit.batches(), settings))
    assert figures["utterances"] == 10 and figures["batches"] == 6


def check_warm_up_is_not_counted(kit):
    session, _ = kit.opened()
    settings = kit.timing.Settings(5, 1, 0.0, 1, 1.0, 1.0, None)
    times = kit.timing.measure(session, kit.batches(), settings)
    assert len(times) == 3 and forwards(kit) == 5 + 3
    # Each width has a file of its own to warm up.
    session, _ = kit.opened(1, [60, 76, 97])
    kit.timing.measure(session, kit.batches(1, [60, 76]), settings)
    assert forwards(kit) == 3 * 5 + 5


def forwards(kit):
    return sum(event.startswith("forward") for event in kit.state.events)


def check_compiler_arguments(kit):
    """The nine of the reference with its values, and any of them from the options."""
    _, folder, _ = kit.compiled()
    (call,) = kit.state.compiled
    assert list(folder.glob("*.pt"))
    assert set(call) == set(fake_ascend.REFERENCE_KEYWORDS)
    one, two = call["inputs"]
    assert (one.sizes, one.kind.name) == ((2, 1, BINS, kit.set.frames_max), "FLOAT")
    assert (two.sizes, two.kind.name) == ((2,), "INT32")
    assert call["precision_policy"].name == "FP16"
    assert call["truncate_long_and_double"] is True and call["require_full_compilation"] is False
    assert call["allow_tensor_replace_int"] is False and call["min_block_size"] == 3
    assert call["torch_executed_ops"] == [] and call["optimization_level"] == 0
    assert call["soc_version"] == "Ascend310P3"
    other = {
        "truncate_long_and_double": False, "require_full_compilation": True,
        "allow_tensor_replace_int": True, "min_block_size": 1,
        "torch_executed_ops": ["aten::softmax"], "optimization_level": 2,
        "soc_version": "Ascend910B4",
    }  # fmt: skip
    for name, value in other.items():
        kit.new_process()
        kit.compiled(options={name: value})
        assert kit.state.compiled[0][name] == value, name


def check_precision_policies(kit):
    pairs = {("fp16", None): "FP16", ("fp32", None): "FP32", ("fp32", "PREF_FP32"): "PREF_FP32"}
    if kit.flavour == "mindietorch":
        pairs["fp16", "PREF_FP16"] = "PREF_FP16"
    for (precision, policy), name in pairs.items():
        kit.new_process()
        kit.compiled(precision=precision, options={"precision_policy": policy})
        assert kit.state.compiled[0]["precision_policy"].name == name
    if kit.flavour == "torch_aie":
        kit.new_process()
        line = kit.error(kit.compiled, options={"precision_policy": "PREF_FP16"})
        assert "torch_aie has no precision_policy PREF_FP16" in line


def check_one_file_for_each_bucket(kit):
    buckets, widths = [60, 76], [60, 76, 97]
    assert kit.batches(1, buckets).widths() == widths
    assert kit.batches(2, buckets).widths() == widths
    assert kit.batches(5, buckets).widths() == [97]
    assert kit.batches(5, [60, 500]).widths() == [97]
    for form in network.FORMS:
        for size in (1, 2):
            session, _ = kit.opened(size, widths, form=form, buckets=buckets, precision="fp32")
            shapes = [call["inputs"][0].sizes for call in kit.state.before]
            assert shapes == [(size, 1, BINS, w) for w in widths]
            _same(kit.run(session, size, buckets), kit.expected(), 1e-5)
    session, _ = kit.opened(1, widths, buckets=buckets)
    times = [kit.timing.time_batch(session, kit.batches(1, buckets), n) for n in range(5)]
    assert [t.padded_frames for t in times] == [97, 97, 76, 60, 60]
    session, _ = kit.opened(1, [60, 76], buckets=buckets)
    assert "nothing was compiled for 97 frames, only for 60, 76" in kit.error(kit.run, session, 1)


def check_need_compile(kit):
    """Nothing is compiled ahead; a session compiles for every shape, once."""
    options = {"need_compile": True}
    _, folder, _ = kit.compiled(1, [50, 97], options=options)
    assert kit.state.events == ["set_device 0", "finalize"] and kit.state.compiled == []
    kit.new_process()
    backend = kit.backend(options=options, buckets=[50])
    backend.prepare()
    kit.state.unsupported_at = {50: {"aten::gather"}, 97: {"aten::lstm"}}
    session = backend.open(folder, 1)
    assert session.notes == {"left_to_torch": ["aten::gather", "aten::lstm"]}
    assert [call["inputs"][0].sizes[3] for call in kit.state.compiled] == [50, 97]
    _same(kit.run(session, 1, [50]), kit.expected(), 2e-2)
    assert len(kit.state.compiled) == 2


def check_finalized_once(kit):
    """At the end of each process, also after an error, and never before."""
    session, _ = kit.opened()
    kit.run(session)
    assert "finalize" not in kit.state.events
    session.close()
    assert kit.state.events[-1] == "finalize"
    kit.new_process()
    kit.compiled()
    assert kit.state.events[-1] == "finalize" and kit.state.events.index("save") > 0
    kit.new_process()
    _, folder, _ = kit.compiled()
    (folder / f"{kit.set.frames_max}.pt").write_bytes(b"broken")
    assert "cannot load it" in kit.error(kit.open_again, folder)
    assert kit.state.events[-1] == "finalize"
    # A plugin that has no finalize, or whose finalize fails, spoils nothing.
    for broken in (lambda: exec("raise RuntimeError('no')"), None):
        kit.new_process()
        backend, plugin = kit.backend(), sys.modules.get(kit.flavour)
        backend.prepare()
        plugin = sys.modules[kit.flavour]
        if broken:
            plugin.finalize = broken
        else:
            del plugin.finalize
        (kit.folder / str(broken)).mkdir()
        backend.compile(kit.source("static"), [Shape(1, BINS, 97)], kit.folder / str(broken))


def check_the_device_that_is_named(kit):
    session, _ = kit.opened(device="npu:1")
    assert kit.state.events[0] == "set_device 1"
    _same(kit.run(session), kit.expected(), 2e-2)
    kit.new_process()
    line = kit.error(kit.compiled, device="npu:7")
    assert "does not take the device npu:7" in line and "MIE07E000005" in line


def check_outputs_on_the_host_are_taken(kit):
    """What torch computed may be there already; the first versions of the plugin left it there."""
    session, _ = kit.opened(precision="fp32", form="packed")
    kit.state.outputs_on_cpu = True
    _same(kit.run(session), kit.expected(), 1e-5)
    assert "d2h" not in kit.state.events


def check_outputs_of_other_types_become_ours(kit):
    session, _ = kit.opened()
    kit.state.half_outputs = kit.state.long_lengths = True
    _same(kit.run(session), kit.expected(), 2e-2)
    _, lengths = session.download(session.forward(session.upload(*batch(kit, 0))))
    assert lengths.dtype == np.int32


def check_the_packed_output_is_as_long_as_its_longest(kit):
    """Not as long as the input: its second axis is taken as it comes."""
    session, _ = kit.opened(form="packed", precision="fp32")
    result = session.forward(session.upload(*batch(kit, 2)))
    session.synchronize()
    probabilities, lengths = session.download(result)
    assert probabilities.shape[1] == lengths.max() < (kit.set.frames_max - 1) // 2 + 1


def batch(kit, start):
    found = kit.batches().assemble(start)
    return found.spectrograms, found.lengths


def check_inputs_keep_their_types(kit):
    """Whatever the caller has: float32 and int32 reach the device."""
    session, _ = kit.opened(precision="fp32")
    spectrograms, lengths = batch(kit, 0)
    turned = np.asfortranarray(spectrograms.astype("f8"))
    _, x, n, _ = session.upload(turned, lengths.astype("i8"))
    assert (x.dtype, n.dtype) == (torch.float32, torch.int32)
    session.forward(session.upload(turned, lengths.astype("i8")))


def check_errors_are_one_line(kit):
    session, _ = kit.opened()
    spectrograms, lengths = batch(kit, 0)
    loaded = session.upload(spectrograms, lengths)
    done = session.forward(loaded)
    kit.state.device = None  # as if the device had gone
    for function, arguments in (
        (session.forward, (loaded,)),
        (session.synchronize, ()),
        (session.upload, (spectrograms, lengths)),
        (session.download, (done,)),
    ):
        line = kit.error(function, *arguments)
        assert "npu:0" in line and "MIE07E000005" in line and "\n" not in line
    kit.new_process()
    kit.state.unsupported = {"aten::lstm"}
    line = kit.error(kit.compiled, options={"require_full_compilation": True})
    assert "does not compile static.pt" in line and "aten::lstm" in line
    kit.new_process()
    save, fake_ascend.Compiled.save = fake_ascend.Compiled.save, lambda self, path: 1 / 0
    try:
        line = kit.error(kit.compiled)
    finally:
        fake_ascend.Compiled.save = save
    assert "does not save what it compiled (ZeroDivisionError: division by zero)" in line
    # The cause of a long one stands at its end.
    session, _ = kit.opened()
    module = next(iter(session.modules.values()))
    module.forward = lambda *_: exec(f"raise RuntimeError('{'9' * 2000} the cause')")
    line = kit.error(session.forward, session.upload(spectrograms, lengths))
    assert line.endswith("the cause)") and len(line) < 1000


def check_another_device_type_is_refused(kit):
    _, folder, _ = kit.compiled(options={"soc_version": "Ascend910B3"})
    options = {"soc_version": "Ascend910B3"}
    line = kit.error(kit.open_again, folder, options=options)
    assert "Ascend910B3 cannot run on Ascend310P3" in line
    session, _ = kit.opened(options={**options, "need_compile": True})
    assert "Ascend910B3 cannot run on Ascend310P3" in kit.error(kit.run, session)
    # Where npu-smi tells what the device is, nothing is compiled for another one.
    kit.new_process()
    smi, ascend.smi = ascend.smi, lambda: ("1", [ascend.Device(0, "910B4-1", "OK")])
    try:
        line = kit.error(kit.compiled)
        assert "soc_version is Ascend310P3, but npu:0 is an Ascend910B4-1; set engines." in line
        assert kit.state.compiled == []
    finally:
        ascend.smi = smi


def check_operators_left_to_torch_are_noted(kit):
    kit.state.unsupported = {"aten::lstm", "aten::gather", "aten::never"}
    _, _, notes = kit.compiled()
    assert notes == {"left_to_torch": ["aten::gather", "aten::lstm"]}
    kit.new_process()
    assert kit.compiled()[2] == {"left_to_torch": []}
    kit.new_process()
    kit.state.unsupported_at = {60: {"aten::gather"}, 97: {"aten::lstm"}}
    notes = kit.compiled(widths=[60, 97], buckets=[60])[2]
    assert notes == {"left_to_torch": ["aten::gather", "aten::lstm"]}
    kit.new_process()
    graph = fake_ascend.Compiled.inlined_graph
    try:
        del fake_ascend.Compiled.inlined_graph
        assert kit.compiled()[2] == {"left_to_torch": None}
    finally:
        fake_ascend.Compiled.inlined_graph = graph


def check_the_stand_in_is_marked(kit):
    _, backend = kit.opened()
    assert backend.fake is True
    figures = {"spread": 0.0, "batches": 100, "seconds": 100.0}
    settings = kit.timing.Settings(5, 10, 10.0, None, 0.2, 0.1, None)
    quiet = kit.timing.Conditions(0.0, 0.0, None)
    assert kit.timing.verdict(figures, settings, quiet, backend.fake)["verdict"] == "FAKE"
    smi, ascend.smi = ascend.smi, lambda: ("23.0", [ascend.Device(n, f"{n}", "OK") for n in (0, 1)])
    try:
        assert kit.backend(device="npu:1").versions().get("device") == "1"
        versions = backend.versions()
        assert (versions.get("device"), versions["driver"]) == ("0", "23.0")
    finally:
        ascend.smi = smi
    assert versions["torch"] == torch.__version__ and versions[kit.flavour] == "unknown"


WRONG = [
    ({"device": "cpu"}, "serves the devices npu:N, not 'cpu'"),
    ({"device": "npu"}, "serves the devices npu:N, not 'npu'"),
    ({"device": "npu:2000"}, "npu:2000"),
    ({"precision": "int8"}, "computes fp16 or fp32, not int8"),
    ({"padding": "batch"}, "padding must be longest; name buckets"),
    ({"options": {"precision_policy": "FP32"}}, "'FP32' does not go with precision fp16"),
    ({"precision": "fp32", "options": {"precision_policy": "FP16"}}, "choose FP32 or PREF_FP32"),
    (
        {"options": {"min_block_size": 1025}},
        "min_block_size 1025: must be a whole number from 0 to 1024",
    ),
    ({"options": {"min_block_size": True}}, "min_block_size True"),
    ({"options": {"optimization_level": 3}}, "optimization_level 3"),
    ({"options": {"truncate_long_and_double": 1}}, "truncate_long_and_double 1"),
    ({"options": {"require_full_compilation": "no"}}, "require_full_compilation 'no'"),
    ({"options": {"allow_tensor_replace_int": None}}, "allow_tensor_replace_int None"),
    ({"options": {"need_compile": 1}}, "need_compile 1"),
    ({"options": {"soc_version": "310P3"}}, "soc_version '310P3': must be a text that matches Asc"),
    ({"options": {"soc_version": 310}}, "soc_version 310"),
    ({"options": {"torch_executed_ops": "aten::lstm"}}, "torch_executed_ops 'aten::lstm'"),
    ({"options": {"torch_executed_ops": ["lstm"]}}, r"must be a list of texts that match \w+::"),
    ({"options": {"workspace": 1}}, "has no option 'workspace'; known are: precision_policy, trun"),
]


def check_settings_are_checked(kit):
    for changes, words in WRONG:
        line = kit.error(kit.backend, **changes)
        assert words in line and "\n" not in line, line


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]
CHECKS.sort(key=lambda check: check is not check_settings_are_checked)  # it takes no time
