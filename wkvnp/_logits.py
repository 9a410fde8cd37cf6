"""Logits that a probability can be made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError


def peaks_of(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the largest of each row of logits (..., V), shape (..., 1).

    Raises
    ------
    ArgumentError
        If a logit is NaN or plus infinity, as NaN in the weights makes them, or all of a row are minus infinity.

    Examples
    --------
    >>> peaks_of(np.array([[0.5, -np.inf], [2.0, 3.0]]))
    array([[0.5],
           [3. ]])
    """
    peaks: npt.NDArray[Any] = logits.max(axis=-1, keepdims=True)
    odd = peaks[~np.isfinite(peaks)]
    if odd.size:
        reason = "every token is forbidden" if odd[0] == -np.inf else f"their maximum is {odd[0]}"
        raise ArgumentError(f"logits must be finite or minus infinity, at least one of them finite; {reason}")
    return peaks
