"""Linear maps with biases, as the layers of several architectures have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checkpoints.naming import Array, Linear
from ..decoding import Place, Program
from ..primitives.linear_map import Product, multiply
from .network import vector


class Maps:
    """Linear maps of one input, with their biases."""

    def __init__(self, linears: Sequence[Linear], dtype: np.dtype[Any]) -> None:
        self._linears = linears
        self._biases = [None if linear.bias is None else vector(linear.bias, dtype) for linear in linears]

    def __call__(self, x: Array) -> list[Array]:
        """Return for x (M, I) one array (M, O) per map."""
        biases = (None if bias is None else bias.reshape(1, -1) for bias in self._biases)
        return multiply(
            [Product(x, linear.weight, added=bias) for linear, bias in zip(self._linears, biases, strict=True)]
        )

    def plan(self, program: Program, x: Place, results: Sequence[Place], *, add: bool = False) -> None:
        """Add the maps of one token of every sequence to a program."""
        for linear, bias, y in zip(self._linears, self._biases, results, strict=True):
            program.product(x, linear.weight, y, bias=bias, add=add)
