"""All that a state holds, as plain arrays by name."""

from typing import Any

import numpy as np

import wkvnp
from wkvnp._tree import leaves


def arrays_of(state: wkvnp.State) -> dict[str, np.ndarray]:
    """Return the arrays of all layers; keys and values of the past as k, v and lengths."""
    arrays: dict[str, Any] = {}
    for name, leaf in leaves(state.layers):
        parts = {"": leaf} if isinstance(leaf, np.ndarray) else leaf.parts()._asdict()
        arrays |= {f"{name}.{part}": array for part, array in parts.items()}
    return arrays


def assert_close(a: wkvnp.State, b: wkvnp.State, tolerance: float = 0) -> None:
    """Fail if two states are further apart than `tolerance`, relative to the largest number of each array."""
    left, right = arrays_of(a), arrays_of(b)
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert (array.shape, array.dtype) == (right[name].shape, right[name].dtype), name
        if array.size:
            scale = max(1.0, float(np.abs(array).max()))
            assert np.abs(array - right[name]).max() <= tolerance * scale, name
