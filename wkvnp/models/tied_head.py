"""A head that is the embedding once more: some files hold both, and then they must be the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .._dtypes import compiled_view
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array
from ..errors import CheckpointError

_ROWS_AT_ONCE = 1024


def without_head(tensors: Mapping[str, LazyTensor], table: str, source: str) -> dict[str, LazyTensor]:
    """Return the tensors of a tied model without ``lm_head.weight``; the two are compared when the table is read.

    Raises
    ------
    CheckpointError
        On reading, if the head is not what `table`, the embedding, is.
    """
    left = dict(tensors)
    head, embedding = left.pop("lm_head.weight", None), left.get(table)
    if head is None or embedding is None:
        return left

    def load() -> Array:
        array, other = embedding.read(), head.read()
        starts = range(0, len(array), _ROWS_AT_ONCE)  # both may be as large as the memory
        pieces = (slice(start, start + _ROWS_AT_ONCE) for start in starts)
        alike = (array.shape, array.dtype) == (other.shape, other.dtype)
        if not alike or not all(
            np.array_equal(compiled_view(array[piece]), compiled_view(other[piece])) for piece in pieces
        ):
            raise CheckpointError(
                f"{source}: lm_head.weight must be the embedding, as tie_word_embeddings says; got other numbers"
            )
        return array

    return left | {table: replace(embedding, loader=load)}
