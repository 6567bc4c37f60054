"""Functions of vectors in registers, for numba: the cells, and what makes numbers of products.

Functions marked `intrinsic` are called in numba's code, where they take addresses as integers; the
others write LLVM's code for them.
"""

from __future__ import annotations

from functools import partialmethod

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from deepspeech2.engines.native.layout import CEILING, CELLS, LANES, VECTOR

I64, I32, I8 = ir.IntType(64), ir.IntType(32), ir.IntType(8)
INTS, FLOATS = ir.VectorType(I32, LANES), ir.VectorType(ir.FloatType(), LANES)


def call(builder, name, result, *args):
    """A call of the function of that name: one of LLVM's own."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def spread(builder, number, kind):
    """A vector with `number` in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(INTS, [0] * LANES))


def load(builder, address, kind, align):
    """The value at an address."""
    value = builder.load(builder.inttoptr(address, ir.PointerType(kind)))
    value.align = align
    return value


class Vector:
    """LANES numbers in a register, in a function that llvmlite writes."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    @classmethod
    def load(cls, builder, address, number, kind=FLOATS):
        """The vector at `number` of those that begin at `address`."""
        place = builder.add(address, ir.Constant(I64, VECTOR * number))
        return cls(builder, load(builder, place, kind, 4))

    def store(self, address, number=0):
        """Write it there."""
        place = self.builder.add(address, ir.Constant(I64, VECTOR * number))
        kind = ir.PointerType(self.value.type)
        self.builder.store(self.value, self.builder.inttoptr(place, kind)).align = 4

    def _number(self, other):
        if isinstance(other, Vector):
            return other.value
        return ir.Constant(FLOATS, [float(np.float32(other))] * LANES)

    def _do(self, name, other):
        operate = getattr(self.builder, name)
        made = operate(self.value, self._number(other), flags=("contract", "nsz"))
        return Vector(self.builder, made)

    __add__, __sub__ = partialmethod(_do, "fadd"), partialmethod(_do, "fsub")
    __mul__, __truediv__ = partialmethod(_do, "fmul"), partialmethod(_do, "fdiv")

    def clip(self, low, high):
        """No less than low and no more than high."""
        value = self.value
        for name, bound in (("maxnum", low), ("minnum", high)):
            value = call(
                self.builder, f"llvm.{name}.v{LANES}f32", FLOATS, value, self._number(bound)
            )
        return Vector(self.builder, value)

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
        bits = builder.shl(builder.bitcast(shifted.value, INTS), ir.Constant(INTS, [23] * LANES))
        bits = builder.add(builder.bitcast(p.value, INTS), bits)
        return Vector(builder, builder.bitcast(bits, FLOATS))

    def sigmoid(self):
        """1 / (1 + e^-x)."""
        return Vector(self.builder, self._number(1)) / (self.exp(-1) + 1)

    def tanh(self):
        """(1 - e^-2x) / (1 + e^-2x)."""
        e = self.exp(-2)
        return (e * -1 + 1) / (e + 1)


def _dequantised(builder, dtype, sums, zero, scale, step, number):
    """The vector at `number` of a product as float32: (sums + zero) * (step * scale)."""
    if dtype == types.uint8:
        total = builder.add(*(Vector.load(builder, x, number, INTS).value for x in (sums, zero)))
        raw = Vector(builder, builder.sitofp(total, FLOATS))
    else:
        raw = Vector.load(builder, sums, number) + Vector.load(builder, zero, number)
    step = Vector(builder, spread(builder, step, FLOATS))
    return raw * (Vector.load(builder, scale, number) * step)


@intrinsic(prefer_literal=True)
def affine(typing, vectors, clipped, like, sums, zero, scale, step, shift, out):
    """out = dequantised sums of a product + shift, clipped to 0 ... CEILING where asked for.

    All but `step` are addresses, after `vectors` and `clipped`, which are plain numbers.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        sums, zero, scale, step, shift, out = args[3:]
        for v in range(vectors.literal_value):
            value = _dequantised(builder, like.dtype, sums, zero, scale, step, v)
            value = value + Vector.load(builder, shift, v)
            (value.clip(0, CEILING) if clipped.literal_value else value).store(out, v)
        return context.get_dummy_value()

    kinds = [types.intp] * 3 + [types.float32] + [types.intp] * 2
    return types.void(vectors, clipped, like, *kinds), codegen


@intrinsic
def advance(typing, cell, like, gates, sums, zero, scale, step, memory, before, out):
    """A panel's LANES cells of one row, one step on. All but `cell` and `step` are addresses.

    `cell` is of CELLS. `gates` (PANEL_VECTORS, LANES) is the input's share of the gates with the
    biases, `sums` (PANEL_VECTORS, LANES) the product of the state before; `memory` (LANES,) an
    LSTM's cells, which are changed; `before` (LANES,) the output of the step before, for a GRU.
    """

    def codegen(context, builder, signature, args):
        cell, _, gates, sums, zero, scale, step, memory, before, out = args

        def recurrent(gate):
            return _dequantised(builder, like.dtype, sums, zero, scale, step, gate)

        def gate(number):
            return recurrent(number) + Vector.load(builder, gates, number)

        def lstm():
            # sigmoid(f) c + sigmoid(i) tanh(g), and sigmoid(o) tanh(c), with few divisions
            i, f, g, o = gate(0), gate(1), gate(2), gate(3)
            ei, ef, eg, eo = i.exp(-1), f.exp(-1), g.exp(-2), o.exp(-1)
            c = Vector.load(builder, memory, 0) / (ef + 1)
            c = c + (eg * -1 + 1) / ((ei + 1) * (eg + 1))
            ec = c.exp(-2)
            c.store(memory)
            return (ec * -1 + 1) / ((eo + 1) * (ec + 1))

        def gru():  # reset, update, and the new one's: input's, recurrent
            r, z = gate(0).sigmoid(), gate(1).sigmoid()
            new = (Vector.load(builder, gates, 2) + r * gate(3)).tanh()
            return new + z * (Vector.load(builder, before, 0) - new)

        def rnn():
            return gate(0).tanh()

        for name, made in (("lstm", lstm), ("gru", gru), ("rnn", rnn)):
            chosen = builder.icmp_signed("==", cell, ir.Constant(I64, CELLS[name]))
            with builder.if_then(chosen):
                made().store(out)
        return context.get_dummy_value()

    kinds = [types.intp] * 4 + [types.float32] + [types.intp] * 3
    return types.void(types.intp, like, *kinds), codegen


@intrinsic
def exponential(typing, values, out):
    """e to the power of LANES float32 (addresses)."""

    def codegen(context, builder, signature, args):
        Vector.load(builder, args[0], 0).exp().store(args[1])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def cycles(typing):
    """A clock that counts evenly, in units of its own. For x86 and Arm (CNTVCT_EL0) only."""

    def codegen(context, builder, signature, args):
        return call(builder, "llvm.readcyclecounter", I64)

    return types.int64(), codegen
