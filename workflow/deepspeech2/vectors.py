"""Products and functions of vectors in registers, for numba: what the kernels are made of.

`tile` is the product of some rows of activations with one panel of weights. Its element type
decides the instruction: uint8 with int8 weights (four products a lane, VNNI), bfloat16 as uint16
(two), float32 (one). CPUs without such an instruction get the same by others.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

LANES = 16  # numbers of 32 bits in a vector
GATES = 4  # vectors in a panel of a recurrent layer
CEILING = np.float32(20)  # of the clipped rectifier
# Not from 0: where LLVM knows that a number is 0, it may put it for any 0, in an address, too. What
# numba keeps for callers then reads from a null pointer, and is thrown away there as impossible.
LSTM, GRU, RNN = 1, 2, 3
PER_LANE = {"uint8": 4, "uint16": 2, "float32": 1}  # activations' elements in 32 bits

_I64, _I32 = ir.IntType(64), ir.IntType(32)
_INTS, _FLOATS = ir.VectorType(_I32, LANES), ir.VectorType(ir.FloatType(), LANES)
# As numba: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES make code for another CPU.
_ASKED_FOR = numba.config.CPU_FEATURES
_FEATURES = (get_host_cpu_features() if _ASKED_FOR is None else _ASKED_FOR).split(",")
HAS_VNNI, HAS_BF16 = "+avx512vnni" in _FEATURES, "+avx512bf16" in _FEATURES


class _BFloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash("bfloat")


def _call(builder, name, result, *args):
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _fetch(builder, address, write, cache):
    """Have the line of 64 bytes there brought to the first (3) or second (2) cache."""
    place = builder.inttoptr(address, ir.PointerType(ir.IntType(8)))
    how = (ir.Constant(_I32, number) for number in (write, cache, 1))
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), place, *how)


def _dot(builder, dtype, total, a, w):
    """`total` plus the products of the 32-bit lanes of a and w, in their smaller elements."""

    def lanes(value):
        return ir.Constant(_INTS, [value] * LANES)

    if dtype == types.uint8:
        if HAS_VNNI:
            kind = ir.VectorType(ir.IntType(8), 4 * LANES)
            a, w = builder.bitcast(a, kind), builder.bitcast(w, kind)
            return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _INTS, total, a, w)
        for byte in range(4):
            left = builder.and_(builder.lshr(a, lanes(8 * byte)), lanes(255))
            right = builder.ashr(builder.shl(w, lanes(24 - 8 * byte)), lanes(24))
            total = builder.add(total, builder.mul(left, right))
        return total
    if dtype == types.uint16 and HAS_BF16:
        kind = ir.VectorType(_BFloat(), 2 * LANES)
        a, w = builder.bitcast(a, kind), builder.bitcast(w, kind)
        return _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, total, a, w)
    pairs = [(a, w)]
    if dtype == types.uint16:
        high = ir.Constant(_INTS, [0xFFFF0000] * LANES)
        pairs = [
            (builder.shl(a, lanes(16)), builder.shl(w, lanes(16))),
            (builder.and_(a, high), builder.and_(w, high)),
        ]
    for left, right in pairs:
        left, right = builder.bitcast(left, _FLOATS), builder.bitcast(right, _FLOATS)
        total = _call(builder, f"llvm.fma.v{LANES}f32", _FLOATS, left, right, total)
    return total


@intrinsic(prefer_literal=True)
def tile(typing, rows, vectors, like, out, a, offsets, weights, groups, segments, step, upcoming):
    """out[m, v] = sum over segments s and groups k of a[offsets[m] + s * step + 4 k] * weights.

    Addresses and distances are in bytes. `out` gets (rows, vectors, LANES) of 32 bits; `weights`
    are (segments, groups, vectors) vectors; `like` is any array of the activations' type. Of what
    is at `upcoming`, if that is not a plain 0, a cache line a group is brought near meanwhile.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    count, width, dtype = rows.literal_value, vectors.literal_value, like.dtype
    kind = _INTS if dtype == types.uint8 else _FLOATS

    def number(value):
        return ir.Constant(_I64, value)

    def codegen(context, builder, signature, args):
        out, a, offsets, weights, groups, segments, step, upcoming = args[3:]

        def pointer(address, kind):
            return builder.inttoptr(address, ir.PointerType(kind))

        totals = [[cgutils.alloca_once(builder, kind) for _ in range(width)] for _ in range(count)]
        for row in totals:
            for total in row:
                builder.store(ir.Constant(kind, None), total)
        starts = []
        for m in range(count):
            place = pointer(builder.add(offsets, number(8 * m)), _I64)
            starts.append(builder.add(a, builder.load(place)))
        with cgutils.for_range(builder, segments, intp=_I64) as segment:
            skip = builder.mul(segment.index, step)
            rows_at = [builder.add(start, skip) for start in starts]
            first = builder.mul(segment.index, groups)
            with cgutils.for_range(builder, groups, intp=_I64) as group:
                number_of = builder.add(first, group.index)
                at = builder.add(weights, builder.mul(number_of, number(64 * width)))
                panel = []
                for v in range(width):
                    panel.append(builder.load(pointer(builder.add(at, number(64 * v)), _INTS)))
                    panel[-1].align = 4
                ahead = builder.shl(group.index, number(2))
                if not isinstance(signature.args[-1], types.IntegerLiteral):
                    line = builder.mul(number_of, number(64))
                    _fetch(builder, builder.add(upcoming, line), 0, 2)
                for m in range(count):
                    four = builder.load(pointer(builder.add(rows_at[m], ahead), _I32))
                    four.align = 1
                    undefined = ir.Constant(_INTS, ir.Undefined)
                    one = builder.insert_element(undefined, four, ir.Constant(_I32, 0))
                    everywhere = ir.Constant(_INTS, [0] * LANES)
                    spread = builder.shuffle_vector(one, undefined, everywhere)
                    for v in range(width):
                        total = builder.load(totals[m][v])
                        total = _dot(builder, dtype, total, spread, panel[v])
                        builder.store(total, totals[m][v])
        for m in range(count):
            for v in range(width):
                place = builder.add(out, number(64 * (m * width + v)))
                builder.store(builder.load(totals[m][v]), pointer(place, kind)).align = 4
        return context.get_dummy_value()

    return types.void(rows, vectors, like, *[types.intp] * 7, upcoming), codegen


