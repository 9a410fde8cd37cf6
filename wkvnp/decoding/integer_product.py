# mypy: allow-untyped-defs
"""Some outputs of a quantised matrix."""

from __future__ import annotations

from typing import Any

from .._jit import inlined
from .._matrix_unit import available
from .._quantised import BLOCK_ROWS, GROUP
from .ahead import prefetch_rows, share_of
from .dots import WIDE
from .fields import Kind, Rows, Size
from .integer_dots import BYTES, INSTRUCTIONS, INTEGERS, integer_dots
from .integer_tiles import ROWS, integer_tiles, scratch_of_tiles
from .product import CHUNK, RESULT, products

ROWS_AT_ONCE = 8 if WIDE else 2
"""Rows of activations that meet a block at once: each has a vector of sums, and a block's group is eight more."""


INTEGER_PRODUCT = Kind("integer product", x=Rows("A"), **RESULT, A=Size())


def integer_product(instruction: str = INSTRUCTIONS[0], unit: bool = True) -> Any:
    """Return the loop that computes outputs of a quantised matrix, with a kind of instructions.

    Many rows of activations go to the matrix unit, if there is one and they may.
    """
    has_unit = unit and available()

    def tile(blocks: int, rows: int) -> Any:
        int8, int4 = (integer_dots(blocks, rows, kind, instruction) for kind in INTEGERS)

        @inlined
        def of_kind(kind, w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step):
            if kind == 0:
                int8(w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step)
            else:
                int4(w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step)

        return of_kind

    one_by_one, four_by_one, one_by_many = tile(1, 1), tile(4, 1), tile(1, ROWS_AT_ONCE)

    @inlined
    def block_bytes(kind, terms):
        return terms // GROUP * (BYTES[0] if kind == 0 else BYTES[1]), terms // GROUP * 2 * BLOCK_ROWS

    @inlined
    def four(kind, w, s, steps, x, x_step, terms, rows, y, o_step, y_step, scratch):
        (w_step, s_step), m, (ahead, _) = steps, 0, block_bytes(kind, terms)
        if has_unit:
            m = rows // ROWS * ROWS
            if m > 0:
                share = share_of(ahead, 4)
                for q in range(4):
                    prefetch_rows(w, w_step, ahead + q * share, ahead + q * share + share)
                    block, scales, to = w + q * w_step, s + q * s_step, y + q * o_step
                    integer_tiles(kind, block, scales, x, x_step, terms, m, to, y_step, scratch)
        share = share_of(ahead, rows // ROWS_AT_ONCE * 4)
        while m + ROWS_AT_ONCE <= rows:
            for q in range(4):
                block, scales = w + q * w_step, s + q * s_step
                prefetch_rows(w, w_step, ahead, ahead + share)
                one_by_many(
                    kind, block, 0, scales, 0, x + m * x_step, x_step, terms, y + q * o_step + m * y_step, 0, y_step
                )
                ahead += share
            m += ROWS_AT_ONCE
        while m < rows:
            four_by_one(kind, w, w_step, s, s_step, x + m * x_step, 0, terms, y + m * y_step, o_step, 0)
            m += 1

    @inlined
    def one(kind, w, s, x, x_step, terms, rows, y, y_step):
        for m in range(rows):
            one_by_one(kind, w, 0, s, 0, x + m * x_step, 0, terms, y + m * y_step, 0, 0)

    return products(INTEGER_PRODUCT, four, one, block_bytes, unit=BLOCK_ROWS)


INTEGER_PRODUCT.loop(integer_product())


def scratch_of_integers(rows: int, terms: int) -> int:
    """Return how many float32 numbers of scratch memory a worker needs for a product with a quantised matrix."""
    return 4 * CHUNK * rows + scratch_of_tiles(terms)
