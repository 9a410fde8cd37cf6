"""Spec: the letters, domains and state of one mechanism, declared once.

The front door uses it to check and pack what it is given; tests, benchmarks and the attention matrix use it to draw
valid inputs and to know which argument a mechanism passes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .._device import device_of
from .._dtypes import narrow
from .._shapes import as_floats, check_axes, compute_dtype, contiguous, reversed_sequences, sequence_offsets, split_axes
from ..errors import ArgumentError, ShapeError

Array = npt.NDArray[Any]
Domain = Literal["signed", "log_decay", "gate", "strength", "positive", "pole"]
"""Where numbers must be: anywhere, at most 0, from 0 to 1, from 0 to 2, at least 0, with a real part of at most 0."""
_BETWEEN = {"gate": (0, 1), "strength": (0, 2)}


@dataclass(frozen=True)
class Input:
    """One array argument: its name, the axis letters it may have, and where its numbers must be.

    `drawn` says how tests draw numbers of a narrower kind: directions are shorter than 1, shares are between 0 and 1.

    An optional one may be None. A pole is the rate of a continuous decay: below 0, or complex with such a real part;
    only poles and other inputs with `may_be_complex` may be complex. What is `added` is a term of the output
    that does not depend on the values, and optional.
    """

    name: str
    axes: tuple[str, ...]
    domain: Domain = "signed"
    optional: bool = False
    may_be_complex: bool = False
    added: bool = False
    drawn: Literal["", "direction", "share"] = ""

    @property
    def sequential(self) -> bool:
        """Whether it has a time axis."""
        return "T" in split_axes(self.axes[0])

    def axes_of(self, ndim: int) -> str:
        """Return the alternative with that many axes, else the first, so that a message names it."""
        return next((axes for axes in self.axes if len(split_axes(axes)) == ndim), self.axes[0])

    def draw(self, rng: np.random.Generator, sizes: Mapping[str, int], dtype: npt.DTypeLike) -> Array:
        """Draw valid numbers for the first of the axes."""
        shape = [sizes[a] if a in sizes else sizes[a[0]] - 1 for a in self.axes[0].split()]  # "W-1" is one less than W
        numbers = rng.standard_normal(shape)
        if self.domain in ("log_decay", "pole"):
            numbers = -np.exp(1.5 * numbers - 2)
        elif self.domain in _BETWEEN or self.drawn == "share":
            numbers = 1 / (1 + np.exp(-numbers))
        elif self.drawn == "direction":
            numbers = 0.9 * numbers / np.linalg.norm(numbers, axis=-1, keepdims=True)
        elif self.domain == "positive":
            numbers = np.exp(numbers - 1)
        return numbers.astype(dtype)

    def check_domain(self, function: str, array: Array) -> None:
        """Refuse numbers outside the domain where they would make a result meaningless."""
        if self.domain == "log_decay" and array.size and (top := array.max()) > 0:
            raise ArgumentError(f"{function}: {self.name} must be at most 0 (it is a logarithm); got {top:.6g}")
        if self.domain == "pole" and array.size and (top := array.real.max()) > 0:
            raise ArgumentError(f"{function}: {self.name} must be at most 0, or decay would be growth; got {top:.6g}")
        if self.domain in _BETWEEN and array.size:
            (low, high), least, top = _BETWEEN[self.domain], array.min(), array.max()
            if least < low or top > high:
                words = f"{self.name} must be between {low} and {high}; got {least:.6g} to {top:.6g}"
                raise ArgumentError(f"{function}: {words}")
        if self.domain == "positive" and array.size and (least := array.min()) < 0:
            raise ArgumentError(f"{function}: {self.name} must not be negative; got {least:.6g}")


@dataclass(frozen=True)
class Part:
    """One array of a state that is a named tuple.

    `linear` parts are proportional to the values that went in; the others are sums of weights, maxima or counts.
    """

    name: str
    axes: str
    linear: bool = True
    double: bool = False  # float64 always
    domain: Domain = "signed"


class Call(NamedTuple):
    """Checked arguments on one packed time axis, and the way back."""

    arrays: dict[str, Any]  # optional ones may be None
    offsets: npt.NDArray[np.int64]
    state: Any
    leave: Callable[[Array, Any], tuple[Array, Any]]


@dataclass(frozen=True)
class Spec:
    """Arguments in call order, and the state: one array, a named tuple of arrays, or a class of its own.

    A class of its own has ``checked(function, state, dtype, sizes, batched)``, which returns a state of `sizes["B"]`
    sequences or raises, and ``state[n]``, one sequence of it.
    """

    name: str
    inputs: tuple[Input, ...]
    state_axes: str = ""
    state_parts: tuple[Part, ...] = ()
    state_type: Any = None
    value: str = "v"  # the argument in which the output is linear
    divides: tuple[tuple[str, str], ...] = ()  # (G, H): G must divide H
    variants: tuple[Mapping[str, Any], ...] = ({},)  # options under which tests run the front door

    def enter(self, values: Mapping[str, Any], state: Any, cu_seqlens: Any, reverse: bool = False) -> Call:
        """Check the arguments and lay the sequences behind each other."""
        device_of(self.name, **values)
        given = {
            i.name: as_floats(self.name, i.name, values[i.name], i.may_be_complex)
            for i in self.inputs
            if not (i.optional and values[i.name] is None)
        }
        dtype = compute_dtype(self.name, given)
        lead = next(i for i in self.inputs if i.sequential)
        batched = given[lead.name].ndim == len(split_axes(lead.axes[0]))
        present = [i for i in self.inputs if i.name in given]
        sizes: dict[str, tuple[int, str]] = {}
        for i in present:
            if i.sequential and not batched:
                given[i.name] = given[i.name][None]
            check_axes(self.name, i.name, given[i.name], i.axes_of(given[i.name].ndim), sizes)
        for few, many in self.divides:
            if few in sizes and sizes[many][0] % (sizes[few][0] or sizes[many][0] + 1):  # no groups serve no heads only
                (a, source), (b, other) = sizes[few], sizes[many]
                raise ShapeError(f"{self.name}: {few}={a} of {source} must divide {many}={b} of {other}")
        offsets = sequence_offsets(self.name, cu_seqlens, sizes["B"][0], sizes["T"][0])
        wide = np.result_type(dtype, np.complex64) if any(a.dtype.kind == "c" for a in given.values()) else dtype
        arrays: dict[str, Any] = {i.name: None for i in self.inputs}
        order = reversed_sequences(offsets) if reverse else None
        for i in present:
            array = contiguous(given[i.name], wide if i.may_be_complex else dtype)
            i.check_domain(self.name, array)
            if i.sequential:
                array = array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
                array = array if order is None else array[order]
            arrays[i.name] = array
        first = self._state(state, wide, sizes, offsets.size - 1, batched or cu_seqlens is not None)
        outputs = {given[i.name].dtype for i in present if i.sequential and not i.may_be_complex}
        narrowed = outputs.pop() if len(outputs) == 1 else dtype

        def leave(y: Array, final: Any) -> tuple[Array, Any]:
            y = y if order is None else y[order]
            # A bfloat16 that is not our own has the same bits under another name.
            y = narrow(y, narrowed).view(narrowed).reshape(sizes["B"][0], sizes["T"][0], *y.shape[1:])
            single = not batched and cu_seqlens is None
            return (y if batched else y[0]), (self._map_state(lambda part: part[0], final) if single else final)

        return Call(arrays, offsets, first, leave)

    def draw(self, rng: np.random.Generator, sizes: Mapping[str, int], dtype: npt.DTypeLike) -> dict[str, Array]:
        """Draw valid arguments, the optional ones too."""
        return {i.name: i.draw(rng, sizes, dtype) for i in self.inputs}

    def draw_state(self, rng: np.random.Generator, sizes: Mapping[str, int], dtype: npt.DTypeLike) -> Any:
        """Draw a state that a sequence could have left."""
        wide = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        if self.state_parts:
            parts = [Input(p.name, (p.axes,), p.domain).draw(rng, sizes, np.float64) for p in self.state_parts]
            kept = zip(parts, self.state_parts, strict=True)
            return self._state_of([array if part.double else array.astype(wide) for array, part in kept])
        if self.state_axes:
            return Input("state", (self.state_axes,)).draw(rng, sizes, wide)
        return self.state_type.draw(rng, sizes, wide)

    def _state(self, state: Any, dtype: Any, sizes: dict[str, tuple[int, str]], n: int, batched: bool) -> Any:
        """Check a state given by the caller; return it as arrays (N, ...), or None."""
        if state is None:
            return None
        sizes = {**sizes, "B": (n, "the sequences")}
        sizes |= {f"{letter}-1": (size - 1, source) for letter, (size, source) in sizes.items()}
        if not self.state_axes and not self.state_parts:
            return self.state_type.checked(self.name, state, dtype, sizes, batched)
        parts = self.state_parts or (Part("", self.state_axes),)
        if self.state_parts and (not isinstance(state, tuple) or len(state) != len(parts)):
            names = ", ".join(part.name for part in parts)
            raise ArgumentError(f"{self.name}: state must be a tuple ({names}); got {type(state).__name__}")

        def check(part: Part, value: Any) -> Array:
            label = f"state.{part.name}" if part.name else "state"
            array = as_floats(self.name, label, value, np.dtype(dtype).kind == "c")
            array = array if batched else array[None]
            check_axes(self.name, label, array, part.axes, sizes)
            return contiguous(array, np.dtype(np.float64) if part.double else dtype)

        if not self.state_parts:
            return check(parts[0], state)
        return self._state_of([check(part, value) for part, value in zip(parts, state, strict=True)])

    def _map_state(self, function: Callable[[Any], Any], state: Any) -> Any:
        """Apply `function` to every array of a state, or to the state if it is a class of its own."""
        return self._state_of([function(part) for part in state]) if self.state_parts else function(state)

    def _state_of(self, parts: list[Array]) -> Any:
        """Return parts as the named tuple that they make."""
        return self.state_type(*parts)
