"""The computing of the backend `native`: machine code that numba makes for the CPU at hand.

Everything rests on one product, `tile`: some rows of activations times one panel of weights, kept in
registers. Its element type decides the instruction: uint8 with int8 weights (four products a lane,
VNNI), bfloat16 as uint16 (two), float32 (one). A panel holds 16 hidden units' four gates, so that a
cell's state follows from a tile's result without leaving the cache; a convolution is the same
product over rows that overlap. Each row's result depends on that row alone, and is the same bits in
whatever batch, at whatever place, with however many threads.

Shapes: R rows (frames of all utterances, packed), K inputs, P panels. Arrays are flat and contiguous.
`scale` and `zero` undo the quantisation, and are 1 and 0 where there is none. The functions are
compiled when first called and kept by numba beside this file.
"""

from __future__ import annotations

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

LANES = 16  # numbers of 32 bits in a vector
GATES = 4  # vectors in a panel of a recurrent layer
ROWS = 6  # most rows of such a tile: with its weights they fill the registers
CONV_ROWS, CONV_VECTORS = 12, 2  # of a convolution's tile: positions, and vectors of channels
CHANNELS = CONV_VECTORS * LANES
CEILING = np.float32(20)  # of the clipped rectifier
CHUNK = 192  # rows of the input product that are computed ahead of the recurrent steps
LSTM, GRU, RNN = 0, 1, 2
PER_LANE = {"uint8": 4, "uint16": 2, "float32": 1}  # activations' elements in 32 bits

