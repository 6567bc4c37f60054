"""The backend `native`'s code for Arm, as LLVM writes it on any machine. None of it runs here."""

import re

import llvmlite.binding as llvm
import pytest
from deepspeech2.engines.native import instructions, layout, tiles
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
