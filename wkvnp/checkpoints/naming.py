"""Bind the tensors of a file to the declared weights of a model: every tensor has its place, or one error says why.

The declaration itself (`Array`, `Matrix`, `Norm`, `declare`, `build`, `flatten`) is described in `declaration`,
foreign tensor names (`Rule`, `Renamed`) in `renaming`; both are offered here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from .._dtypes import FLOAT_DTYPES
from ..errors import CheckpointError
from .declaration import (
    Array,
    Axis,
    Instance,
    Linear,
    Matrix,
    Norm,
    Shape,
    Slot,
    build,
    count_members,
    declare,
    dotted_prefixes,
    flatten,
    slots,
)
from .quantised_tensors import QuantisedTensor
from .renaming import Deinterleave, Group, Logarithm, Renamed, Reorder, Reshape, Rule, Scale, Transpose
from .tensors import LazyTensor, quoted

__all__ = [
    "Array",
    "Deinterleave",
    "Group",
    "Linear",
    "Logarithm",
    "Matrix",
    "Norm",
    "Renamed",
    "Reorder",
    "Reshape",
    "Rule",
    "Scale",
    "Transpose",
    "bind",
    "build",
    "declare",
    "flatten",
    "read",
]


def bind(
    cls: type[Instance],
    tensors: Mapping[str, LazyTensor],
    *,
    source: str,
    ignore: Sequence[str] = (),
    require: Sequence[str] = (),
) -> tuple[Instance, dict[str, int]]:
    """Give every tensor of a file its place among the declared weights, by name and shape; nothing is read.

    Parameters
    ----------
    cls : type
        The declaration, a frozen dataclass.
    tensors : mapping of str to LazyTensor
        The tensors of the file, under their original names.
    source : str
        What to call the file in an error.
    ignore : sequence of str
        Regular expressions; tensors whose whole name matches one are treated as absent.
    require : sequence of str
        Regular expressions; optional tensors whose whole name matches one must exist.

    Returns
    -------
    weights : cls
        The instance, which holds a LazyTensor of the declared shape where `read` will put an array; absent optional
        fields are None.
    sizes : dict of str to int
        The size of every axis letter that a tensor settled, and as ``"L"`` the number of blocks.

    Raises
    ------
    CheckpointError
        If tensors are missing, have another shape than declared (axes of size 1 aside), are not floating point or
        are left over. The message names the first five of each kind.

    Examples
    --------
    >>> import numpy as np
    >>> tensors = {"weight": LazyTensor.of("weight", np.ones(3)), "bias": LazyTensor.of("bias", np.zeros(3))}
    >>> from dataclasses import make_dataclass
    >>> from typing import Annotated
    >>> Affine = make_dataclass("Affine", [("weight", Annotated[Array, "C"]), ("bias", Annotated[Array, "C"])])
    >>> affine, sizes = bind(Affine, tensors, source="affine.safetensors")
    >>> sizes, read(affine).bias
    ({'C': 3}, array([0., 0., 0.]))
    """
    ignored, required = _any_of(ignore), _any_of(require)
    given = {name: tensor for name, tensor in tensors.items() if not ignored.fullmatch(name)}
    prefixes = dotted_prefixes(given)
    members: dict[str, int] = {}

    def count(path: str) -> int:
        members[path] = count_members(prefixes, path)
        return max(1, members[path])  # without any block, the error names the tensors of block 0

    declared = list(slots(cls, count))
    needed = [slot for slot in declared if slot.root is None or slot.root in prefixes or required.fullmatch(slot.name)]
    found = [slot for slot in needed if slot.name in given]
    sizes, misfits = _solve_sizes(found, given)
    taken = {slot.name for slot in needed}
    left_over = [name for name in given if name not in taken]
    faults = {
        "missing": [slot.name for slot in needed if slot.name not in given] + _gaps(members, left_over),
        "of the wrong shape": misfits,
        "not floating point": [
            f"{slot.name} ({given[slot.name].dtype})"
            for slot in found
            if given[slot.name].dtype not in FLOAT_DTYPES and not isinstance(given[slot.name], QuantisedTensor)
        ],
        "left over": [quoted(name) for name in left_over],
    }
    if any(faults.values()):
        raise CheckpointError(f"{source}: {_describe(faults)}")
    if members:
        sizes["L"] = max(members.values())
    return build(cls, {slot.name: given[slot.name].shaped(slot.shape(sizes)) for slot in needed}), sizes


def read(weights: Instance, convert: Callable[[str, Array], Array] | None = None) -> Instance:
    """Return weights with arrays in place of the tensors that `bind` put there.

    Parameters
    ----------
    weights : dataclass instance
        What `bind` returned.
    convert : callable, optional
        Called with each name and array; what it returns is kept in its place.

    Returns
    -------
    dataclass instance
        Of the same class.
    """
    arrays = {}
    for name, tensor in flatten(weights).items():
        array = tensor.read()
        arrays[name] = array if convert is None else convert(name, array)
    return build(type(weights), arrays)


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or "(?!)")


def _gaps(members: Mapping[str, int], left_over: Iterable[str]) -> list[str]:
    """Return ``blocks.3.*`` where numbers go on after a gap at 3."""
    gaps: dict[str, None] = {}
    for name in left_over:
        for path, number in members.items():
            if name.startswith(path + ".") and name[len(path) + 1 :].partition(".")[0].isdecimal():
                gaps[f"{path}.{number}.*"] = None
    return list(gaps)


def _solve_sizes(found: list[Slot], given: Mapping[str, LazyTensor]) -> tuple[dict[str, int], list[str]]:
    """Settle every letter: first by tensors with the declared number of axes, then by the squeezed ones."""
    sizes: dict[str, int] = {}
    rest = [slot for slot in found if not _solve(slot.axes, given[slot.name].shape, sizes)]
    wrong = [slot for slot in rest if not _solve_squeezed(slot.axes, given[slot.name].shape, sizes)]
    described = []
    for slot in wrong:
        letters = ", ".join(axis.describe(sizes) for axis in slot.axes)
        described.append(f"{slot.name} must be ({letters}), is {given[slot.name].shape}")
    return sizes, described


def _solve(axes: tuple[Axis, ...], shape: Shape, sizes: dict[str, int]) -> bool:
    """Match a shape axis by axis and add the letters it settles to `sizes`; on False nothing was added."""
    if len(axes) != len(shape):
        return False
    settled = dict(sizes)
    for axis, size in zip(axes, shape, strict=True):
        if size < 1 or size % axis.factor:
            return False
        if size != axis.factor * (settled.setdefault(axis.letter, size // axis.factor) if axis.letter else 1):
            return False
    sizes.update(settled)
    return True


def _solve_squeezed(axes: tuple[Axis, ...], shape: Shape, sizes: dict[str, int]) -> bool:
    """Match a shape after dropping the axes of size 1 on both sides."""
    stored = tuple(size for size in shape if size != 1)
    if not stored:  # a single element: every letter is 1, or becomes it
        return _solve(axes, (1,) * len(axes), sizes)
    return _solve(tuple(axis for axis in axes if axis.size(sizes) != 1), stored, sizes)


def _describe(faults: Mapping[str, list[str]]) -> str:
    parts = []
    for kind, names in faults.items():
        if names:
            tensors = "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            parts.append(f"{tensors} {kind}: {', '.join(names[:5])}{more}")
    return "; ".join(parts)
