"""Present the tensors of another naming scheme under the original names and in the original layout, lazily.

A scheme is a table of `Rule`: their name, our name, and steps from a closed list. They move elements and never change
a value, but for `Logarithm` and `Scale`, which take back what the writer of a file has computed. Shapes are known
without reading anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .._dtypes import dtype_name, narrow, widen
from ..errors import CheckpointError
from .tensors import LazyTensor, quoted

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]


class Step(Protocol):
    """A change of layout; `shape` returns None where a shape does not allow it."""

    def shape(self, shape: Shape) -> Shape | None:
        """Return the shape after the step."""

    def apply(self, array: Array) -> Array:
        """Return the array after the step."""


@dataclass(frozen=True)
class Transpose:
    """Swap the last two axes."""

    def shape(self, shape: Shape) -> Shape | None:
        """Return the shape after the step."""
        return (*shape[:-2], shape[-1], shape[-2]) if len(shape) >= 2 else None

    def apply(self, array: Array) -> Array:
        """Return the array after the step."""
        return np.swapaxes(array, -1, -2)


@dataclass(frozen=True)
class Reshape:
    """Give the array another shape; one size may be -1."""

    sizes: tuple[int, ...]

    def shape(self, shape: Shape) -> Shape | None:
        """Return the shape after the step."""
        known = math.prod(size for size in self.sizes if size != -1)
        total = math.prod(shape)
        if -1 not in self.sizes:
            return self.sizes if known == total else None
        return None if total % known else tuple(total // known if size == -1 else size for size in self.sizes)

    def apply(self, array: Array) -> Array:
        """Return the array after the step."""
        return array.reshape(self.shape(array.shape) or ())


@dataclass(frozen=True)
class Group:
    """Cut the first axis into `count` groups: ``(count * n, ...)`` becomes ``(count, n, ...)``."""

    count: int

    def shape(self, shape: Shape) -> Shape | None:
        """Return the shape after the step."""
        if not shape or shape[0] % self.count:
            return None
        return (self.count, shape[0] // self.count, *shape[1:])

    def apply(self, array: Array) -> Array:
        """Return the array after the step."""
        return array.reshape(self.shape(array.shape) or ())


@dataclass(frozen=True)
class Reorder:
    """Cut the first axis into groups and put them into another order: group ``i`` of the result was ``order[i]``."""

    order: tuple[int, ...]

    def shape(self, shape: Shape) -> Shape | None:
        """Return the shape after the step."""
        return shape if shape and shape[0] % len(self.order) == 0 else None

    def apply(self, array: Array) -> Array:
        """Return the array after the step."""
        groups = array.reshape(len(self.order), -1, *array.shape[1:])
        return groups[list(self.order)].reshape(array.shape)


@dataclass(frozen=True)
class Deinterleave:
    """Cut the first axis into `count` groups, and in each put the rows of even number before those of odd number."""

    count: int

    def shape(self, shape: Shape) -> Shape | None:
        """Return the shape after the step."""
        return shape if shape and shape[0] % (2 * self.count) == 0 else None

    def apply(self, array: Array) -> Array:
        """Return the array after the step."""
        pairs = array.reshape(self.count, -1, 2, *array.shape[1:])
        return np.swapaxes(pairs, 1, 2).reshape(array.shape)


@dataclass(frozen=True)
class Scale:
    """Multiply by two to the power of `exponent`, which must be exact."""

    exponent: int

    def shape(self, shape: Shape) -> Shape | None:
        """Return the shape after the step."""
        return shape

    def apply(self, array: Array) -> Array:
        """Return the array after the step."""
        wide = widen(array)
        with np.errstate(over="ignore"):
            scaled = narrow(np.ldexp(wide, self.exponent), array.dtype)
        if not np.array_equal(np.ldexp(widen(scaled), -self.exponent), wide, equal_nan=True):
            raise ValueError(f"must fit {dtype_name(array.dtype)} after multiplication by 2**{self.exponent}")
        return scaled


# What a container stores of x -> the range of that, and x again.
_INVERSES: dict[str, tuple[float, float, Callable[[Array], Array]]] = {
    "exp(x)": (0.0, math.inf, np.log),
    "-exp(x)": (-math.inf, 0.0, lambda y: np.log(-y)),
    "exp(-exp(x))": (0.0, 1.0, lambda y: np.log(-np.log(y))),
}


@dataclass(frozen=True)
class Logarithm:
    """Return the x of which a container stores an exponential; computed in float64 and rounded once.

    A number that was rounded to the end of the range becomes an infinity, which the exponential takes back there.
    """

    stored: Literal["exp(x)", "-exp(x)", "exp(-exp(x))"]

    def shape(self, shape: Shape) -> Shape | None:
        """Return the shape after the step."""
        return shape

    def apply(self, array: Array) -> Array:
        """Return the array after the step."""
        low, high, inverse = _INVERSES[self.stored]
        wide = widen(array).astype(np.float64)
        within = (wide >= low) & (wide <= high)
        if not within.all():
            raise ValueError(f"must be {self.stored}, within {low:g} and {high:g}; got {wide[~within][0]:g}")
        with np.errstate(divide="ignore"):
            return narrow(inverse(wide), array.dtype)


@dataclass(frozen=True)
class Rule:
    """Their name (a regular expression for the whole of it), ours (a template for `re.Match.expand`), and the steps.

    Several names in `ours` split the tensor along its first axis, after the steps, into that many equal parts. Steps
    that are not the same for every layer come from a function of the match.
    """

    theirs: str
    ours: str | tuple[str, ...]
    steps: tuple[Step, ...] | Callable[[re.Match[str]], tuple[Step, ...]] = ()


class Renamed(Mapping[str, LazyTensor]):
    r"""The tensors of a file under the names and layouts that a table of rules gives them.

    Parameters
    ----------
    tensors : mapping of str to LazyTensor
        The tensors as the file has them.
    rules : sequence of Rule
        The first rule that matches a name counts; a name that none matches stays as it is.
    source : str
        What to call the file in an error.

    Raises
    ------
    CheckpointError
        If a shape does not allow the steps of its rule, or two tensors end under one name.

    Examples
    --------
    >>> theirs = {"layers.0.down": LazyTensor.of("layers.0.down", np.array([[1.0, 2.0, 3.0]]))}
    >>> ours = Renamed(theirs, [Rule(r"layers\.(\d+)\.down", r"blocks.\1.w1", (Transpose(),))], source="a file")
    >>> dict(ours)["blocks.0.w1"].shape
    (3, 1)
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], rules: Sequence[Rule], *, source: str) -> None:
        self._tensors: dict[str, LazyTensor] = {}
        compiled = [(re.compile(rule.theirs), rule) for rule in rules]
        for tensor in tensors.values():
            for renamed in _rename(tensor, compiled, source):
                if renamed.name in self._tensors:
                    raise CheckpointError(f"{source}: two tensors are both {quoted(renamed.name)} after renaming")
                self._tensors[renamed.name] = renamed

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _rename(tensor: LazyTensor, rules: Sequence[tuple[re.Pattern[str], Rule]], source: str) -> list[LazyTensor]:
    for pattern, rule in rules:
        match = pattern.fullmatch(tensor.name)
        if match is None:
            continue
        names = [match.expand(name) for name in ([rule.ours] if isinstance(rule.ours, str) else rule.ours)]
        steps = rule.steps(match) if callable(rule.steps) else rule.steps
        shape: Shape | None = tensor.shape
        for step in steps:
            shape = step.shape(shape) if shape is not None else None
        if shape is None or (len(names) > 1 and (not shape or shape[0] % len(names))):
            raise CheckpointError(
                f"{source}: tensor {quoted(tensor.name)} cannot become {' '.join(names)}; its shape is {tensor.shape}"
            )
        if len(names) > 1:
            shape = (shape[0] // len(names), *shape[1:])
        read = _after(tensor, steps, source)
        return [_part(tensor, name, shape, read, number, len(names)) for number, name in enumerate(names)]
    return [tensor]


def _after(tensor: LazyTensor, steps: Sequence[Step], source: str) -> Callable[[], Array]:
    """Return what reads a tensor and takes it through its steps."""

    def read() -> Array:
        array = tensor.read()
        for step in steps:
            try:
                array = step.apply(array)
            except ValueError as fault:
                raise CheckpointError(f"{source}: tensor {quoted(tensor.name)} {fault}") from None
        return array

    return read


def _part(
    tensor: LazyTensor, name: str, shape: Shape, read: Callable[[], Array], number: int, count: int
) -> LazyTensor:  # fmt: skip
    """Return part `number` of the `count` equal parts of a tensor after its steps."""

    def load() -> Array:
        array = read()
        return array if count == 1 else array[number * shape[0] : (number + 1) * shape[0]]

    return LazyTensor(name, shape, tensor.dtype, load)
