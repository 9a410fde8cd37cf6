"""Text that is only text: what is written in it never becomes a control token."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from . import Tokenizer


def plain_encoder(tokenizer: Tokenizer, *, begins: bool = False) -> Callable[[str], npt.NDArray[np.int32]]:
    """Return what turns text into ids without control tokens, from the beginning of a text or within one.

    A tokenizer of your own need not have ``begin``, nor know of control tokens.

    Examples
    --------
    >>> from wkvnp import load_tokenizer
    >>> plain_encoder(load_tokenizer("bytes"))("Hi")
    array([ 72, 105], dtype=int32)
    """
    method: Callable[..., npt.NDArray[np.int32]] = tokenizer.encode
    if begins:
        method = getattr(tokenizer, "begin", method)
    if "special" not in inspect.signature(method).parameters:
        return method
    return lambda text: method(text, special=False)