_I64, _I32 = ir.IntType(64), ir.IntType(32)
_INTS, _FLOATS = ir.VectorType(_I32, LANES), ir.VectorType(ir.FloatType(), LANES)
FEATURES = llvmlite.binding.get_host_cpu_features()
HAS_VNNI, HAS_BF16 = bool(FEATURES.get("avx512vnni")), bool(FEATURES.get("avx512bf16"))


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
def _tile(typing, rows, vectors, like, out, a, offsets, weights, groups, segments, step):
    """out[m, v] = sum over segments s and groups k of a[offsets[m] + s * step + 4 k] * weights.

    Addresses and distances are in bytes. `out` gets (rows, vectors, LANES) of 32 bits; `weights`
    are (segments, groups, vectors) vectors; `like` is any array of the activations' type.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    count, width, dtype = rows.literal_value, vectors.literal_value, like.dtype
    kind = _INTS if dtype == types.uint8 else _FLOATS

    def number(value):
        return ir.Constant(_I64, value)

    def codegen(context, builder, signature, args):
        out, a, offsets, weights, groups, segments, step = args[3:]

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

    return types.void(rows, vectors, like, *[types.intp] * 7), codegen


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

    def exp(self):
        """e to its power, of -40 to 40, else of the nearer end; to 2 units in the last place.

        e^x = 2^n e^r with |r| <= ln(2) / 2, and e^r by its series (coefficients for float32).
        """
        x, builder = self.clip(-40, 40), self.builder
        n = _Vector(
            builder,
            _call(builder, f"llvm.rint.v{LANES}f32", _FLOATS, (x * 1.4426950408889634).value),
        )
        r = x - n * 0.693359375 - n * -2.12194440e-4
        p = r * 1.9875691500e-4 + 1.3981999507e-3
        for factor in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = p * r + factor
        p = p * (r * r) + r + 1
        exponent = builder.add(builder.fptosi(n.value, _INTS), ir.Constant(_INTS, [127] * LANES))
        exponent = builder.shl(exponent, ir.Constant(_INTS, [23] * LANES))
        return p * _Vector(builder, builder.bitcast(exponent, _FLOATS))

    def sigmoid(self):
        """1 / (1 + e^-x)."""
        one = self * 0 + 1
        return one / ((self * -1).exp() + 1)

    def tanh(self):
        """(1 - e^-2x) / (1 + e^-2x)."""
        e = (self * -2).exp()
        return (e * -1 + 1) / (e + 1)


def _undone(builder, dtype, got, zero, scale, step, number):
    """The vector at `number` of raw products as float32: (got + zero) * (step * scale)."""
    kind = _INTS if dtype == types.uint8 else _FLOATS
    raw = _Vector.load(builder, got, number, kind) + _Vector.load(builder, zero, number, kind)
    return raw.floats() * (_Vector.load(builder, scale, number) * _spread(builder, step))


def _spread(builder, number):
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(_I32, 0))
    return _Vector(
        builder, builder.shuffle_vector(one, undefined, ir.Constant(_INTS, [0] * LANES))
    )


@intrinsic(prefer_literal=True)
def _affine(typing, vectors, clipped, like, got, zero, scale, step, shift, out):
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
def _advance(typing, kind, like, mine, got, zero, scale, step, state, before, out):
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
            ei, ef, eg, eo = (i * -1).exp(), (f * -1).exp(), (g * -2).exp(), (o * -1).exp()
            c = _Vector.load(builder, state, 0) / (ef + 1)
            c = c + (eg * -1 + 1) / ((ei + 1) * (eg + 1))
            ec = (c * -2).exp()
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


@intrinsic
def _exponential(typing, values, out):
    """e to the power of LANES float32 (addresses)."""

    def codegen(context, builder, signature, args):
        _Vector.load(builder, args[0], 0).exp().store(args[1])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def _as_float(typing, bits):
    """The float32 with these 32 bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _as_bits(typing, number):
    """The 32 bits of a float32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], _I32)

    return types.int32(types.float32), codegen


jit = njit(cache=True, nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")


@jit
def _extent(values):
    """Largest magnitude. (As integers, the bits of floats without a sign are in the same order.)"""
    high = np.int32(0)
    for value in values:
        high = max(high, _as_bits(value) & np.int32(0x7FFFFFFF))
    return _as_float(high)


def _store(values, out, zero, extent):
    """Write values (n,) as elements of `out` (n,); returns what one step of them is worth."""
    raise NotImplementedError


@overload(_store)
def _store_as(values, out, zero, extent):
    one = np.float32(1)
    if out.dtype == types.uint8:

        def quantised(values, out, zero, extent):
            steps = np.float32(255 - zero)
            factor = steps / extent if extent > 0 else np.float32(0)
            shift = np.float32(zero) + np.float32(0.5)
            for i in range(len(values)):
                out[i] = np.uint8(np.int32(values[i] * factor + shift))
            return extent / steps

        return quantised
    if out.dtype == types.uint16:

        def rounded(values, out, zero, extent):
            for i in range(len(values)):
                bits = _as_bits(values[i])
                even = (bits >> np.int32(16)) & np.int32(1)
                out[i] = np.uint16((bits + np.int32(0x7FFF) + even) >> np.int32(16))
            return one

        return rounded

    def copied(values, out, zero, extent):
        for i in range(len(values)):
            out[i] = values[i]
        return one

    return copied


@jit
def _panel(rows, like, out, a, offsets, weights, groups):
    """A tile of 1 to ROWS rows with a panel of GATES vectors."""
    if rows == 6:
        _tile(6, 4, like, out, a, offsets, weights, groups, 1, 0)
    elif rows == 5:
        _tile(5, 4, like, out, a, offsets, weights, groups, 1, 0)
    elif rows == 4:
        _tile(4, 4, like, out, a, offsets, weights, groups, 1, 0)
    elif rows == 3:
        _tile(3, 4, like, out, a, offsets, weights, groups, 1, 0)
    elif rows == 2:
        _tile(2, 4, like, out, a, offsets, weights, groups, 1, 0)
    else:
        _tile(1, 4, like, out, a, offsets, weights, groups, 1, 0)


@jit
def _cells(kind, like, mine, got, zero, scale, step, state, before, out):
    """`_advance` for the kind of cell."""
    if kind == LSTM:
        _advance(0, like, mine, got, zero, scale, step, state, before, out)
    elif kind == GRU:
        _advance(1, like, mine, got, zero, scale, step, state, before, out)
    else:
        _advance(2, like, mine, got, zero, scale, step, state, before, out)


@jit
def layer(
    kind, backward, members, lengths, starts, x, x_scale, units,
    w_in, in_zero, in_scale, bias, w_rec, rec_zero, rec_scale,
    ahead, hidden, state, product, out,
):  # fmt: skip
    """One direction of a recurrent layer over the utterances `members`, longest first.

    x (R * K,) and x_scale (R,) are the input; utterance b has the rows starts[b] to starts[b] +
    lengths[b]. Weights are (P, K / per lane, GATES, LANES, per lane), `*_zero`, `*_scale` and bias
    (P * 64,). out (R, units) float32 is written. Work space: ahead (CHUNK + members, P * 64)
    float32, hidden (members * units) like x, state (members, units) float32, product (384,).
    """
    n = len(members)
    panels, inputs = units // LANES, len(x) // len(x_scale)
    size = x.itemsize
    in_groups, rec_groups = inputs * size // 4, units * size // 4
    in_bytes, rec_bytes = in_groups * 64 * GATES, rec_groups * 64 * GATES
    width = 64
    offsets, row_of = np.empty(ROWS, np.int64), np.empty(len(ahead), np.int64)
    steps = np.zeros(n, np.float32)
    nothing = np.zeros(LANES, np.float32)
    state[:n] = 0
    zero_state = np.zeros(units, np.float32)
    for i in range(n):
        steps[i] = _store(zero_state, hidden[i * units : (i + 1) * units], 128, np.float32(0))
    longest = lengths[members[0]]
    begin = 0
    while begin < longest:
        # The input's share of the gates, of so many steps as fit.
        rows, end, active = 0, begin, n
        while end < longest:
            while lengths[members[active - 1]] <= end:
                active -= 1
            if rows and rows + active > CHUNK:
                break
            for i in range(active):
                b = members[i]
                row_of[rows] = starts[b] + (lengths[b] - 1 - end if backward else end)
                rows += 1
            end += 1
        parts = (rows + ROWS - 1) // ROWS
        for p in range(panels):
            base = p * width
            for part in range(parts):
                first, last = rows * part // parts, rows * (part + 1) // parts
                for q in range(first, last):
                    offsets[q - first] = row_of[q] * inputs * size
                _panel(
                    last - first, x, product.ctypes.data, x.ctypes.data, offsets.ctypes.data,
                    w_in.ctypes.data + p * in_bytes, in_groups,
                )  # fmt: skip
                for q in range(first, last):
                    _affine(
                        4, 0, x, product.ctypes.data + (q - first) * 4 * width,
                        in_zero.ctypes.data + 4 * base, in_scale.ctypes.data + 4 * base,
                        x_scale[row_of[q]], bias.ctypes.data + 4 * base,
                        ahead.ctypes.data + 4 * (q * panels * width + base),
                    )  # fmt: skip
        # The recurrence.
        rows, active = 0, n
        for now in range(begin, end):
            while lengths[members[active - 1]] <= now:
                active -= 1
            parts = (active + ROWS - 1) // ROWS
            for p in range(panels):
                base, unit = p * width, p * LANES
                for part in range(parts):
                    first, last = active * part // parts, active * (part + 1) // parts
                    for i in range(first, last):
                        offsets[i - first] = i * units * size
                    _panel(
                        last - first, x, product.ctypes.data, hidden.ctypes.data,
                        offsets.ctypes.data, w_rec.ctypes.data + p * rec_bytes, rec_groups,
                    )  # fmt: skip
                    for i in range(first, last):
                        row = row_of[rows + i]
                        before = nothing.ctypes.data
                        if now:
                            row_before = row + 1 if backward else row - 1
                            before = out.ctypes.data + 4 * (row_before * units + unit)
                        _cells(
                            kind, x, ahead.ctypes.data + 4 * ((rows + i) * panels * width + base),
                            product.ctypes.data + (i - first) * 4 * width,
                            rec_zero.ctypes.data + 4 * base, rec_scale.ctypes.data + 4 * base,
                            steps[i], state.ctypes.data + 4 * (i * units + unit), before,
                            out.ctypes.data + 4 * (row * units + unit),
                        )  # fmt: skip
            for i in range(active):
                values = out[row_of[rows + i]]
                steps[i] = _store(
                    values, hidden[i * units : (i + 1) * units], 128, _extent(values)
                )
            rows += active
        begin = end


@jit
def between(first, last, left, right, both, scale, shift, x, x_scale):
    """x and x_scale of the rows first to last: the directions' sum, batch-normalised (units,)."""
    units = left.shape[1]
    values = np.empty(units, np.float32)
    for row in range(first, last):
        for j in range(units):
            total = left[row, j] + right[row, j] if both else left[row, j]
            values[j] = total * scale[j] + shift[j]
        x_scale[row] = _store(values, x[row * units : (row + 1) * units], 128, _extent(values))


