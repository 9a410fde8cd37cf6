"""Spec: the letters, domains and state of one mechanism, declared once.

The front door uses it to check and pack what it is given; tests and benchmarks use it to draw valid inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .._device import device_of
from .._dtypes import narrow
from .._shapes import as_floats, check_axes, compute_dtype, contiguous, sequence_offsets, split_axes
from ..errors import ShapeError

Array = npt.NDArray[Any]
Domain = Literal["signed", "log_decay", "unit", "direction"]


@dataclass(frozen=True)
class Input:
    """One array argument: its name, the axis letters it may have, and where its numbers live."""

    name: str
    axes: tuple[str, ...]
    domain: Domain = "signed"

    @property
    def sequential(self) -> bool:
        """Whether it has a time axis."""
        return "T" in self.axes[0]

    def axes_of(self, ndim: int) -> str:
        """Return the alternative with that many axes, else the first, so that a message names it."""
        return next((axes for axes in self.axes if len(split_axes(axes)) == ndim), self.axes[0])

    def draw(self, rng: np.random.Generator, sizes: Mapping[str, int], dtype: npt.DTypeLike) -> Array:
        """Draw valid numbers for the first of the axes."""
        shape = [sizes[letter] for letter in self.axes[0].split()]
        numbers = rng.standard_normal(shape)
        if self.domain == "log_decay":
            numbers = -np.exp(1.5 * numbers - 2)
        elif self.domain == "unit":
            numbers = 1 / (1 + np.exp(-numbers))
        elif self.domain == "direction":
            numbers = 0.9 * numbers / np.linalg.norm(numbers, axis=-1, keepdims=True)
        return numbers.astype(dtype)


class Call(NamedTuple):
    """Checked arguments on one packed time axis, and the way back."""

    arrays: dict[str, Array]
    offsets: npt.NDArray[np.int64]
    state: Any
    leave: Callable[[Array, Any], tuple[Array, Any]]


@dataclass(frozen=True)
class Spec:
    """Arguments in call order, and the state: one array, or a named tuple of arrays."""

    name: str
    inputs: tuple[Input, ...]
    state_axes: str
    state_type: type[tuple[Any, ...]] | None = None
    doubles: tuple[str, ...] = ()  # parts of the state that are float64 always

    def enter(self, values: Mapping[str, Any], state: Any, cu_seqlens: Any) -> Call:
        """Check the arguments and lay the sequences behind each other."""
        device_of(self.name, **values)
        given = {i.name: as_floats(self.name, i.name, values[i.name]) for i in self.inputs}
        dtype = compute_dtype(self.name, given)
        lead = next(i for i in self.inputs if i.sequential)
        batched = given[lead.name].ndim == len(split_axes(lead.axes[0]))
        sizes: dict[str, tuple[int, str]] = {}
        for i in self.inputs:
            if i.sequential and not batched:
                given[i.name] = given[i.name][None]
            check_axes(self.name, i.name, given[i.name], i.axes_of(given[i.name].ndim), sizes)
        offsets = sequence_offsets(self.name, cu_seqlens, sizes["B"][0], sizes["T"][0])
        arrays = {i.name: contiguous(given[i.name], dtype) for i in self.inputs}
        for i in self.inputs:
            if i.domain == "log_decay" and arrays[i.name].size and (top := arrays[i.name].max()) > 0:
                raise ShapeError(f"{self.name}: {i.name} must be at most 0 (it is a logarithm); got {top:.6g}")
        arrays |= {i.name: arrays[i.name].reshape(-1, *arrays[i.name].shape[2:]) for i in self.inputs if i.sequential}
        first = self._state(state, dtype, sizes, offsets.size - 1, batched or cu_seqlens is not None)

        outputs = {given[i.name].dtype for i in self.inputs if i.sequential}
        narrowed = outputs.pop() if len(outputs) == 1 else dtype

        def leave(y: Array, final: Any) -> tuple[Array, Any]:
            # A bfloat16 that is not our own has the same bits under another name.
            y = narrow(y, narrowed).view(narrowed).reshape(sizes["B"][0], sizes["T"][0], *y.shape[1:])
            single = not batched and cu_seqlens is None
            return (y if batched else y[0]), (self._map_state(lambda part: part[0], final) if single else final)

        return Call(arrays, offsets, first, leave)

    def draw(self, rng: np.random.Generator, sizes: Mapping[str, int], dtype: npt.DTypeLike) -> dict[str, Array]:
        """Draw valid arguments."""
        return {i.name: i.draw(rng, sizes, dtype) for i in self.inputs}

    def draw_state(self, rng: np.random.Generator, sizes: Mapping[str, int], dtype: npt.DTypeLike) -> Any:
        """Draw a state that a sequence could have left: positive where it divides."""
        shape = [sizes[letter] for letter in self.state_axes.split()]
        if self.state_type is None:
            return rng.standard_normal(shape).astype(dtype)
        aa, bb, pp = rng.standard_normal(shape), 1 + rng.random(shape), rng.standard_normal(shape)
        return self._state_of([aa.astype(dtype), bb.astype(dtype), pp])

    def _state(self, state: Any, dtype: Any, sizes: dict[str, tuple[int, str]], n: int, batched: bool) -> Any:
        """Check a state given by the caller; return it as arrays (N, ...), or None."""
        if state is None:
            return None
        sizes = {**sizes, "B": (n, "the sequences")}
        names = getattr(self.state_type, "_fields", ("",))
        if self.state_type is not None and (not isinstance(state, tuple) or len(state) != len(names)):
            raise ShapeError(f"{self.name}: state must be a tuple ({', '.join(names)}); got {type(state).__name__}")

        def check(name: str, value: Any) -> Array:
            label = f"state.{name}" if name else "state"
            part = as_floats(self.name, label, value)
            part = part if batched else part[None]
            check_axes(self.name, label, part, self.state_axes, sizes)
            return contiguous(part, np.dtype(np.float64) if name in self.doubles else dtype)

        if self.state_type is None:
            return check("", state)
        return self._state_of([check(name, part) for name, part in zip(names, state, strict=True)])

    def _map_state(self, function: Callable[[Array], Array], state: Any) -> Any:
        """Apply `function` to every array of a state."""
        return function(state) if self.state_type is None else self._state_of([function(part) for part in state])

    def _state_of(self, parts: list[Array]) -> Any:
        """Return parts as the named tuple that they make."""
        make: Any = self.state_type
        return make(*parts)
