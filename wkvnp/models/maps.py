"""Linear maps with biases, as the layers of several architectures have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checkpoints.naming import Array, Linear
from ..decoding import Place, Program
from ..primitives.linear_map import linear_maps
from .network import vector


class Maps:
    """Linear maps of one input, with their biases; those of one shape and dtype go together."""

    def __init__(self, linears: Sequence[Linear], dtype: np.dtype[Any]) -> None:
        self._linears = linears
        groups: dict[Any, list[int]] = {}
        for n, linear in enumerate(linears):
            groups.setdefault((linear.weight.shape, linear.weight.dtype), []).append(n)
        self._groups = [(members, [linears[n].weight for n in members]) for members in groups.values()]
        self._biases = [(n, vector(m.bias, dtype)) for n, m in enumerate(linears) if m.bias is not None]

    def __call__(self, x: Array) -> list[Array]:
        """Return for x (M, I) one array (M, O) per map."""
        results: dict[int, Array] = {}
        for members, weights in self._groups:
            together = linear_maps(np.broadcast_to(x, (len(weights), *x.shape)), weights)
            results.update(zip(members, together, strict=True))
        for n, bias in self._biases:
            results[n] += bias
        return [results[n] for n in range(len(results))]

    def plan(self, program: Program, x: Place, results: Sequence[Place], *, add: bool = False) -> None:
        """Add the maps of one token of every sequence to a program."""
        biases = dict(self._biases)
        for n, (linear, y) in enumerate(zip(self._linears, results, strict=True)):
            program.product(x, linear.weight, y, bias=biases.get(n), add=add)
