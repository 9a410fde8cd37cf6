# mypy: allow-untyped-defs
# ruff: noqa: SIM102  an `if` on a constant must be alone to be left out
"""Some outputs of a stored matrix: dot products, then what is done to each of them.

Letters: M rows of activations, I terms, O outputs.
"""

from __future__ import annotations

from typing import Any

from .._address import floats
from .._jit import inlined
from ..primitives.linear_map.activation import ACTIVATIONS, activate
from .access import address, stride
from .ahead import prefetch_rows, share_of
from .dots import BYTES, LANES, WIDE, dots
from .fields import Choice, Kind, Matrix, Rows, Size, Vector
from .many_dots import many_dots, scratch_of_dots

MODES = ("store", "add", "add gated")
"""What is done with a result: y = result, y += result, or y += gate * result."""
FACTOR_ROWS = 16
"""Rows that a recurrence multiplies by a low-rank factor at once."""
WIDEN_ONCE = 12
"""Rows of activations from which on stored numbers of 16 bits are widened once, not for every three rows."""
_BLOCK_BYTES = 1 << 16
CHUNK = 32
"""Outputs of a quarter that are finished together: enough for whole vectors, little enough for the nearest cache."""


def _for_kinds(outputs: int, rows: int) -> Any:
    """Return the tile of a number of stored rows and rows of activations, for all kinds of stored numbers."""
    float32, bfloat16, float16 = (dots(outputs, rows, kind) for kind in BYTES)

    @inlined
    def tile(kind, w, w_step, x, x_step, terms, y, o_step, y_step):
        if kind == 0:
            float32(w, w_step, x, x_step, terms, y, o_step, y_step)
        elif kind == 1:
            bfloat16(w, w_step, x, x_step, terms, y, o_step, y_step)
        else:
            float16(w, w_step, x, x_step, terms, y, o_step, y_step)

    return tile


_one_by_one, _four_by_one = _for_kinds(1, 1), _for_kinds(4, 1)
_ROWS = 3 if WIDE else 1
_four_by_some = _for_kinds(4, _ROWS) if WIDE else _four_by_one


@inlined
def stored_bytes(kind):
    """Return the bytes of one stored number."""
    return 4 if kind == 0 else 2


