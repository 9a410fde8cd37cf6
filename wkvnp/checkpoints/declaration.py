"""Declare the weights of a model as nested dataclasses, and walk such a declaration.

The dotted path of a field is the tensor name of the original authors, and every array carries its axes::

    @dataclass(frozen=True, eq=False)
    class TimeMix:
        x_r: Annotated[Array, "1 1 C"]
        receptance: Annotated[Matrix, "A C"]            # att.receptance.weight
        ln_x: Annotated[Norm, "A"]                      # its weight and its bias
        v0: Annotated[Array | None, "1 1 C"] = None     # may be absent

An axis is a size (``1``), a letter or word whose size the file decides (``C``, ``Dw``), or a multiple (``5R``).
A `Linear` may have a bias, whose axis is the first of the matrix.
A field ``blocks: tuple[Block, ...]`` holds members numbered from 0. Fields with ``init=False`` are derived values
and no tensors.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy.typing as npt

from .tensors import LazyTensor

Array: TypeAlias = npt.NDArray[Any]
Instance = TypeVar("Instance")
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A module that holds one array; its field carries the axes."""

    weight: Array


@dataclass(frozen=True, eq=False)
class Linear:
    """A matrix [out, in] and a bias [out], which may be absent; its field carries the matrix's axes."""

    weight: Array
    bias: Annotated[Array | None, "<"] = None


