"""What the delta-rule front doors do to queries and keys before the recurrence."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ..primitives.norm import l2_normalize
from ._scale import scaled

Array = npt.NDArray[Any]


def queries_and_keys(q: Array, k: Array, qk_l2norm: bool, scale: float | None) -> tuple[Array, Array]:
    """Return `q`, brought to length 1 if asked and times `scale`, and `k`, brought to length 1 if asked.

    A length is ``sqrt(sum of squares + 1e-6)``, as in flash-linear-attention, so a tiny vector stays shorter than 1. A
    `scale` of None is K^-0.5.
    """
    if qk_l2norm:
        q, k = l2_normalize(q, 0, 1e-6), l2_normalize(k, 0, 1e-6)
    return scaled(q, scale), k
