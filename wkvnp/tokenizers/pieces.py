"""Tokens of a text that arrives in pieces, the same as those of the whole text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


def encode_pieces(tokenizer: Any, pieces: Iterable[str]) -> Iterator[npt.NDArray[np.int32]]:
    """Yield the token ids of a text, piece by piece, for any way to cut it.

    A tokenizer that chooses each token from a bounded number of bytes, its `reach`, needs one piece in memory. For
    another, such as one of a ``tokenizer.json``, all are joined: a token may depend on text at any distance.

    Examples
    --------
    >>> from wkvnp.tokenizers import load_tokenizer
    >>> [ids.tolist() for ids in encode_pieces(load_tokenizer("bytes"), ["He", "y"])]
    [[72, 101], [121]]
    """
    reach = getattr(tokenizer, "reach", None)
    if reach is None:
        yield tokenizer.encode("".join(pieces))
    else:
        yield from _within_reach(tokenizer, reach, pieces)


def _within_reach(tokenizer: Any, reach: int, pieces: Iterable[str]) -> Iterator[npt.NDArray[np.int32]]:
    """Keep back what more text may change: the tokens that begin less than `reach` bytes before the end."""
    rest = b""
    for piece in pieces:
        data = rest + piece.encode("utf-8")
        ids = tokenizer.encode_bytes(data)
        sizes = tokenizer.sizes[ids]
        ends = np.cumsum(sizes)
        begins = ends - sizes
        sure = int(np.searchsorted(begins, len(data) - reach, side="right"))
        rest = data[int(ends[sure - 1]) if sure else 0 :]
        if sure:
            yield ids[:sure]
    if rest:
        yield tokenizer.encode_bytes(rest)