@jit
def look_ahead(first, last, x, weights):
    """Rows first to last of x (R, units), one utterance: the sum of each and those after it."""
    for row in range(first, last):
        for j in range(x.shape[1]):
            total = np.float32(0)
            for k in range(min(weights.shape[0], last - row)):
                total += weights[k, j] * x[row + k, j]
            x[row, j] = min(max(total, np.float32(0)), CEILING)


@jit
def head(first, last, left, right, both, weights, bias, classes, out):
    """Probabilities out (rows, classes) of the rows first to last, by a softmax in float32."""
    units = left.shape[1]
    panels, width = len(bias) // CHANNELS, CHANNELS
    values = np.empty((CONV_ROWS, units), np.float32)
    product = np.empty(CONV_ROWS * width, np.float32)
    logits = np.empty((CONV_ROWS, len(bias)), np.float32)
    offsets = np.arange(CONV_ROWS) * (units * 4)
    for begin in range(first, last, CONV_ROWS):
        rows = min(CONV_ROWS, last - begin)
        for m in range(rows):
            for j in range(units):
                r = begin + m
                values[m, j] = left[r, j] + right[r, j] if both else left[r, j]
        for p in range(panels):
            _tile(
                12, 2, values, product.ctypes.data, values.ctypes.data, offsets.ctypes.data,
                weights.ctypes.data + p * units * width * 4, units, 1, 0,
            )  # fmt: skip
            for m in range(rows):
                for j in range(width):
                    logits[m, p * width + j] = product[m * width + j] + bias[p * width + j]
        for m in range(rows):
            high = logits[m, :classes].max()
            for j in range(len(bias)):
                logits[m, j] -= high
            for j in range(0, len(bias), LANES):
                address = logits.ctypes.data + 4 * (m * len(bias) + j)
                _exponential(address, address)
            total = np.float32(0)
            for j in range(classes):
                total += logits[m, j]
            for j in range(classes):
                out[begin - first + m, j] = logits[m, j] / total


