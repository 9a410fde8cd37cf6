"""Dataclasses of arrays <-> flat ``{dotted name: array}``.

A leaf is an array, or an object that stands for several and says which: it has ``parts()``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a nested dataclass, tuple or dict with its dotted name; None is left out.

    Examples
    --------
    >>> [name for name, _ in leaves({"layers": (np.zeros(2), np.ones(3))})]
    ['layers.0', 'layers.1']
    """
    if tree is None:
        return
    if _is_leaf(tree):
        yield prefix, tree
        return
    for key, value in _children(tree):
        yield from leaves(value, f"{prefix}.{key}" if prefix else key)


def map_leaves(function: Callable[[str, Any], Any], tree: T, prefix: str = "") -> T:
    """Return the same structure with `function(dotted name, leaf)` in place of every leaf."""
    if tree is None:
        return tree
    if _is_leaf(tree):
        return function(prefix, tree)  # type: ignore[no-any-return]
    mapped = {key: map_leaves(function, value, f"{prefix}.{key}" if prefix else key) for key, value in _children(tree)}
    if isinstance(tree, tuple):
        return type(tree)(mapped.values()) if type(tree) is tuple else type(tree)(*mapped.values())
    if isinstance(tree, dict):
        return mapped  # type: ignore[return-value]
    return dataclasses.replace(tree, **mapped)  # type: ignore[type-var]


def _is_leaf(tree: Any) -> bool:
    return isinstance(tree, np.ndarray) or hasattr(tree, "parts")


def _children(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named parts of one node."""
    if dataclasses.is_dataclass(tree):
        yield from ((field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree))
    elif isinstance(tree, dict):
        yield from tree.items()
    elif isinstance(tree, tuple):
        names = getattr(tree, "_fields", None) or range(len(tree))
        yield from ((str(name), value) for name, value in zip(names, tree, strict=True))
    else:
        raise TypeError(f"a tree holds arrays, dataclasses, tuples and dicts; got {type(tree).__name__}")
