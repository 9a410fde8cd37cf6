# mypy: allow-untyped-defs
"""What is done to the results of a product before they are written."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..._jit import inlined
from ..._scalar import sigmoid, tanh

Activation = Literal["linear", "tanh", "sigmoid", "silu", "relu_squared"]
ACTIVATIONS: tuple[Activation, ...] = ("linear", "tanh", "sigmoid", "silu", "relu_squared")


@inlined
def activate(y, activation):
    """Apply one of the activations, by its number."""
    zero = np.float32(0)
    if activation == 1:
        for i in range(y.size):
            y[i] = tanh(y[i])
    elif activation == 2:
        for i in range(y.size):
            y[i] = sigmoid(y[i])
    elif activation == 3:
        for i in range(y.size):
            y[i] = y[i] * sigmoid(y[i])
    elif activation == 4:
        for i in range(y.size):
            positive = y[i] if y[i] > zero else zero
            y[i] = positive * positive
