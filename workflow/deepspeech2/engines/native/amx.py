"""The product of many rows with vectors of weights by Intel's AMX, for numba (see tiles.py).

A register of AMX holds 16 rows of 64 bytes: of activations; of the sums of LANES columns; or 16
groups of as many columns' weights, just as they lie in a panel.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from deepspeech2.engines.native.layout import AMX_ROWS, VECTOR
from deepspeech2.engines.native.vectors import I8, I64, call

HEIGHT = 16  # rows of a register
LEAST_ROWS = 5  # fewer are faster by vectors
SUMS, ACTIVATIONS, WEIGHTS, REGISTERS = 0, 4, 6, 8  # the first of each, and how many there are

assert AMX_ROWS == HEIGHT * (WEIGHTS - ACTIVATIONS)


def _number(value):
    return ir.Constant(I64, value)


class _Product:
    """`high` registers of rows, the last with as many as there are, by `width` vectors."""

    def __init__(self, builder, rows, high, width, args):
        self.builder, self.rows, self.high = builder, rows, high
        self.width, self.args = width, args
        self.line = _number(VECTOR * width)  # bytes of a group's weights, and of a row's sums
        most = (ACTIVATIONS - SUMS) // high  # vectors at once
        self.pieces = [range(n, min(n + most, width)) for n in range(0, width, most)]

    def _do(self, name, *args):
        """An instruction; plain numbers are registers."""
        given = (ir.Constant(I8, x) if isinstance(x, int) else x for x in args)
        call(self.builder, f"llvm.x86.{name}", ir.VoidType(), *given)

    def _move(self, name, register, address, distance):
        """Load or store a register whose rows are so far apart."""
        place = self.builder.inttoptr(address, ir.PointerType(I8))
        self._do(name, register, place, distance)

    def _configure(self, depth):
        """Sizes of all registers, for products of `depth` groups; their contents are lost."""
        builder = self.builder
        last = builder.sub(self.rows, _number(HEIGHT * (self.high - 1)))
        memory = cgutils.alloca_once(builder, ir.ArrayType(I8, VECTOR))
        builder.store(ir.Constant(memory.type.pointee, None), memory)
        at = builder.ptrtoint(memory, I64)

        def put(place, value, kind):
            place = builder.inttoptr(builder.add(at, _number(place)), ir.PointerType(kind))
            builder.store(builder.trunc(value, kind), place).align = 1

        put(0, _number(1), I8)  # the palette with such registers
        for register in range(REGISTERS):
            size, rows = _number(VECTOR), depth  # of weights
            if register < WEIGHTS:
                of = register - ACTIVATIONS if register >= ACTIVATIONS else register % self.high
                rows = last if of == self.high - 1 else _number(HEIGHT)
                size = size if register < ACTIVATIONS else builder.shl(depth, _number(2))
            put(16 + 2 * register, size, ir.IntType(16))
            put(48 + register, rows, I8)
        self._do("ldtilecfg", builder.bitcast(memory, ir.PointerType(I8)))

    def add(self, first, depth, blocks, resumed):
        """From group `first` of each segment on, so many blocks of `depth` groups.

        Where it is resumed, sums go on from those in memory.
        """
        builder = self.builder
        out, a, stride, weights, groups, segments, step, _ = self.args
        self._configure(depth)
        for pieces in self.pieces:
            totals = {
                (m, n): (
                    SUMS + m + self.high * (n - pieces.start),
                    builder.add(out, _number(VECTOR * (self.width * HEIGHT * m + n))),
                )
                for m in range(self.high)
                for n in pieces
            }
            with builder.if_else(resumed) as (then, otherwise):
                with then:
                    for register, place in totals.values():
                        self._move("tileloadd64", register, place, self.line)
                with otherwise:
                    for register, _ in totals.values():
                        self._do("tilezero", register)
            with cgutils.for_range(builder, segments, intp=I64) as segment:
                row = builder.add(a, builder.mul(segment.index, step))
                row = builder.add(row, builder.shl(first, _number(2)))
                group = builder.add(first, builder.mul(segment.index, groups))
                with cgutils.for_range(builder, blocks, intp=I64) as block:
                    at = builder.add(row, builder.mul(block.index, _number(VECTOR)))
                    number = builder.add(group, builder.mul(block.index, _number(HEIGHT)))
                    number = builder.mul(number, self.line)
                    for m in range(self.high):
                        down = builder.add(at, builder.mul(stride, _number(HEIGHT * m)))
                        self._move("tileloadd64", ACTIVATIONS + m, down, stride)
                    for n in pieces:
                        right = builder.add(builder.add(weights, number), _number(VECTOR * n))
                        self._move("tileloadd64", WEIGHTS + n % 2, right, self.line)
                        for m in range(self.high):
                            self._do("tdpbusd", totals[m, n][0], ACTIVATIONS + m, WEIGHTS + n % 2)
            for register, place in totals.values():
                self._move("tilestored64", register, place, self.line)
        self._do("tilerelease")


def multiply(builder, rows, width, args):
    """A tile of up to AMX_ROWS rows, a value of LLVM's; `args` are those of tiles.tile from `out`.

    Whole blocks of groups come first, what is left of them in a pass of its own. Nothing is fetched
    ahead: it was not seen to be faster.
    """
    groups, zero = args[4], _number(0)
    whole, rest = builder.lshr(groups, _number(4)), builder.and_(groups, _number(HEIGHT - 1))
    some = builder.icmp_unsigned("!=", whole, zero)
    with builder.if_else(builder.icmp_unsigned(">", rows, _number(HEIGHT))) as branches:
        for high, branch in zip((2, 1), branches):
            with branch:
                product = _Product(builder, rows, high, width, args)
                with builder.if_then(some):
                    product.add(zero, _number(HEIGHT), whole, ir.Constant(ir.IntType(1), 0))
                with builder.if_then(builder.icmp_unsigned("!=", rest, zero)):
                    product.add(builder.sub(groups, rest), rest, _number(1), some)
