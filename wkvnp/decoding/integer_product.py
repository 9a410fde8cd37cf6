# mypy: allow-untyped-defs
"""Some outputs of a quantised matrix."""

from __future__ import annotations

from typing import Any

from .._jit import inlined
from .._quantised import GROUP
from .ahead import ask_for, share_of
from .dots import WIDE
from .integer_dots import INSTRUCTIONS, INTEGERS, integer_dots
from .product import products


def integer_product(instruction: str = INSTRUCTIONS[0]) -> Any:
    """Return the step that computes outputs of a quantised matrix with a kind of instructions."""

    def tile(outputs: int, rows: int) -> Any:
        int8, int4 = (integer_dots(outputs, rows, kind, instruction) for kind in INTEGERS)

        @inlined
        def of_kind(kind, w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step):
            if kind == 0:
                int8(w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step)
            else:
                int4(w, w_step, s, s_step, x, x_step, terms, y, o_step, y_step)

        return of_kind

    many = 2 if WIDE else 1
    one_by_one, four_by_one = tile(1, 1), tile(4, 1)
    four_by_some = tile(4, many) if many > 1 else four_by_one

    @inlined
    def row_bytes(kind, terms):
        return terms if kind == 0 else terms // 2, 2 * (terms // GROUP)

    @inlined
    def four(kind, w, w_step, s, s_step, x, x_step, terms, rows, y, o_step, y_step):
        m, ahead = 0, terms if kind == 0 else terms // 2
        share = share_of(ahead, rows // many)
        while m + many <= rows:
            ask_for(w, w_step, ahead, ahead + share)
            four_by_some(kind, w, w_step, s, s_step, x + m * x_step, x_step, terms, y + m * y_step, o_step, y_step)
            m, ahead = m + many, ahead + share
        while m < rows:
            four_by_one(kind, w, w_step, s, s_step, x + m * x_step, 0, terms, y + m * y_step, o_step, 0)
            m += 1

    @inlined
    def one(kind, w, s, x, x_step, terms, rows, y, y_step):
        for m in range(rows):
            one_by_one(kind, w, 0, s, 0, x + m * x_step, 0, terms, y + m * y_step, 0, 0)

    return products(four, one, row_bytes)
