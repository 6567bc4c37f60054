"""The product of some rows of activations with some vectors of weights, for numba.

The type of the stored activations decides the instruction: uint8 with int8 weights (four products a
lane, VNNI), bfloat16 as uint16 (two), float32 (one). CPUs without such an instruction get the same
by others.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from deepspeech2.engines.native import vectors
from deepspeech2.engines.native.layout import LANES, TILE_ROWS, VECTOR
from deepspeech2.engines.native.vectors import FLOATS, I32, I64, INTS, Vector, call, load, spread


class _BFloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash("bfloat")


def _prefetch(builder, address, write, cache):
    """Have the cache line there brought to the first (3) or second (2) cache."""
    place = builder.inttoptr(address, ir.PointerType(ir.IntType(8)))
    how = (ir.Constant(I32, number) for number in (write, cache, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), place, *how)


def _dot(builder, dtype, total, a, w):
    """`total` plus the products of the 32-bit lanes of a and w, in their smaller elements."""

    def lanes(value):
        return ir.Constant(INTS, [value] * LANES)

    if dtype == types.uint8:
        if vectors.HAS_VNNI:
            kind = ir.VectorType(ir.IntType(8), 4 * LANES)
            a, w = builder.bitcast(a, kind), builder.bitcast(w, kind)
            return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, total, a, w)
        for byte in range(4):
            left = builder.and_(builder.lshr(a, lanes(8 * byte)), lanes(255))
            right = builder.ashr(builder.shl(w, lanes(24 - 8 * byte)), lanes(24))
            total = builder.add(total, builder.mul(left, right))
        return total
    if dtype == types.uint16 and vectors.HAS_BF16:
        kind = ir.VectorType(_BFloat(), 2 * LANES)
        a, w = builder.bitcast(a, kind), builder.bitcast(w, kind)
        return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, total, a, w)
    pairs = [(a, w)]
    if dtype == types.uint16:
        high = lanes(0xFFFF0000)
        pairs = [
            (builder.shl(a, lanes(16)), builder.shl(w, lanes(16))),
            (builder.and_(a, high), builder.and_(w, high)),
        ]
    for left, right in pairs:
        left, right = builder.bitcast(left, FLOATS), builder.bitcast(right, FLOATS)
        total = call(builder, f"llvm.fma.v{LANES}f32", FLOATS, left, right, total)
    return total


def _multiply(builder, dtype, count, width, fetching, args):
    """A tile of `count` rows with `width` vectors of weights, see `tile`."""
    out, a, offsets, weights, groups, segments, step, upcoming = args
    kind = INTS if dtype == types.uint8 else FLOATS

    def number(value):
        return ir.Constant(I64, value)

    totals = [cgutils.alloca_once(builder, kind) for _ in range(count * width)]
    for total in totals:
        builder.store(ir.Constant(kind, None), total)
    starts = []
    for m in range(count):
        place = builder.add(offsets, number(8 * m))
        starts.append(builder.add(a, load(builder, place, I64, 8)))
    with cgutils.for_range(builder, segments, intp=I64) as segment:
        skip = builder.mul(segment.index, step)
        rows_at = [builder.add(start, skip) for start in starts]
        first = builder.mul(segment.index, groups)
        with cgutils.for_range(builder, groups, intp=I64) as group:
            number_of = builder.add(first, group.index)
            at = builder.add(weights, builder.mul(number_of, number(VECTOR * width)))
            panel = [Vector.load(builder, at, v, INTS).value for v in range(width)]
            ahead = builder.shl(group.index, number(2))
            if fetching:
                line = builder.mul(number_of, number(VECTOR))
                _prefetch(builder, builder.add(upcoming, line), 0, 2)
            for m in range(count):
                four = load(builder, builder.add(rows_at[m], ahead), I32, 1)
                lane = spread(builder, four, INTS)
                for v, total in enumerate(totals[m * width : (m + 1) * width]):
                    dot = _dot(builder, dtype, builder.load(total), lane, panel[v])
                    builder.store(dot, total)
    for number_of, total in enumerate(totals):
        Vector(builder, builder.load(total)).store(out, number_of)


@intrinsic(prefer_literal=True)
def tile(typing, rows, width, like, out, a, offsets, weights, groups, segments, step, upcoming):
    """out[m, v] = sum over segments s and groups k of a[offsets[m] + s * step + 4 k] * weights.

    Rows are rounded up to one of layout.TILE_ROWS. Addresses and distances are in bytes. `out` gets
    (rows, width, LANES) of 32 bits; `weights` are (segments, groups, width) vectors; `like` is
    any array of the activations' type. Each group has the cache brought one line of what is at
    `upcoming`, unless that is a plain 0.
    """
    if not isinstance(width, types.IntegerLiteral):
        return None
    fetching = not isinstance(upcoming, types.IntegerLiteral)

    def codegen(context, builder, signature, args):
        def choose(counts):
            """The least of the counts, which are in falling order, that is enough."""
            if len(counts) == 1:
                _multiply(builder, like.dtype, counts[0], width.literal_value, fetching, args[3:])
                return
            more = builder.icmp_signed(">", args[0], ir.Constant(I64, counts[1]))
            with builder.if_else(more) as (then, otherwise):
                with then:
                    choose(counts[:1])
                with otherwise:
                    choose(counts[1:])

        # With a stack of its own: vectors that do not fit in registers lie in one cache line each.
        builder.function.attributes.add("noinline")
        builder.function.attributes.alignstack = VECTOR
        choose(TILE_ROWS[width.literal_value][::-1])
        return context.get_dummy_value()

    return types.void(types.intp, width, like, *[types.intp] * 7, upcoming), codegen


@intrinsic(prefer_literal=True)
def fetch(typing, address, lines, write):
    """Have so many cache lines brought near; `write` is 1 where they will be written to."""
    if not isinstance(lines, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        for line in range(lines.literal_value):
            place = builder.add(args[0], ir.Constant(I64, VECTOR * line))
            _prefetch(builder, place, write.literal_value, 3)
        return context.get_dummy_value()

    return types.void(types.intp, lines, write), codegen
