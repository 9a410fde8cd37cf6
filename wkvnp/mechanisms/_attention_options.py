"""What softmax attention and its relatives share: checks of options, and keys of another length than the queries."""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from typing import Any

from ..errors import ArgumentError
from ._spec import Input, Spec


def whole(function: str, name: str, value: Any, least: int = 1) -> int:
    """Return an option that counts something."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError(f"{function}: {name} must be a whole number from {least}; got {value!r}")
    return number


def positive(function: str, name: str, value: Any) -> float:
    """Return an option that must be above 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentError(f"{function}: {name} must be a number above 0; got {value!r}")
    return number


def scale_of(function: str, scale: Any, K: int) -> float:
    """Return the factor on the scores: one over the root of the key width unless stated."""
    return K**-0.5 if scale is None and K else 1.0 if scale is None else positive(function, "scale", scale)


def refuse_state(function: str, state: Any, causal: bool) -> None:
    """Refuse to go on from a state where tokens would have to see those that have not come yet."""
    if state is not None and not causal:
        raise ArgumentError(
            f"{function}: state must be None when causal is False; a token would have to see later calls"
        )


class _OtherTime(Input):
    """An input with a time axis of its own."""

    @property
    def sequential(self) -> bool:
        """Whether it has a time axis."""
        return True


def crossing(spec: Spec) -> Spec:
    """Return `spec` for keys and values of another length S than the queries."""

    def renamed(i: Input) -> Input:
        return _OtherTime(i.name, (i.axes[0].replace("T", "S"),)) if i.name in ("k", "v") else i

    return replace(spec, inputs=tuple(map(renamed, spec.inputs)))