class _Vector:
    """LANES numbers in a register, in a function that llvmlite writes."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    @classmethod
    def load(cls, builder, address, number, kind=_FLOATS):
        """The vector at `number` of those that begin at `address`."""
        place = builder.add(address, ir.Constant(_I64, 64 * number))
        value = builder.load(builder.inttoptr(place, ir.PointerType(kind)))
        value.align = 4
        return cls(builder, value)

    def store(self, address, number=0):
        """Write it there."""
        place = self.builder.add(address, ir.Constant(_I64, 64 * number))
        kind = ir.PointerType(self.value.type)
        self.builder.store(self.value, self.builder.inttoptr(place, kind)).align = 4

    def floats(self):
        """As float32, where it is of int32."""
        if self.value.type == _FLOATS:
            return self
        return _Vector(self.builder, self.builder.sitofp(self.value, _FLOATS))

    def _number(self, other):
        if isinstance(other, _Vector):
            return other.value
        return ir.Constant(_FLOATS, [float(np.float32(other))] * LANES)

    def _do(self, name, *others):
        made = getattr(self.builder, name)(self.value, *others, flags=("contract", "nsz"))
        return _Vector(self.builder, made)

    def __add__(self, other):
        if self.value.type == _INTS:
            return _Vector(self.builder, self.builder.add(self.value, other.value))
        return self._do("fadd", self._number(other))

    def __sub__(self, other):
        return self._do("fsub", self._number(other))

    def __mul__(self, other):
        return self._do("fmul", self._number(other))

    def __truediv__(self, other):
        return self._do("fdiv", self._number(other))

    def clip(self, low, high):
        """No less than low and no more than high."""
        value = self.value
        for name, bound in (("maxnum", low), ("minnum", high)):
            value = _call(
                self.builder, f"llvm.{name}.v{LANES}f32", _FLOATS, value, self._number(bound)
            )
        return _Vector(self.builder, value)

    def exp(self, times=1):
        """e^(times x), for products of -40 to 40, else of the nearer end; relative error 2e-7.

        e^y = 2^n e^r with |r| <= ln(2) / 2. Adding MAGIC rounds n to an integer in the lowest bits
        of a float32; shifted, they are what to add to the exponent of e^r, a polynomial that was
        fitted for the least relative error. `times` is a power of two: it costs nothing.
        """
        magic, builder = 1.5 * 2**23, self.builder
        x = self.clip(-40 / abs(times), 40 / abs(times))
        shifted = x * (1.4426950408889634 * times) + magic
        n = shifted - magic
        r = x - n * (0.693359375 / times) - n * (-2.12194440e-4 / times)
        p = r * (8.290307e-3 * times**5) + 4.1897975e-2 * times**4
        for power, factor in ((3, 0.16667637), (2, 0.4999915), (1, 0.9999997), (0, 1)):
            p = p * r + factor * times**power
        bits = builder.shl(builder.bitcast(shifted.value, _INTS), ir.Constant(_INTS, [23] * LANES))
        bits = builder.add(builder.bitcast(p.value, _INTS), bits)
        return _Vector(builder, builder.bitcast(bits, _FLOATS))

    def sigmoid(self):
        """1 / (1 + e^-x)."""
        return _Vector(self.builder, self._number(1)) / (self.exp(-1) + 1)

    def tanh(self):
        """(1 - e^-2x) / (1 + e^-2x)."""
        e = self.exp(-2)
        return (e * -1 + 1) / (e + 1)


def _undone(builder, dtype, got, zero, scale, step, number):
    """The vector at `number` of raw products as float32: (got + zero) * (step * scale)."""
    kind = _INTS if dtype == types.uint8 else _FLOATS
    raw = _Vector.load(builder, got, number, kind) + _Vector.load(builder, zero, number, kind)
    return raw.floats() * (_Vector.load(builder, scale, number) * _spread(builder, step))


def _spread(builder, number):
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(_I32, 0))
    return _Vector(builder, builder.shuffle_vector(one, undefined, ir.Constant(_INTS, [0] * LANES)))


@intrinsic(prefer_literal=True)
def affine(typing, vectors, clipped, like, got, zero, scale, step, shift, out):
    """out = undone products * scale + shift, and clipped to 0 ... CEILING where asked for."""
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    clip = clipped.literal_value

    def codegen(context, builder, signature, args):
        got, zero, scale, step, shift, out = args[3:]
        for v in range(vectors.literal_value):
            value = _undone(builder, like.dtype, got, zero, scale, step, v)
            value = value + _Vector.load(builder, shift, v)
            (value.clip(0, CEILING) if clip else value).store(out, v)
        return context.get_dummy_value()

    kinds = [types.intp] * 3 + [types.float32] + [types.intp] * 2
    return types.void(vectors, clipped, like, *kinds), codegen


@intrinsic(prefer_literal=True)
def advance(typing, kind, like, mine, got, zero, scale, step, state, before, out):
    """A panel's LANES cells of one row, one step on. All but `step` are addresses.

    `mine` (GATES, LANES) is the input's share of the gates with the biases, `got` (GATES, LANES)
    the raw product of the state before; `state` (LANES,) an LSTM's memory, which is changed;
    `before` the output (LANES,) of the step before, for a GRU.
    """
    if not isinstance(kind, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        mine, got, zero, scale, step, state, before, out = args[2:]

        def recurrent(gate):
            return _undone(builder, like.dtype, got, zero, scale, step, gate)

        def gate(number):
            return recurrent(number) + _Vector.load(builder, mine, number)

        if kind.literal_value == LSTM:
            # sigmoid(f) c + sigmoid(i) tanh(g), and sigmoid(o) tanh(c), with few divisions
            i, f, g, o = gate(0), gate(1), gate(2), gate(3)
            ei, ef, eg, eo = i.exp(-1), f.exp(-1), g.exp(-2), o.exp(-1)
            c = _Vector.load(builder, state, 0) / (ef + 1)
            c = c + (eg * -1 + 1) / ((ei + 1) * (eg + 1))
            ec = c.exp(-2)
            c.store(state)
            made = (ec * -1 + 1) / ((eo + 1) * (ec + 1))
        elif kind.literal_value == GRU:  # reset, update, and the new one's: input's, recurrent
            r, z = gate(0).sigmoid(), gate(1).sigmoid()
            new = (_Vector.load(builder, mine, 2) + r * gate(3)).tanh()
            made = new + z * (_Vector.load(builder, before, 0) - new)
        else:
            made = gate(0).tanh()
        made.store(out)
        return context.get_dummy_value()

    kinds = [types.intp] * 4 + [types.float32] + [types.intp] * 3
    return types.void(kind, like, *kinds), codegen


@intrinsic(prefer_literal=True)
def fetch(typing, address, lines, write):
    """Have so many lines of 64 bytes brought near; `write` is 1 where they will be written to."""
    if not isinstance(lines, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        for line in range(lines.literal_value):
            place = builder.add(args[0], ir.Constant(_I64, 64 * line))
            _fetch(builder, place, write.literal_value, 3)
        return context.get_dummy_value()

    return types.void(types.intp, lines, write), codegen


@intrinsic
def exponential(typing, values, out):
    """e to the power of LANES float32 (addresses)."""

    def codegen(context, builder, signature, args):
        _Vector.load(builder, args[0], 0).exp().store(args[1])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def as_float(typing, bits):
    """The float32 with these 32 bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def as_bits(typing, number):
    """The 32 bits of a float32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], _I32)

    return types.int32(types.float32), codegen


@intrinsic
def cycles(typing):
    """A clock that counts fast and evenly, in units of its own. For x86 only."""

    def codegen(context, builder, signature, args):
        return _call(builder, "llvm.readcyclecounter", _I64)

    return types.int64(), codegen
