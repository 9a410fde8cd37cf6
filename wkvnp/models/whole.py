"""A whole model run by the oracle: the meaning of its blocks in NumPy and float64, with every value by its name.

Letters: M tokens of B packed sequences, C channels, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._dtypes import widen
from .._tree import map_leaves
from ..operations import Product
from ..operations.numpy_oracle import Oracle
from .language_model import Model
from .sequences import Tokens, pack
from .state import State


def oracle(model: Model, tokens: Tokens, state: State | None = None) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return what a model computes, in float64 and at the pace of NumPy.

    Parameters
    ----------
    model : Model
    tokens : array_like of int
        One sequence (T,), a batch (B, T), or a list of B sequences of unequal length.
    state : State, optional
        Where the sequences continue.

    Returns
    -------
    logits : ndarray
        After every token, shaped like the logits of ``model(tokens, logits="all")``.
    state : tuple
        Of every layer.
    values : dict of str to ndarray
        Every value inside the blocks, such as ``"blocks.0.att.k"``, a row a token.

    Examples
    --------
    >>> import wkvnp
    >>> from wkvnp.models.whole import oracle
    >>> model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=32, head_size=16, vocab_size=256, rng=0)
    >>> logits, state, values = oracle(model, [72, 101])
    >>> logits.shape, values["blocks.0.att.decay"].shape
    ((2, 256), (2, 32))
    """
    packed, offsets, restore = pack(tokens, model.config.vocab_size)
    network, before = model.network, model.initial_state(offsets.size - 1) if state is None else state
    outside = Oracle(None, offsets)
    x = widen(np.asarray(network.embed.table)[packed]).astype(np.float64)
    if network.embed.norm is not None:
        x = outside.layer_norm("x", x, *network.embed.norm)
    v_first, after = None, []
    values: dict[str, Any] = {}
    for n, layer in enumerate(network.layers):
        executor = Oracle(_wide(before.layers[n]), offsets, f"blocks.{n}.")
        x, v_first = layer(executor, x, v_first)
        after.append(executor.state)
        values |= executor.values
    z = network.head.normalized(outside, x)
    return restore(outside.multiply(logits=Product(z, network.head.weight))[0]), tuple(after), values


def _wide(state: Any) -> Any:
    def wide(_: str, leaf: Any) -> Any:
        return leaf.astype(np.float64) if not isinstance(leaf, np.ndarray) or leaf.dtype.kind == "f" else leaf

    return map_leaves(wide, state)