@inlined
def multiply(kind, weight, apart, x, x_step, terms, rows, y, o_step, y_step):
    """Set y (M, 4) to the products of four stored rows, `apart` bytes apart, and prefetch those behind them."""
    m, ahead = 0, terms * stored_bytes(kind)
    share = share_of(ahead, rows // _ROWS)
    while m + _ROWS <= rows:
        prefetch_rows(weight, apart, ahead, ahead + share)
        _four_by_some(kind, weight, apart, x + m * x_step, x_step, terms, y + m * y_step, o_step, y_step)
        m, ahead = m + _ROWS, ahead + share
    while m < rows:
        _four_by_one(kind, weight, apart, x + m * x_step, 0, terms, y + m * y_step, o_step, 0)
        m += 1


@inlined
def multiply_run(kind, weight, size, outputs, x, x_step, terms, rows, y, y_step):
    """Set y (M, O) to the products of a few stored rows, `size` bytes each."""
    whole = outputs // 4 * 4
    for o in range(0, whole, 4):
        multiply(kind, weight + o * size, size, x, x_step, terms, rows, y + 4 * o, 4, y_step)
    for o in range(whole, outputs):
        for m in range(rows):
            _one_by_one(kind, weight + o * size, 0, x + m * x_step, 0, terms, y + 4 * o + m * y_step, 0, 0)


@inlined
def _finish(found, bias, activation, mode, gate, y):
    """Add the bias, activate, and put results where they belong; bias and gate are addresses, 0 for none."""
    n = found.size
    if bias:
        b = floats(bias, n)
        for i in range(n):
            found[i] += b[i]
    activate(found, activation)
    out = floats(y, n)
    if mode == 0:
        for i in range(n):
            out[i] = found[i]
    elif mode == 1:
        for i in range(n):
            out[i] += found[i]
    else:
        g = floats(gate, n)
        for i in range(n):
            out[i] += g[i] * found[i]


RESULT: dict[str, Any] = {
    "W": Matrix("O I"), "y": Rows("O", written=True), "bias": Vector("O", optional=True),
    "gate": Rows("O", optional=True), "activation": Choice(names=ACTIVATIONS), "mode": Choice(names=MODES),
    "O": Size(), "I": Size(), "units": Size(),
}  # fmt: skip
"""Fields of products with any kind of matrix; `units` of a quarter of the outputs are one block."""


def products(
    kind_of_step: Kind, four: Any, one: Any, unit_bytes: Any, *, unit: int = 1, two: Any = None, two_pay: Any = None
) -> Any:
    """Return the step that computes outputs, given what multiplies units of some stored rows, and how large these are.

    `four` takes one unit of each quarter of the matrix, `one` those that are left at the end. Where there is a `two`
    and it pays, it takes two units of each quarter.
    """
    has_two, chunk, F = two is not None, CHUNK // unit, kind_of_step.fields

    @inlined
    def product(step, number, first, stop, rows, private, slots, scratch):
        """Compute the outputs of the blocks from `first` to `stop`: units of each quarter of the matrix, or the rest.

        Four streams keep the memory busier than one.
        """
        outputs, each = step[F.O], step[F.units]
        weight, kind, terms, scales = step[F.W], step[F.W + 1], step[F.W + 2], step[F.W + 3]
        x, x_step = address(step, F.x, private, slots), stride(step, F.x)
        y, y_step = address(step, F.y, private, slots), stride(step, F.y)
        activation, mode, bias = step[F.activation], step[F.mode], step[F.bias]
        gate, gate_step = address(step, F.gate, private, slots) if mode == 2 else 0, stride(step, F.gate)
        (size, scale), quarter = unit_bytes(kind, terms), outputs // (4 * unit)
        begin, end = first * each, min(quarter, stop * each)
        more = scratch + 16 * CHUNK * rows
        while begin < end:
            n, done = min(chunk, end - begin), 0
            if has_two:
                if two_pay(kind, terms, rows):
                    while done < n - 1:
                        w, found = weight + (begin + done) * size, scratch + 4 * done
                        two(kind, w, quarter * size, x, x_step, terms, rows, found, 4 * CHUNK, 16 * CHUNK, more)
                        done += 2
            for o in range(done, n):
                w, s, found = weight + (begin + o) * size, scales + (begin + o) * scale, scratch + 4 * unit * o
                streams = quarter * size, quarter * scale
                four(kind, w, s, streams, x, x_step, terms, rows, found, 4 * CHUNK, 16 * CHUNK, more)
            for m in range(rows):
                for q in range(4):
                    o, found = unit * (q * quarter + begin), floats(scratch + 4 * (4 * m + q) * CHUNK, unit * n)
                    b, g = bias + 4 * o if bias else 0, gate + m * gate_step + 4 * o
                    _finish(found, b, activation, mode, g, y + m * y_step + 4 * o)
            begin += n
        o = 4 * unit * quarter
        if stop * each >= quarter and o < outputs:
            n = outputs - o
            for i in range((n + unit - 1) // unit):
                w, s = weight + (4 * quarter + i) * size, scales + (4 * quarter + i) * scale
                one(kind, w, s, x, x_step, terms, rows, scratch + 4 * unit * i, 16 * CHUNK)
            for m in range(rows):
                b, g = bias + 4 * o if bias else 0, gate + m * gate_step + 4 * o
                _finish(floats(scratch + 16 * m * CHUNK, n), b, activation, mode, g, y + m * y_step + 4 * o)

    return product


@inlined
def _two_pay(kind, terms, rows):
    return kind != 0 and rows >= WIDEN_ONCE and terms % (2 * LANES) == 0


@inlined
def _row_bytes(kind, terms):
    return terms * stored_bytes(kind), 0


@inlined
def _four(kind, w, s, steps, x, x_step, terms, rows, y, o_step, y_step, scratch):
    multiply(kind, w, steps[0], x, x_step, terms, rows, y, o_step, y_step)


@inlined
def _one(kind, w, s, x, x_step, terms, rows, y, y_step):
    multiply_run(kind, w, 0, 1, x, x_step, terms, rows, y, y_step)


PRODUCT = Kind("product", x=Rows("I"), **RESULT)
PRODUCT.loop(products(PRODUCT, _four, _one, _row_bytes, two=many_dots if WIDE else None, two_pay=_two_pay))


def blocks_of(weight: Any, unit: int = 1) -> tuple[int, int]:
    """Return into how many blocks the outputs of a matrix are divided, and the units of a quarter that one has.

    A unit is a row, or the rows that are stored side by side.
    """
    outputs, inputs = weight.shape
    units = -(-outputs // unit)
    nbytes = -(-inputs // LANES) * LANES * weight.dtype.itemsize if unit == 1 else weight.blocks.nbytes // units
    each, quarter = max(1, _BLOCK_BYTES // (4 * nbytes)), outputs // (4 * unit)
    return max(1, -(-quarter // each)), each


def scratch_of_products(rows: int) -> int:
    """Return how many float32 numbers of scratch memory a worker needs for the products of a program."""
    return 4 * CHUNK * rows + scratch_of_dots(rows)