@jit
def convolutions(
    spectrogram, frames, weights, zero, scale, shift, weights_2, zero_2, scale_2, shift_2,
    plane, between_them, plane_2, after, product, x, x_scale,
):  # fmt: skip
    """Both convolutions of one utterance (bins, length) with so many frames of output.

    Writes x (frames * K,), K = bins of the output * CHANNELS, and x_scale (frames,). Weights are
    (41, groups, 2, LANES, per lane) and (21, groups, 2, LANES, per lane); scale and shift hold the
    batch normalisation. Past the utterance's end there is silence, as the reference's masks have
    it. Work space: plane and plane_2 like x, between_them and after float32, product (384,).
    """
    size = x.itemsize
    bins, length = spectrogram.shape
    per = 4 // size
    padded = (frames + CONV_ROWS - 1) // CONV_ROWS * CONV_ROWS
    kernel = (11 + per - 1) // per * per
    wide = 2 * (padded - 1) + kernel
    offsets = np.empty(CONV_ROWS, np.int64)
    silence = np.zeros(wide, np.float32)
    for h in range(bins + 40):
        _store(silence, plane[h * wide : (h + 1) * wide], 128, np.float32(0))
    extent = np.float32(0)
    for h in range(bins):
        extent = max(extent, _extent(spectrogram[h]))
    step = np.float32(1)
    for h in range(bins):
        at = (h + 20) * wide + 5
        step = _store(spectrogram[h], plane[at : at + length], 128, extent)
    bins_1 = (bins - 1) // 2 + 1
    for m in range(CONV_ROWS):
        offsets[m] = 2 * m * size
    for f in range(bins_1):
        for t in range(0, padded, CONV_ROWS):
            _tile(
                12, 2, x, product.ctypes.data,
                plane.ctypes.data + (2 * f * wide + 2 * t) * size, offsets.ctypes.data,
                weights.ctypes.data, kernel // per, 41, wide * size,
            )  # fmt: skip
            for m in range(CONV_ROWS):
                _affine(
                    2, 1, x, product.ctypes.data + 4 * m * CHANNELS, zero.ctypes.data,
                    scale.ctypes.data, step, shift.ctypes.data,
                    between_them.ctypes.data + 4 * (f * padded + t + m) * CHANNELS,
                )  # fmt: skip
    extent = np.float32(0)
    for f in range(bins_1):
        at = f * padded * CHANNELS
        extent = max(extent, _extent(between_them[at : at + frames * CHANNELS]))
    wide = (padded + 10) * CHANNELS
    plane_2[: (bins_1 + 20) * wide] = 0
    for f in range(bins_1):
        at, to = f * padded * CHANNELS, (f + 10) * wide + 5 * CHANNELS
        values = between_them[at : at + frames * CHANNELS]
        step = _store(values, plane_2[to : to + frames * CHANNELS], 0, extent)
    bins_2 = (bins_1 - 1) // 2 + 1
    inputs = bins_2 * CHANNELS
    for m in range(CONV_ROWS):
        offsets[m] = m * CHANNELS * size
    for f in range(bins_2):
        for t in range(0, padded, CONV_ROWS):
            _tile(
                12, 2, x, product.ctypes.data,
                plane_2.ctypes.data + (2 * f * wide + t * CHANNELS) * size, offsets.ctypes.data,
                weights_2.ctypes.data, 11 * CHANNELS // per, 21, wide * size,
            )  # fmt: skip
            for m in range(min(CONV_ROWS, frames - t)):
                _affine(
                    2, 1, x, product.ctypes.data + 4 * m * CHANNELS, zero_2.ctypes.data,
                    scale_2.ctypes.data, step, shift_2.ctypes.data,
                    after.ctypes.data + 4 * ((t + m) * inputs + f * CHANNELS),
                )  # fmt: skip
    for t in range(frames):
        values = after[t * inputs : (t + 1) * inputs]
        x_scale[t] = _store(values, x[t * inputs : (t + 1) * inputs], 0, _extent(values))
