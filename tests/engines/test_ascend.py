"""The backend torch_aie against a strict stand-in: its contract, and mistakes that break it."""

import importlib.util
import sys
from pathlib import Path

import fake_ascend
import pytest
import torch
from ascend_contract import CHECKS, FLAVOURS, Kit
from deepspeech2 import engines
from deepspeech2.cli import UserError
from deepspeech2.engines import run as loop
from deepspeech2.engines import timing, torch_aie, verdicts
from deepspeech2.engines.torch_aie import session
from deepspeech2.features import batches
from deepspeech2.model import network
from helpers import TINY, tiny_weights

MODULES = (timing, loop, batches)  # what a check gets in its kit


@pytest.fixture(scope="module")
def net():
    """A small network with random weights, eager."""
    made = network.DeepSpeech2(TINY, "packed")
    weights = {name: torch.from_numpy(value) for name, value in tiny_weights().items()}
    made.load_state_dict({**made.state_dict(), **weights})
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """A folder for the traces of the network, which all tests share."""
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(autouse=True)
def undo(monkeypatch):
    """The plugin's names and the clock are as before after each test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(timing, "time", timing.time)
    yield
    fake_ascend.reset("torch_aie")


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, flavour, tmp_path, net, traces):
    check(Kit(flavour, tmp_path, net, MODULES, traces))


# Deliberate mistakes: the check that notices, the module, what stands there, and what instead.
LOADED_TOO_EARLY = """        with quiet():
            torch.jit.load(str(next(folder.glob("*.pt"))))
        self.prepare()
        modules = {}
        try:
            for shape in (Shape"""
CLOCK_STOPPED_EARLY = "    t3 = clock()\n    session.synchronize()"
CLOCK_STARTED_LATE = "    result = session.forward(on_device)\n    t2 = clock()"
FILL_UP_ROWS_KEPT = """for row in range(batches.batch_size):
            position = positions[min(row, len(positions) - 1)]"""
MISTAKES = [
    ("posteriors_are_the_networks", session, "n.to(torch.int32)", "n.to(torch.int64)"),
    ("posteriors_are_the_networks", session, "x.to(torch.float32)", "x.to(torch.float64)"),
    ("posteriors_are_the_networks", torch_aie,
     "dtype=plugin.dtype.INT32", "dtype=plugin.dtype.INT64"),
    ("posteriors_are_the_networks", torch_aie, ", dtype=plugin.dtype.INT32", ""),
    ("posteriors_are_the_networks", torch_aie,
     "dtype=plugin.dtype.FLOAT)", "dtype=plugin.dtype.FLOAT16)"),
    ("posteriors_are_the_networks", torch_aie,
     "[batch, 1, bins, frames]", "[1, 1, bins, frames]"),
    ("posteriors_are_the_networks", torch_aie,
     "[batch, 1, bins, frames]", "[batch, 1, frames, bins]"),
    ("order_of_events", session, "            self.stream.synchronize()", "            pass"),
    ("inputs_keep_their_types", session, "torch.float32).contiguous()", "torch.float32)"),
    ("posteriors_are_the_networks", session,
     "x.to(torch.float32).contiguous().to(self.device)",
     "x.to(torch.float32).contiguous().to(self.device, non_blocking=True)"),
    ("rows_come_back_in_their_order", session,
     "x, n = x[order], n[order]", "x, n = x[order], n"),
    ("rows_come_back_in_their_order", session, "x, n = x[order], n[order]", "pass"),
    ("rows_come_back_in_their_order", session,
     "probabilities[unsort], lengths[unsort]", "probabilities, lengths[unsort]"),
    ("rows_come_back_in_their_order", session,
     "probabilities[unsort], lengths[unsort]", "probabilities[unsort], lengths"),
    ("rows_come_back_in_their_order", torch_aie, 'form == "packed"', 'form == "static"'),
    ("posteriors_are_the_networks", torch_aie, "self.plugin.set_device(self._number())", "pass"),
    ("the_device_that_is_named", torch_aie, "set_device(self._number())", "set_device(0)"),
    ("posteriors_are_the_networks", torch_aie,
     "set_device(self._number())", "set_device(self.engine.device)"),
    ("the_stand_in_is_marked", torch_aie,
     "d.number == self._number()), None),", "d.number == 7), None),"),
    ("another_device_type_is_refused", torch_aie, "if device and", "if False and"),
    ("order_of_events", session,
     "npu.stream(self.stream)", "npu.stream(self.plugin.npu.Stream(self.device))"),
    ("order_of_events", session, "plugin.npu.Stream(device)", "plugin.npu.default_stream()"),
    ("order_of_events", session,
     "with errors, self.plugin.npu.stream(self.stream):", "with errors:"),
    ("posteriors_are_the_networks", torch_aie, "POLICIES[self.engine.precision][0]", "'FP32'"),
    ("precision_policies", torch_aie, 'self._option("precision_policy") or POLICIES', "POLICIES"),
    ("compiler_arguments", torch_aie,
     "**{name: self._option(name) for name in ARGUMENTS}",
     "**{name: ARGUMENTS[name].default for name in ARGUMENTS}"),
    ("compiler_arguments", torch_aie,
     "in ARGUMENTS},", "in ARGUMENTS if name != 'min_block_size'},"),
    ("compiler_arguments", torch_aie, '"min_block_size": Option(3', '"min_block_size": Option(1'),
    ("compiler_arguments", torch_aie,
     '"optimization_level": Option(0', '"optimization_level": Option(1'),
    ("compiler_arguments", torch_aie,
     '"allow_tensor_replace_int": Option(False', '"allow_tensor_replace_int": Option(True'),
    ("need_compile", torch_aie,
     'if self._option("need_compile"):\n                shutil', "if False:\n                x"),
    ("need_compile", torch_aie,
     'if self._option("need_compile"):\n                session.notes',
     "if False:\n                session.notes"),
    ("finalized_once", torch_aie,
     "finally:\n            finalize(self.plugin)\n", "finally:\n            pass\n"),
    ("finalized_once", torch_aie,
     "except BaseException:\n            finalize(self.plugin)", "except OSError:"),
    ("finalized_once", session,
     "        self.modules = {}\n        finalize(self.plugin)", "        pass"),
    ("finalized_once", session,
     '        log.info("%s: finalize failed', '        raise\n        log.info("%s: f'),
    ("posteriors_are_the_networks", session, 'x.to("cpu") for', 'x.to("cpu")[:, :40] for'),
    ("outputs_of_other_types_become_ours", session,
     "probabilities.to(torch.float32).numpy()", "probabilities.numpy()"),
    ("outputs_of_other_types_become_ours", session,
     "lengths.to(torch.int32).numpy()", "lengths.numpy()"),
    ("warm_up_is_not_counted", session,
     "self.modules[frames], x", "next(iter(self.modules.values())), x"),
    ("warm_up_is_not_counted", torch_aie,
     'path = folder / f"{shape.frames}.pt"', 'path = min(folder.glob("*.pt"))'),
    ("need_compile", session,
     "            for inner in node.blocks():\n                visit(inner)\n", ""),
    ("need_compile", session, "for module in modules:", "for module in list(modules)[:1]:"),
    ("the_stand_in_is_marked", torch_aie, '"__fake__"', '"fake"'),
    ("errors_are_one_line", session,
     'except Exception as error:\n        log.info("%s", traceback',
     'except OSError as error:\n        log.info("%s", traceback'),
    ("errors_are_one_line", session, "text[-400:]", "text[200:300]"),
    ("finalized_once", torch_aie,
     "        modules = {}\n        try:\n            for shape in (Shape", LOADED_TOO_EARLY),
    ("settings_are_checked", engines, "self.low <= value <= self.high", "value <= self.high + 1"),
    ("settings_are_checked", engines, "type(value) is not kind", "not isinstance(value, kind)"),
    ("settings_are_checked", engines, "options[name].check(", "(options[name], "),
    ("settings_are_checked", torch_aie, 'if engine.padding == "batch":', "if False:"),
    ("order_of_events", timing,
     "    session.synchronize()\n    t3 = clock()", CLOCK_STOPPED_EARLY),
    ("order_of_events", timing,
     "    t2 = clock()\n    result = session.forward(on_device)", CLOCK_STARTED_LATE),
    ("order_of_events", timing, "    t2 = clock()\n", "    t2 = t1\n"),
    ("order_of_events", timing,
     "    session.download(result)\n    t4 = clock()", "    t4 = clock()"),
    ("order_of_events", timing, "        len(real),", "        batches.batch_size,"),
    ("warm_up_is_not_counted", timing,
     "in batches.warm_up(one_pass, settings.warmup_batches)", "in []"),
    ("fill_up_rows_do_not_count", loop, "        session.synchronize()\n", ""),
    ("posteriors_are_the_networks", loop,
     "for row, position in enumerate(positions):", FILL_UP_ROWS_KEPT),
    ("one_file_for_each_bucket", batches, "if b >= longest", "if b > longest"),
    ("warm_up_is_not_counted", batches, "if b >= longest] +", "] +"),
    ("one_file_for_each_bucket", batches, "max(self.frames(start))", "min(self.frames(start))"),
    ("warm_up_is_not_counted", batches, "if isinstance(self.padding, str):", "if True:"),
    ("the_stand_in_is_marked", verdicts, "if fake:", "if False:"),
]  # fmt: skip


def mutant(module, old, new):
    """The module with a mistake in it, as a module of the same name that nobody else imports."""
    text = Path(module.__file__).read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {module.__name__}"
    made = importlib.util.module_from_spec(module.__spec__)
    exec(compile(text.replace(old, new), module.__file__, "exec"), made.__dict__)
    return made


@pytest.fixture
def run_mutant(tmp_path, net, traces, monkeypatch):
    """Runs a check on the code with a mutant of one module in it."""

    def run(check, module, old, new, flavour):
        made = mutant(module, old, new)
        if module in (torch_aie, session):  # imported where they are used
            monkeypatch.setitem(sys.modules, module.__name__, made)
        elif module is engines:
            monkeypatch.setattr(engines.Option, "check", made.Option.check)
            monkeypatch.setattr(engines, "create", made.create)
        elif module is verdicts:
            monkeypatch.setattr(timing, "verdict", made.verdict)
        modules = [made if one is module else one for one in MODULES]
        check = next(found for found in CHECKS if found.__name__ == f"check_{check}")
        check(Kit(flavour, tmp_path, net, modules, traces))

    return run


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("check", "module", "old", "new"), MISTAKES)
def test_mistakes_are_caught(check, module, old, new, flavour, run_mutant):
    """The check passes on the code as it is (test_contract) and not on the code with a mistake."""
    with pytest.raises((AssertionError, UserError, RuntimeError, ValueError, TypeError)):
        run_mutant(check, module, old, new, flavour)


@pytest.mark.parametrize(
    ("check", "module"), {mistake[1]: mistake[:2] for mistake in MISTAKES}.values()
)
def test_a_copy_without_a_mistake_passes(check, module, run_mutant):
    """So what is caught is the mistake, not that the module is a copy."""
    run_mutant(check, module, "import annotations", "import annotations", FLAVOURS[0])
