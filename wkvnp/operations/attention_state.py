"""The state of one layer of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ..kernels.softmax import KVCache

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class AttentionState:
    """The state of one attention layer.

    Attributes
    ----------
    kv : KVCache
        Keys, after their rotation, and values; of a layer with a window only those that can still be seen.
    seen : ndarray of int64, shape (B,)
        Tokens so far: the position of the next.
    """

    kv: KVCache
    seen: Array