@dataclass(frozen=True, eq=False)
class Norm:
    """Scale and shift of a normalisation; its field carries the axes of both."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Axis:
    """One declared axis: `factor` times the size of `letter`, or just `factor` where the letter is empty."""

    factor: int
    letter: str

    def size(self, sizes: Mapping[str, int]) -> int | None:
        """Return the size, or None while the letter is unsettled."""
        if not self.letter:
            return self.factor
        return self.factor * sizes[self.letter] if self.letter in sizes else None

    def describe(self, sizes: Mapping[str, int]) -> str:
        """Return the axis for an error: ``C=768``, or ``C`` while unsettled."""
        text = f"{'' if self.factor == 1 and self.letter else self.factor}{self.letter}"
        size = self.size(sizes)
        return text if size is None or not self.letter else f"{text}={size}"


@dataclass(frozen=True)
class Slot:
    """One declared array; `root` is the innermost optional field that holds it, or None if it must exist."""

    name: str
    axes: tuple[Axis, ...]
    root: str | None

    def shape(self, sizes: Mapping[str, int]) -> Shape:
        """Return the shape once every letter is settled."""
        return tuple(axis.factor * sizes[axis.letter] if axis.letter else axis.factor for axis in self.axes)


@dataclass(frozen=True)
class _Field:
    name: str
    kind: type | None  # the nested dataclass; None for an array
    axes: tuple[Axis, ...] | None  # None: those of the field around it
    optional: bool
    repeated: bool


_FIRST = (Axis(0, "<"),)
"""Stands for the first axis of the field around it."""


@cache
def _parse_axes(text: str) -> tuple[Axis, ...]:
    if text == "<":
        return _FIRST
    axes = []
    for word in text.split():
        match = re.fullmatch(r"([0-9]*)\*?([A-Za-z_]*)", word)
        assert match is not None and word != "*", f"not an axis: {word!r} in {text!r}"
        axes.append(Axis(int(match[1] or 1), match[2]))
    return tuple(axes)


@cache
def _fields(cls: type) -> tuple[_Field, ...]:
    hints = get_type_hints(cls, include_extras=True)
    return tuple(_parse_field(field.name, hints[field.name]) for field in dataclasses.fields(cls) if field.init)


def _parse_field(name: str, hint: Any) -> _Field:
    axes: tuple[Axis, ...] | None = None
    optional = repeated = False
    while True:
        if get_origin(hint) is Annotated:
            axes = next((_parse_axes(note) for note in hint.__metadata__ if isinstance(note, str)), axes)
            hint = hint.__origin__
        elif get_origin(hint) in (Union, types.UnionType):
            optional = True
            (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
        elif get_origin(hint) is tuple:
            repeated, hint = True, get_args(hint)[0]
        else:
            kind = hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None
            return _Field(name, kind, axes, optional, repeated)


def slots(
    cls: type,
    count: Callable[[str], int],
    *,
    prefix: str = "",
    axes: tuple[Axis, ...] | None = None,
    root: str | None = None,
) -> Iterator[Slot]:
    """Walk the arrays of a declaration; `count` says how many numbered members a path has."""
    for field in _fields(cls):
        path = prefix + field.name
        inner = path if field.optional else root
        letters = axes if field.axes is None else field.axes
        if letters is _FIRST:
            letters = (axes or ())[:1]
        if field.kind is None:
            assert letters is not None, f"{cls.__name__}.{field.name} has no axes"
            yield Slot(path, letters, inner)
        else:
            members = [f"{path}.{number}." for number in range(count(path))] if field.repeated else [path + "."]
            for member in members:
                yield from slots(field.kind, count, prefix=member, axes=letters, root=inner)


def dotted_prefixes(names: Iterable[str]) -> set[str]:
    """Return every name and every dotted beginning of one."""
    found: set[str] = set()
    for name in names:
        if name.count(".") > 32:  # no declared name; its beginnings would take quadratic memory
            continue
        while name not in found:
            found.add(name)
            name = name.rpartition(".")[0]
    return found


def count_members(prefixes: set[str], path: str) -> int:
    """Return how many consecutive members, from number 0, a path has."""
    number = 0
    while f"{path}.{number}" in prefixes:
        number += 1
    return number


def declare(
    cls: type, sizes: Mapping[str, int], n_layer: int, optional: Callable[[str], bool] | None = None
) -> dict[str, Shape]:
    """Return the name and shape of every tensor that a model of the given sizes declares.

    Parameters
    ----------
    cls : type
        The declaration.
    sizes : mapping of str to int
        The size of every axis letter in use.
    n_layer : int
        How many members a numbered field (``blocks``) has.
    optional : callable, optional
        Says for the name of an optional tensor whether it is included; by default none is.

    Returns
    -------
    dict of str to tuple of int
        In the order of the declaration.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Linear:
    ...     map: Annotated[Matrix, "A C"]
    >>> declare(Linear, {"A": 3, "C": 2}, n_layer=0)
    {'map.weight': (3, 2)}
    """
    return {
        slot.name: slot.shape(sizes)
        for slot in slots(cls, lambda path: n_layer)
        if slot.root is None or (optional is not None and optional(slot.name))
    }


def build(cls: type[Instance], arrays: Mapping[str, Any]) -> Instance:
    """Make an instance out of arrays by dotted name, unchecked; the inverse of `flatten`.

    Parameters
    ----------
    cls : type
        The declaration.
    arrays : mapping of str to array
        One array per declared name; names that are not declared are ignored.

    Returns
    -------
    cls
        The instance; absent optional fields are None.

    Raises
    ------
    KeyError
        If a tensor that is not optional has no array.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Linear:
    ...     map: Annotated[Matrix, "A C"]
    >>> build(Linear, {"map.weight": 1.5}).map.weight
    1.5
    """
    prefixes = dotted_prefixes(arrays)

    def make(kind: Any, prefix: str) -> Any:
        values: dict[str, Any] = {}
        for field in _fields(kind):
            path = prefix + field.name
            if field.optional and path not in prefixes:
                values[field.name] = None
            elif field.repeated:
                members = range(count_members(prefixes, path))
                values[field.name] = tuple(make(field.kind, f"{path}.{number}.") for number in members)
            else:
                values[field.name] = arrays[path] if field.kind is None else make(field.kind, path + ".")
        return kind(**values)

    instance: Instance = make(cls, "")
    return instance


def flatten(instance: Any) -> dict[str, Any]:
    """Return the arrays, or tensors, of an instance by dotted name; in order, and without the absent ones.

    Parameters
    ----------
    instance : dataclass instance, or mapping of str to array
        Weights of a declared model, or a part of them. A mapping has its names already.

    Returns
    -------
    dict of str to array
        What `build` takes.

    Examples
    --------
    >>> flatten(Norm(weight=1.5, bias=0.5))
    {'weight': 1.5, 'bias': 0.5}
    """
    if isinstance(instance, Mapping):
        return dict(instance)
    arrays: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        kind: Any = type(value)
        if isinstance(value, tuple):
            for number, member in enumerate(value):
                walk(member, f"{path}.{number}")
        elif hasattr(kind, "__dataclass_fields__") and not isinstance(value, LazyTensor):
            for field in _fields(kind):
                walk(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)
        elif value is not None:
            arrays[path] = value

    walk(instance, "")
    return arrays
