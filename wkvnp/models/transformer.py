"""The Transformer in its LLaMA form, with what Mistral, Qwen2 and Qwen3 add: windows, biases, norms of q and k.

Letters: M packed tokens of B sequences, C channels, H heads of queries, G groups (heads of keys and values), D width of
a head, Q = H D, P = G D, F feed-forward width, V vocabulary. Matrices are [out, in].

References
----------
Touvron et al. 2023 (arXiv:2302.13971), section 2.2; Su et al. 2021 (arXiv:2104.09864) for the rotation; Ainslie et al.
2023 (arXiv:2305.13245) for groups; Shazeer 2020 (arXiv:2002.05202) for SwiGLU; Jiang et al. 2023 (arXiv:2310.06825)
for windows; huggingface/transformers, ``models/llama/modeling_llama.py``; ``mistral``, ``qwen2``, ``qwen3`` beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import numpy as np

from .._dtypes import dtype_name
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, Linear, Matrix, bind, declare
from ..checkpoints.tensors import quoted
from ..errors import CheckpointError
from ..kernels.softmax import KVCache
from ..operations import AttentionState, Operations, Product, SoftmaxAttention, Value
from .network import Network, rms_network, vector
from .rotary_scaling import rotation_of
from .settings import Settings, agree
from .tied_head import without_head
from .transformer_config import MODEL_TYPES, TransformerConfig, config_of, fresh_fields

__all__ = ["MODEL_TYPES", "WEIGHTS", "bound", "config_of", "fresh_fields", "network", "shapes"]


@dataclass(frozen=True, eq=False)
class Attention:
    """``self_attn``."""

    q_proj: Annotated[Linear, "Q C"]
    k_proj: Annotated[Linear, "P C"]
    v_proj: Annotated[Linear, "P C"]
    o_proj: Annotated[Linear, "C Q"]
    q_norm: Annotated[Matrix | None, "D"] = None
    k_norm: Annotated[Matrix | None, "D"] = None


@dataclass(frozen=True, eq=False)
class SwiGLU:
    """``mlp``."""

    gate_proj: Annotated[Linear, "F C"]
    up_proj: Annotated[Linear, "F C"]
    down_proj: Annotated[Linear, "C F"]


@dataclass(frozen=True, eq=False)
class Block:
    """``model.layers.n``."""

    input_layernorm: Annotated[Matrix, "C"]
    self_attn: Attention
    post_attention_layernorm: Annotated[Matrix, "C"]
    mlp: SwiGLU


@dataclass(frozen=True, eq=False)
class Decoder:
    """``model``."""

    embed_tokens: Annotated[Matrix, "V C"]
    layers: tuple[Block, ...]
    norm: Annotated[Matrix, "C"]


@dataclass(frozen=True, eq=False)
class Weights:
    """All tensors of a checkpoint; without a head, the embedding is the head."""

    model: Decoder
    lm_head: Annotated[Matrix | None, "V C"] = None


WEIGHTS = {"transformer": Weights}


class AttentionLayer:
    """One layer: attention and a feed-forward network are added to the residual stream, each after an RMS norm.

    `number` says which layer of its model it is.
    """

    def __init__(self, block: Block, config: TransformerConfig, dtype: np.dtype[Any], number: int = 0) -> None:
        att, c, widened = block.self_attn, config, partial(vector, dtype=dtype)
        self._config, self._dtype = config, dtype
        self._ln1, self._ln2 = widened(block.input_layernorm.weight), widened(block.post_attention_layernorm.weight)
        q_norm, k_norm = (None if norm is None else widened(norm.weight) for norm in (att.q_norm, att.k_norm))
        self._how = SoftmaxAttention(
            c.n_head, c.n_group, c.head_size, rotation_of(c.rotary, dtype), c.rotary.size, c.windows[number],
            q_norm, k_norm, c.norm_eps,
        )  # fmt: skip
        self._linear = {
            name: (linear.weight, None if linear.bias is None else widened(linear.bias))
            for part in (att, block.mlp)
            for name, linear in vars(part).items()
            if isinstance(linear, Linear)
        }

    def start(self, batch: int) -> AttentionState:
        """Return an empty past."""
        c = self._config
        kv = KVCache.empty(batch, c.n_group, c.head_size, c.head_size, self._dtype)
        return AttentionState(kv, np.zeros(batch, np.int64))

    def __call__(self, o: Operations, x: Value, v_first: Value) -> tuple[Value, Value]:
        """Return the residual stream after the layer, and `v_first` as it was."""
        eps = self._config.norm_eps
        o.scope = "att"
        z = o.rms_norm("x", x, self._ln1, eps)
        q, k, v = o.multiply(q=self._product(z, "q_proj"), k=self._product(z, "k_proj"), v=self._product(z, "v_proj"))
        x = o.add_product(x, self._product(o.attention(q, k, v, self._how), "o_proj"))
        o.scope = "ffn"
        z = o.rms_norm("x", x, self._ln2, eps)
        gate, up = o.multiply(gate=self._product(z, "gate_proj"), up=self._product(z, "up_proj"))
        return o.add_product(x, self._product(o.gate("k", up, gate), "down_proj")), v_first

    def advance(self, state: AttentionState, offsets: Array) -> tuple[AttentionState, list[Array]]:
        """Return a state with room for one more token of each sequence, and the arrays that `Tokens.grown` names."""
        how = self._how
        cos, sin, seen = how.rotation(state.seen, offsets)
        kv = state.kv.reserved(np.diff(offsets))
        store, base, lengths = kv.stored()
        arrays = [cos, sin, store.keys, store.values, base, lengths]
        return AttentionState(kv if how.window is None else kv.within(how.window), seen), arrays

    def _product(self, x: Value, name: str) -> Product:
        weight, bias = self._linear[name]
        return Product(x, weight, bias=bias)


def network(weights: Weights, config: TransformerConfig, dtype: np.dtype[Any]) -> Network:
    """Return the way from tokens to logits: embedding, layers, last norm and head."""
    layers = tuple(AttentionLayer(block, config, dtype, n) for n, block in enumerate(weights.model.layers))
    norm = vector(weights.model.norm.weight, dtype)
    return rms_network(weights.model.embed_tokens, layers, norm, config.norm_eps, weights.lm_head)


_OPTIONAL = re.compile(r".*\.(bias|[qk]_norm\.weight)|lm_head\.weight")
_LEFTOVER = r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"  # rates that older software has stored


def bound(tensors: Mapping[str, LazyTensor], settings: Settings, source: str) -> tuple[Weights, TransformerConfig]:
    """Return tensors in their places among the weights, unread, and the configuration that the fields make.

    Raises
    ------
    CheckpointError
        If a tensor or a field is missing, left over, or not what it must be.
    """
    c = config_of(settings)
    settings.finish()
    if c.n_layer > len(tensors):
        raise settings.fault("num_hidden_layers", f"at most {len(tensors)}, the tensors that there are")
    if "embed_tokens.weight" in tensors:  # a model that was saved without its head leaves out its own name
        tensors = {f"model.{name}" if name != "lm_head.weight" else name: tensors[name] for name in tensors}
    tensors = without_head(tensors, "model.embed_tokens.weight", source) if c.tied else tensors
    for name in tensors:
        if _OPTIONAL.fullmatch(name) and not c.has(name):
            raise CheckpointError(f"{source}: has {quoted(name)}, which a model so configured does not have")
    needed = [re.escape(name) for name in shapes(c) if _OPTIONAL.fullmatch(name)]
    weights, sizes = bind(Weights, tensors, source=source, ignore=(_LEFTOVER,), require=needed)
    agree(sizes, {letter: (name, size) for letter, name, size in c.axes}, source)
    return weights, replace(c, dtype=dtype_name(weights.model.layers[0].self_attn.q_proj.weight.dtype))


def shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a fresh model."""
    sizes = {letter: size for letter, _, size in config.axes}
    return declare(Weights, sizes, config.n_layer, config.has)
