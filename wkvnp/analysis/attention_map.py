"""The attention matrix that a mechanism implies, whether or not it ever computes one.

Every mechanism is linear in the values it passes on, all other arguments held fixed: ``y = A v + y(v = 0)``. So column
i of A is what comes out when the value of token i is 1 and all others are 0: no mechanism needs a formula of its own.

Letters: B batch, T time, H heads, V value width, C channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from .._shapes import as_floats, split_axes
from ..errors import ArgumentError
from ..mechanisms import NAMES
from ..mechanisms._spec import Input, Part, Spec

Array = npt.NDArray[Any]
_NUMBERS_AT_ONCE = 1 << 24
"""Output numbers of one run: columns are taken in blocks, so memory stays near that of the result."""


def attention_matrix(
    mechanism: str | Callable[..., Any],
    *arrays: npt.ArrayLike,
    normalize: bool | None = None,
    rows: npt.ArrayLike | slice | None = None,
    **named: Any,
) -> Array:
    """Return the matrix by which a mechanism weighs the values of earlier tokens.

    ``y_t = sum_i A[t, i] v_i + r_t``, where ``r_t`` is what `state` alone would give: the output for zero values.

    Parameters
    ----------
    mechanism : str or callable
        Its name, or the function itself: ``"rwkv7"`` or ``wkvnp.rwkv7``.
    *arrays : array_like
        The arguments of that function, as one would call it.
    normalize : bool, optional
        True divides the absolute values of the weights, which may be negative, by the sum of their row. A mechanism
        that has an option of this name gets it instead: the rows of `linear_attention` sum to 1 by default.
    rows : index along T, optional
        Which tokens' weights to return; all by default. A slice or an array of positions.

    **named : array_like or option
        More arguments of that function, options and `state` too.

    Returns
    -------
    A : ndarray, shape (B, H, T, T), or (B, C, T, T) where every channel has its own
        Without the axis of heads where there is one matrix for all, without B if the arrays have none. Of the dtype
        in which the mechanism computes. A row of zeros stays zero. A token that writes R times has R
        columns side by side.

    Raises
    ------
    ArgumentError
        If the mechanism is unknown, `rows` does not fit, packed sequences are given, or an argument is
        refused by the mechanism.

    Notes
    -----
    Takes T times the work and memory of the mechanism divided by its value width, and by C more where every channel has
    a matrix of its own. `rows` saves memory, not work.

    References
    ----------
    Ali et al. 2024, "The Hidden Attention of Mamba Models" (arXiv:2403.01590), for the idea of such matrices.

    Examples
    --------
    A token's weight halves with every step, and no row sees the future:

    >>> import numpy as np
    >>> one = np.ones((3, 1, 1))
    >>> attention_matrix("rwkv6", one, np.log(0.5) * one, one, one, [[2.0]])
    array([[[2. , 0. , 0. ],
            [1. , 2. , 0. ],
            [0.5, 1. , 2. ]]])
    """
    if hasattr(mechanism, "config"):
        raise ArgumentError(
            "attention_matrix: mechanism must be the name of a mechanism or its function, as 'rwkv7' or wkvnp.rwkv7; "
            f"got the model {mechanism!r:.80}; each of its layers runs a mechanism: give the arrays of one"
        )
    name = mechanism if isinstance(mechanism, str) else getattr(mechanism, "__name__", repr(mechanism))
    if name not in NAMES:
        raise ArgumentError(f"attention_matrix: mechanism must be one of {', '.join(NAMES)}; got {name!r}")
    if named.get("cu_seqlens") is not None:
        raise ArgumentError("attention_matrix: cu_seqlens must be None; give one sequence, or a batch of equal ones")
    module = import_module(f"..mechanisms.{name}", __package__)
    spec, function = module.SPEC, getattr(module, name)
    if len(arrays) > len(spec.inputs):
        raise ArgumentError(f"attention_matrix: {name} takes {len(spec.inputs)} arrays; got {len(arrays)}")
    if normalize is not None and "normalize" in inspect.signature(function).parameters:
        named, normalize = named | {"normalize": normalize}, None
    given = dict(zip((i.name for i in spec.inputs), arrays, strict=False)) | named
    function(**given)  # refuses what does not fit, in its own words
    A = _raw(spec, function, given, rows)
    if not normalize:
        return A
    A = np.abs(A)
    shares: Array = A / np.maximum(A.sum(axis=-1, keepdims=True), np.finfo(A.dtype).tiny)
    return shares


def _raw(spec: Spec, function: Callable[..., Any], given: dict[str, Any], rows: Any) -> Array:
    """Run the mechanism on unit values, a block of columns at a time."""
    declared = next(i for i in spec.inputs if i.name == spec.value)
    value = as_floats(spec.name, spec.value, given[spec.value])
    letters = split_axes(declared.axes[0])
    batched = value.ndim == len(letters)
    time, last = (1 if batched else 0), letters[-1]
    units = _Units(spec, last, batched, _own(spec, declared, last, given))
    channels = value.shape[-1] if units.own else 1
    own_steps = value.shape[time + 1 : time + 2] if letters[2] == "R" else ()  # a token may write several times
    writes = np.prod((value.shape[time], *own_steps), dtype=int)
    block = max(1, min(writes, _NUMBERS_AT_ONCE // max(1, value[..., 0].size * channels)))
    columns = []
    for begin in range(0, max(writes, 1), block):
        size = min(block, writes - begin)
        where = np.unravel_index(np.arange(begin, begin + size), (value.shape[time], *own_steps))
        one = np.zeros((*value.shape[:-1], channels, size), np.promote_types(value.dtype, np.float32))
        front = range(len(where))
        ones: tuple[Any, ...] = (*where, ..., np.arange(size))
        np.moveaxis(one, [time + i for i in front], front)[ones] = 1
        y, _ = function(**units.arguments(given, size), **{spec.value: one.reshape(*value.shape[:-1], -1)})
        y = y.reshape(*y.shape[:-1], channels, size) if units.own else y
        y = np.moveaxis(y, time, -2)
        columns.append(y if rows is None else y[..., rows, :])
    return np.concatenate(columns, axis=-1)


def _own(spec: Spec, value: Input, last: str, given: Mapping[str, Any]) -> bool:
    """Say whether every channel of the values has a matrix of its own: its axis is in another argument."""
    others = [i for i in spec.inputs if i is not value and given.get(i.name) is not None]
    return any(last in split_axes(i.axes_of(np.ndim(given[i.name]))) for i in others)


@dataclass(frozen=True)
class _Units:
    """How the other arguments change when the values' last axis becomes one of unit values."""

    spec: Spec
    last: str
    batched: bool
    own: bool

    def arguments(self, given: Mapping[str, Any], size: int) -> dict[str, Any]:
        """Return all arguments but the values; what has a number per channel is repeated for every unit."""
        out = {self.spec.value, *(i.name for i in self.spec.inputs if i.added)}
        arguments = {name: array for name, array in given.items() if name not in out}
        if self.own:
            for i in self.spec.inputs:
                if i.name in arguments and arguments[i.name] is not None:
                    arguments[i.name] = self._repeated(np.asarray(arguments[i.name]), i.axes, size)
        if (state := given.get("state")) is not None:
            arguments["state"] = self._state(state, size)
        return arguments

    def _repeated(self, array: Array, axes: tuple[str, ...], size: int) -> Array:
        letters = next((a for a in map(split_axes, axes) if len(a) == array.ndim), split_axes(axes[0])[1:])
        return np.repeat(array, size, axis=letters.index(self.last)) if self.last in letters else array

    def _state(self, state: Any, size: int) -> Any:
        """Return the state without the values it holds, but with all that weighs them."""
        if self.spec.state_parts:
            return tuple(
                self._part(np.asarray(array), part, size)
                for array, part in zip(state, self.spec.state_parts, strict=True)
            )
        if self.spec.state_axes:
            return self._part(np.asarray(state), Part("", self.spec.state_axes), size)
        return state.without_values(size)

    def _part(self, array: Array, part: Part, size: int) -> Array:
        letters = split_axes(part.axes)[0 if self.batched else 1 :]
        array = np.zeros_like(array) if part.linear else array
        if self.last not in letters:
            return array
        axis = letters.index(self.last)
        return np.repeat(array if self.own else np.take(array, [0], axis), size, axis=axis)
