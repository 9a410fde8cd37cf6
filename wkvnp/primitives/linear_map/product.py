"""What is to be multiplied, and what is done to the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._quantised import Quantised
from ..shift import Mixture
from .activation import Activation

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, slots=True)
class Product:
    """``added + gate f(x @ weight.T)``, or ``x @ weight`` for a matrix stored [in, out].

    Parameters
    ----------
    x : ndarray (M, I), float32 or float64; Mixture of such; or Product, without a gate and with nothing added
    weight : ndarray (O, I), float32, float64, float16 or bfloat16; or Quantised
    activation : {"linear", "tanh", "sigmoid", "silu", "relu_squared"}
        What f is.
    gate, added : ndarray (M, O), dtype of x, optional
    by_inputs : bool
        Whether the matrix is (I, O) instead.
    """

    x: Array | Mixture | Product
    weight: Array | Quantised
    activation: Activation = "linear"
    gate: Array | None = None
    added: Array | None = None
    by_inputs: bool = False

    @property
    def rows(self) -> tuple[int, np.dtype[Any]]:
        """M, and the dtype of x."""
        return self.x.rows if isinstance(self.x, Product) else (self.x.shape[0], self.x.dtype)

    @property
    def outputs(self) -> int:
        """O."""
        return int(self.weight.shape[1 if self.by_inputs else 0])
