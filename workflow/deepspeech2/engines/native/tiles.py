"""The product of some rows of activations with some vectors of weights, for numba.

The type of the stored activations decides what is multiplied: uint8 with int8 weights (four
products a lane), bfloat16 as uint16 (two), float32 (one). With which instructions, how much of a
tile at a time, and less which offset, says the CPU's instructions.Sequence.
"""

from __future__ import annotations

from typing import ClassVar

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from deepspeech2.engines.native import amx, layout
from deepspeech2.engines.native.instructions import sequence, target_features
from deepspeech2.engines.native.layout import LANES, PANEL_VECTORS, PER_LANE, TILE_ROWS, VECTOR
from deepspeech2.engines.native.vectors import I32, I64, call, load


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


def _splat(builder, value, count):
    """A vector with so many of `value`."""
    kind = ir.VectorType(value.type, count)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
    mask = ir.Constant(ir.VectorType(I32, count), [0] * count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def _every(builder, vector, start, step, count):
    """`count` elements of a vector, from `start` on, so far apart."""
    places = [start + step * n for n in range(count)]
    mask = ir.Constant(ir.VectorType(I32, count), places)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


class _Dot:
    """An instruction: what it takes of weights and activations, and what it adds to the sums.

    Weights come as <lanes x i32>, activations as the i32 that all lanes are multiplied with. Each
    is made into as many operands, which are added one after the other. What is made of weights
    serves all rows of a tile, what is made of activations all its vectors.
    """

    total: ClassVar = I32
    group = 4  # bytes of an activation's operands where they lie
    wide: ClassVar = None  # what takes them as `widen` leaves them instead

    def __init__(self, builder, lanes, bits):
        self.builder, self.lanes, self.bits = builder, lanes, bits
        self.sums = ir.VectorType(self.total, lanes)

    def _numbers(self, value, bits=32):
        """A constant that is as large as the weights."""
        kind = ir.VectorType(ir.IntType(bits), self.lanes * 32 // bits)
        return ir.Constant(kind, [value] * kind.count)

    def weights(self, w):
        return [w]

    def activations(self, a):
        return self.weights(_splat(self.builder, a, self.lanes))

    def activation(self, address, number):
        """The operand of that number of what lies there."""
        return self.activations(load(self.builder, address, I32, 1))[number]

    def add(self, total, a, w):
        raise NotImplementedError

    def finish(self, total):
        """The sums of all lanes."""
        return total

    def in_parts(self, name, result, *args):
        """A function of the CPU's for vectors of `bits`, called for all parts of larger ones."""
        bits = result.element.width if isinstance(result.element, ir.IntType) else 32
        count = max(1, bits * result.count // self.bits)
        parts = []
        for part in range(count):
            sizes = [arg.type.count // count for arg in args]
            given = [_every(self.builder, x, part * n, 1, n) for x, n in zip(args, sizes)]
            kind = ir.VectorType(result.element, result.count // count)
            parts.append(call(self.builder, name, kind, *given))
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2])
            parts = [self._joined(left, right) for left, right in pairs]
        return parts[0]

    def _joined(self, left, right):
        size = 2 * left.type.count
        mask = ir.Constant(ir.VectorType(I32, size), list(range(size)))
        return self.builder.shuffle_vector(left, right, mask)


class _VNNI(_Dot):
    def add(self, total, a, w):
        kind = ir.VectorType(ir.IntType(8), 4 * self.lanes)
        args = total, *(self.builder.bitcast(x, kind) for x in (a, w))
        return self.in_parts(f"llvm.x86.avx512.vpdpbusd.{self.bits}", self.sums, *args)


class _Pairs(_Dot):
    """Bytes as 16-bit numbers, of which pairs are summed: two sums for a lane. None is clipped."""

    functions: ClassVar = {512: "llvm.x86.avx512.pmaddw.d.512", 256: "llvm.x86.avx2.pmadd.wd"}

    def __init__(self, builder, lanes, bits):
        super().__init__(builder, lanes, bits)
        self.sums = ir.VectorType(I32, 2 * lanes)

    def _bytes(self, value):
        return self.builder.bitcast(value, ir.VectorType(ir.IntType(8), 4 * value.type.count))

    @staticmethod
    def widen(builder, four):
        """16 bytes as 16-bit numbers."""
        few = builder.bitcast(four, ir.VectorType(ir.IntType(8), 16))
        return builder.zext(few, ir.VectorType(ir.IntType(16), 16))

    def weights(self, w):
        return [self.builder.sext(self._bytes(w), ir.VectorType(ir.IntType(16), 4 * self.lanes))]

    def activations(self, a):
        count = self.bits // 16
        few = self._bytes(_splat(self.builder, a, count // 4))
        return [self.builder.zext(few, ir.VectorType(ir.IntType(16), count))]

    def add(self, total, a, w):
        while a.type.count < w.type.count:
            a = self._joined(a, a)
        made = self.in_parts(self.functions[self.bits], self.sums, a, w)
        return self.builder.add(total, made)

    def finish(self, total):
        even, odd = (_every(self.builder, total, n, 2, self.lanes) for n in (0, 1))
        return self.builder.add(even, odd)


class _WidePairs(_Pairs):
    group = 8

    def activation(self, address, number):
        few = _splat(self.builder, load(self.builder, address, I64, 8), self.bits // 64)
        return self.builder.bitcast(few, ir.VectorType(ir.IntType(16), self.bits // 16))


_Pairs.wide = _WidePairs


class _Plain(_Dot):
    """The four bytes of a lane one after the other, on any CPU."""

    def weights(self, w):
        left = [self.builder.shl(w, self._numbers(24 - 8 * byte)) for byte in range(4)]
        return [self.builder.ashr(x, self._numbers(24)) for x in left]

    def activations(self, a):
        a = _splat(self.builder, a, self.lanes)
        right = [self.builder.lshr(a, self._numbers(8 * byte)) for byte in range(4)]
        return [self.builder.and_(x, self._numbers(255)) for x in right]

    def add(self, total, a, w):
        return self.builder.add(total, self.builder.mul(a, w))


class _USDot(_Dot):
    function: ClassVar = "llvm.aarch64.neon.usdot.v4i32.v16i8"

    def add(self, total, a, w):
        kind = ir.VectorType(ir.IntType(8), 4 * self.lanes)
        args = total, *(self.builder.bitcast(x, kind) for x in (a, w))
        return self.in_parts(self.function, self.sums, *args)


class _SDot(_USDot):
    """Of bytes with signs: activations less 128, the sequence's offset."""

    function: ClassVar = "llvm.aarch64.neon.sdot.v4i32.v16i8"

    def activations(self, a):
        return super().activations(self.builder.xor(a, ir.Constant(I32, 0x80808080)))


class _Longer(_Plain):
    """As 16-bit numbers, whose products are 32-bit numbers: one instruction adds four of them."""

    def weights(self, w):
        kind = ir.VectorType(ir.IntType(16), self.lanes)
        return [self.builder.trunc(x, kind) for x in super().weights(w)]

    def activations(self, a):
        few = self.builder.bitcast(a, ir.VectorType(ir.IntType(8), 4))
        few = self.builder.zext(few, ir.VectorType(ir.IntType(16), 4))
        return [_every(self.builder, few, byte, 0, self.lanes) for byte in range(4)]

    def add(self, total, a, w):
        made = self.in_parts("llvm.aarch64.neon.smull.v4i32", self.sums, a, w)
        return self.builder.add(total, made)


class _BFloats(_Dot):
    total = ir.FloatType()

    def add(self, total, a, w):
        kind = ir.VectorType(_BFloat(), 2 * self.lanes)
        args = total, *(self.builder.bitcast(x, kind) for x in (a, w))
        return call(self.builder, f"llvm.x86.avx512bf16.dpbf16ps.{self.bits}", self.sums, *args)


class _BFloatsLonger(_Dot):
    """The higher bfloat16 of a lane first, as vdpbf16ps adds them."""

    total = ir.FloatType()

    def add(self, total, a, w):
        kind = ir.VectorType(_BFloat(), 2 * self.lanes)
        args = [self.builder.bitcast(x, kind) for x in (a, w)]
        for half in "tb":
            total = self.in_parts(f"llvm.aarch64.neon.bfmlal{half}", self.sums, total, *args)
        return total


class _FMA(_Dot):
    total = ir.FloatType()

    def weights(self, w):
        return [self.builder.bitcast(w, self.sums)]

    def add(self, total, a, w):
        return call(self.builder, f"llvm.fma.v{self.lanes}f32", self.sums, a, w, total)


class _WidenedFMA(_FMA):
    """The two bfloat16 of a lane as float32: such have the same bits, with zeros behind.

    The higher one comes first, as vdpbf16ps adds them: the sums are the same bits.
    """

    def weights(self, w):
        return [self.builder.bitcast(x, self.sums) for x in self.halves(self.builder, w)]

    @staticmethod
    def halves(builder, pairs):
        """The higher and the lower bfloat16 of each i32, in the bits of a float32."""
        high = builder.and_(pairs, ir.Constant(pairs.type, [0xFFFF0000] * pairs.type.count))
        return high, builder.shl(pairs, ir.Constant(pairs.type, [16] * pairs.type.count))

    @classmethod
    def widen(cls, builder, four):
        """Eight bfloat16 as float32, the higher of each i32 first."""
        order = [n + 4 * half for n in range(4) for half in range(2)]
        mask = ir.Constant(ir.VectorType(I32, 8), order)
        return builder.shuffle_vector(*cls.halves(builder, four), mask)


class _WideFMA(_WidenedFMA):
    group = 8

    def activation(self, address, number):
        place = self.builder.add(address, ir.Constant(I64, 4 * number))
        return _splat(self.builder, load(self.builder, place, ir.FloatType(), 4), self.lanes)


_WidenedFMA.wide = _WideFMA


AMX = "tdpbusd"
# By what instructions.Sequence calls the instruction, and the size of stored activations.
DOTS = {
    ("vpdpbusd", 1): _VNNI, ("vpmaddwd", 1): _Pairs, ("plain", 1): _Plain,
    (AMX, 1): _VNNI,  # of the few rows that AMX is not worth it for
    ("usdot", 1): _USDot, ("sdot", 1): _SDot, ("smlal", 1): _Longer,
    ("vdpbf16ps", 2): _BFloats, ("bfmlal", 2): _BFloatsLonger,
    ("fma", 2): _WidenedFMA, ("fma", 4): _FMA,
}  # fmt: skip
PRECISIONS = {types.uint8: "int8", types.uint16: "bf16", types.float32: "fp32"}


def _parts(count, most):
    """Ranges of at most so many, and of about as many each, that make up `count`."""
    number = -(-count // most)
    return [range(count * n // number, count * (n + 1) // number) for n in range(number)]


def _multiply(builder, dtype, count, width, fetching, args):
    """A tile of `count` rows with `width` vectors of weights, see `tile`."""
    precision = PRECISIONS[dtype]
    chosen = sequence(precision)
    lanes, kind = min(LANES, chosen.columns), DOTS[chosen.dot, 4 // PER_LANE[precision]]
    # Worth it where rows do not overlap, as those of a convolution do.
    wide = kind.wide if width == PANEL_VECTORS else None
    dot = (wide or kind)(builder, lanes, chosen.bits)
    _, a, stride, _, groups, *_ = args
    for rows in _parts(count, chosen.rows):
        starts = [builder.add(a, builder.mul(stride, ir.Constant(I64, m))) for m in rows]
        if wide:
            starts = [_widened(builder, dot, start, groups) for start in starts]
        for pieces in _parts(width * LANES // lanes, chosen.columns // lanes):
            first = fetching and rows.start == pieces.start == 0
            _multiply_part(builder, dot, rows, starts, pieces, width, first, args)


def _widened(builder, dot, start, groups):
    """A row's activations as the instruction takes them, eight bytes a group: their address.

    They are made once for all weights of the tile. A row has whole vectors, of four groups each.
    """
    vectors = builder.lshr(groups, ir.Constant(I64, 2))
    memory = builder.alloca(ir.ArrayType(I64, 4), vectors)
    memory.align = VECTOR
    to = builder.ptrtoint(memory, I64)
    with cgutils.for_range(builder, vectors, intp=I64) as vector:
        place = builder.add(start, builder.shl(vector.index, ir.Constant(I64, 4)))
        made = dot.widen(builder, load(builder, place, ir.VectorType(I32, 4), 1))
        place = builder.add(to, builder.shl(vector.index, ir.Constant(I64, 5)))
        builder.store(made, builder.inttoptr(place, ir.PointerType(made.type))).align = 32
    return to


def _multiply_part(builder, dot, rows, starts, pieces, width, fetching, args):
    """What of a tile is in registers at a time: some rows by pieces of dot.lanes columns."""
    out, _, _, weights, groups, segments, step, upcoming = args
    kind, piece = ir.VectorType(I32, dot.lanes), 4 * dot.lanes  # bytes

    def number(value):
        return ir.Constant(I64, value)

    totals = [[cgutils.alloca_once(builder, dot.sums) for _ in pieces] for _ in rows]
    for row in totals:
        for total in row:
            builder.store(ir.Constant(dot.sums, None), total)
    with cgutils.for_range(builder, segments, intp=I64) as segment:
        skip = builder.mul(segment.index, step)
        rows_at = [builder.add(start, skip) for start in starts]
        first = builder.mul(segment.index, groups)
        with cgutils.for_range(builder, groups, intp=I64) as group:
            number_of = builder.add(first, group.index)
            at = builder.add(weights, builder.mul(number_of, number(VECTOR * width)))
            places = [builder.add(at, number(piece * n)) for n in pieces]
            panel = [dot.weights(load(builder, place, kind, 4)) for place in places]
            ahead = builder.mul(group.index, number(dot.group))
            if fetching:
                line = builder.mul(number_of, number(VECTOR))
                _prefetch(builder, builder.add(upcoming, line), 0, 2)
            # One operand of all rows after the other: its weights alone need registers.
            for n in range(len(panel[0])):
                for row_at, row in zip(rows_at, totals):
                    a = dot.activation(builder.add(row_at, ahead), n)
                    for w, total in zip(panel, row):
                        builder.store(dot.add(builder.load(total), a, w[n]), total)
    for m, row in zip(rows, totals):
        for n, total in zip(pieces, row):
            made = dot.finish(builder.load(total))
            place = builder.add(out, number(VECTOR * width * m + piece * n))
            kind = ir.PointerType(made.type)
            builder.store(made, builder.inttoptr(place, kind)).align = 4


def rows_of(chosen, width):
    """How many rows a tile of `width` vectors takes at most, computed by a sequence."""
    return layout.AMX_ROWS if chosen.dot == AMX else TILE_ROWS[width][-1]


@intrinsic(prefer_literal=True)
def most_rows(typing, width, like):
    """`rows_of` the sequence for the type of the array `like`, in numba's code."""
    if not isinstance(width, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        return ir.Constant(I64, rows_of(sequence(PRECISIONS[like.dtype]), width.literal_value))

    return types.int64(width, like), codegen


@intrinsic(prefer_literal=True)
def tile(typing, rows, width, like, out, a, stride, weights, groups, segments, step, upcoming):
    """out[m, v] = sum over segments s and groups k of a[m * stride + s * step + 4 k] * weights.

    From each activation the offset of the CPU's instructions.Sequence is taken first.
    There are at most `most_rows`, rounded up to one of layout.TILE_ROWS if AMX does not take them.
    Addresses and distances are in bytes. `out` gets (rows, width, LANES) of 32 bits; `weights` are
    (segments, groups, width) vectors; `like` is any array of the activations' type. Each group has
    the cache brought one line of what is at `upcoming`, unless that is a plain 0 or AMX computes.
    """
    if not isinstance(width, types.IntegerLiteral):
        return None
    fetching, vectors = not isinstance(upcoming, types.IntegerLiteral), width.literal_value

    def codegen(context, builder, signature, args):
        def choose(counts):
            """The least of the counts, which are in falling order, that is enough."""
            if len(counts) == 1:
                _multiply(builder, like.dtype, counts[0], vectors, fetching, args[3:])
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
        chosen = sequence(PRECISIONS[like.dtype])
        needed = target_features(chosen)
        if needed:  # past llvmlite's check: it has no list of attributes with values
            set.add(builder.function.attributes, f'"target-features"="{needed}"')
        if chosen.dot != AMX:
            choose(TILE_ROWS[vectors][::-1])
            return context.get_dummy_value()
        many = builder.icmp_signed(">=", args[0], ir.Constant(I64, amx.LEAST_ROWS))
        with builder.if_else(many) as (then, otherwise):
            with then:
                amx.multiply(builder, args[0], vectors, args[3:])
            with otherwise:
                choose([n for n in TILE_ROWS[vectors][::-1] if n < amx.LEAST_ROWS])
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
