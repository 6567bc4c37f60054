"""The backend `native`'s code for Arm, as LLVM writes it on any machine. None of it runs here."""

import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from deepspeech2.engines.native import instructions, layout, packing, tiles
from deepspeech2.model.architecture import CHANNELS, KERNELS
from llvmlite import ir

# Of each sequence: what multiplies, and how often for four columns of a row and 32 bits of inputs.
INSTRUCTIONS = {
    ("int8", "usdot"): ("usdot", 1),
    ("int8", "sdot"): ("sdot", 1),
    ("int8", "smlal"): ("smlal", 4),
    ("bf16", "bfmlal"): ("bfmlal", 2),
    ("bf16", "fma"): ("fmla", 2),
    ("fp32", "fma"): ("fmla", 1),
}
DTYPES = {name: dtype for dtype, name in tiles.PRECISIONS.items()}
SEQUENCES = {
    f"{precision} {one.name}": (precision, one)
    for precision, several in instructions.SEQUENCES.items()
    for one in several
    if "neon" in one.features
}


def assembly(precision, chosen, width, monkeypatch):
    """AArch64's instructions for a tile of layout.ROWS rows, and its labels: lines."""
    monkeypatch.setattr(tiles, "sequence", lambda _: chosen)
    module = ir.Module()
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 8)
    function = ir.Function(module, kind, "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    tiles._multiply(builder, DTYPES[precision], layout.ROWS, width, True, function.args)
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(
        features=",".join(f"+{name}" for name in chosen.features), opt=3
    )
    parsed = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(3))
    passes.getModulePassManager().run(parsed, passes)
    return [line for line in machine.emit_assembly(parsed).split("\n") if line[:2] != "\t."]


def innermost_loops(lines):
    """The lines from each label to a jump back to it, without a label between."""
    label, start = "", 0
    for n, line in enumerate(lines):
        if found := re.match(r"(\.L\w+):", line):
            label, start = found[1], n
        elif line.startswith("\tb.") and line.endswith(f"\t{label}"):
            yield lines[start : n + 1]


@pytest.mark.parametrize("width", [layout.PANEL_VECTORS, layout.CONV_VECTORS])
@pytest.mark.parametrize("name", SEQUENCES)
def test_sums_stay_in_registers(name, width, monkeypatch):
    precision, chosen = SEQUENCES[name]
    instruction, times = INSTRUCTIONS[precision, chosen.dot]
    count = 0
    for loop in innermost_loops(assembly(precision, chosen, width, monkeypatch)):
        products = sum(line.startswith(f"\t{instruction}") for line in loop)
        assert not products or not [line for line in loop if "[sp" in line]
        count += products
    assert count == layout.ROWS * width * layout.LANES // 4 * times


def test_llvm_is_told_what_it_does_not_list(monkeypatch):
    monkeypatch.setattr(instructions, "get_host_cpu_features", lambda: "+neon,-sve")
    (dotprod,) = (one for name, (_, one) in SEQUENCES.items() if name == "int8 NEON DotProd")
    assert instructions.target_features(dotprod) == "+neon,-sve,+dotprod"
    monkeypatch.setattr(instructions, "get_host_cpu_features", lambda: "+neon,+dotprod")
    assert instructions.target_features(dotprod) == ""


def test_a_session_adds_what_the_offset_takes():
    """128 times the sum of the weights: in a convolution, of those in any run of bins."""
    random, arrays = np.random.default_rng(0), {}
    shapes = {"conv.1": (CHANNELS, KERNELS[1][0], 8), "rnn.0.0.input": (2 * layout.PANEL, 1, 16)}
    elements = {part: random.integers(-127, 128, shape) for part, shape in shapes.items()}
    for part, vectors in (("conv.1", layout.CONV_VECTORS), ("rnn.0.0.input", layout.PANEL_VECTORS)):
        packed = packing.interleave(elements[part].astype(np.int8), "int8", vectors)
        arrays |= {f"{part}.weights": packed, f"{part}.scale": None, f"{part}.shift": None}
        arrays[f"{part}.zero"] = np.full(len(elements[part]), 7 * part.startswith("rnn"), np.int32)
    for offset in (0, 128):
        parts = packing.unpack(arrays, offset)
        sums = {part: offset * values.sum(axis=2) for part, values in elements.items()}
        zero = parts["conv.1"].zero
        assert (zero[17] - zero[3] == sums["conv.1"][:, 3:17].sum(axis=1)).all()
        assert (zero[21] - zero[0] == sums["conv.1"].sum(axis=1)).all()
        assert (parts["rnn.0.0.input"].zero == 7 + sums["rnn.0.0.input"][:, 0]).all()
        assert all(record.zero.dtype == np.int32 for record in parts.values())
