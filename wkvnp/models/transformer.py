"""The Transformer in its LLaMA form, with what Mistral, Qwen2 and Qwen3 add: a window, biases, norms of q and k.

Letters: M packed tokens of B sequences, C channels, H heads of queries, G groups (heads of keys and values), D width of
a head, Q = H D, P = G D, F feed-forward width, V vocabulary. Matrices are [out, in].

References
----------
Touvron et al. 2023 (arXiv:2302.13971), section 2.2; Su et al. 2021 (arXiv:2104.09864) for the rotation; Ainslie et al.
2023 (arXiv:2305.13245) for groups; Shazeer 2020 (arXiv:2002.05202) for SwiGLU; huggingface/transformers,
``models/llama/modeling_llama.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from .. import _scalar as scalar
from .._dtypes import dtype_name
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, Linear, Matrix, bind, declare
from ..mechanisms.softmax_attention import KVState
from ..mechanisms.softmax_attention import packed as softmax_attention
from ..primitives.elementwise import elementwise
from ..primitives.linear_map import embedding, linear_map, linear_maps
from ..primitives.norm import rms_norm
from ..primitives.rotary import rotate
from .network import Config, Network, vector
from .settings import Settings, agree, as_metadata


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
MODEL_TYPES = ("llama", "mistral")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Config):
    """Sizes of a Transformer.

    Attributes
    ----------
    n_head, n_group, head_size, n_ffn : int
        Heads of queries, heads of keys and values, width of a head, width of the feed-forward network.
    norm_eps : float
        Added to the mean square in every norm.
    rope_theta : float
        Base of the wavelengths of the rotation.
    window : int or None
        A token sees itself and the ``window - 1`` before it; None is all of the past.
    tied : bool
        Whether the embedding is the head.
    fields : dict
        The configuration as it was read.
    """

    n_head: int
    n_group: int
    head_size: int
    n_ffn: int
    norm_eps: float
    rope_theta: float
    window: int | None
    tied: bool
    fields: dict[str, Any]

    @property
    def present(self) -> tuple[str, ...]:
        """Patterns of the optional tensors that such a model has."""
        return ()

    @property
    def state_bytes(self) -> int:
        """Bytes of the state that do not grow: none to speak of."""
        return 0

    @property
    def state_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token, in float32."""
        return 4 * self.n_layer * 2 * self.n_group * self.head_size

    def metadata(self) -> dict[str, str]:
        """Return what a safetensors file says besides the tensors."""
        return as_metadata(self.architecture, self.fields)


@dataclass(frozen=True, eq=False)
class AttentionState:
    """The state of one attention layer.

    Attributes
    ----------
    kv : KVState
        Keys, after their rotation, and values.
    seen : ndarray of int64, shape (B,)
        Tokens so far: the position of the next.
    """

    kv: KVState
    seen: Array


@elementwise
def swiglu(gate: Any, up: Any) -> Any:
    """Return silu(gate) up."""
    return gate * scalar.sigmoid(gate) * up


class AttentionLayer:
    """One layer: attention and a feed-forward network are added to the residual stream, each after an RMS norm."""

    def __init__(self, block: Block, config: TransformerConfig, dtype: np.dtype[Any]) -> None:
        self._block, self._config, self._dtype = block, config, dtype
        self._norms = [vector(n.weight, dtype) for n in (block.input_layernorm, block.post_attention_layernorm)]
        half = config.head_size // 2
        self._rates = config.rope_theta ** -(np.arange(half) / half)
        att = block.self_attn
        self._of_heads = [None if n is None else vector(n.weight, dtype) for n in (att.q_norm, att.k_norm)]

    def start(self, batch: int) -> AttentionState:
        """Return an empty past."""
        c = self._config
        kv = KVState.empty(batch, c.n_group, c.head_size, c.head_size, self._dtype)
        return AttentionState(kv, np.zeros(batch, np.int64))

    def __call__(
        self, x: Array, state: AttentionState, offsets: Array, carry: Any
    ) -> tuple[Array, AttentionState, Any]:
        """Return x (M, C) after the layer, its state, and `carry` untouched."""
        eps, (ln1, ln2) = self._config.norm_eps, self._norms
        y, final = self._attention(rms_norm(x, ln1, eps), state, offsets)
        x = x + y
        mlp, z = self._block.mlp, rms_norm(x, ln2, eps)
        gate, up = linear_maps(np.stack([z, z]), (mlp.gate_proj.weight, mlp.up_proj.weight))
        return x + self._map(swiglu(gate, up), mlp.down_proj), final, carry

    def _attention(self, z: Array, state: AttentionState, offsets: Array) -> tuple[Array, AttentionState]:
        c, att, new = self._config, self._block.self_attn, np.diff(offsets)
        position = np.arange(len(z)) + np.repeat(state.seen - offsets[:-1], new)
        angles = position[:, None] * self._rates
        cos, sin = np.cos(angles).astype(self._dtype), np.sin(angles).astype(self._dtype)
        maps = (self._map(z, part).reshape(len(z), -1, c.head_size) for part in (att.q_proj, att.k_proj, att.v_proj))
        q, k, v = maps
        q, k = (self._normed(x, norm) for x, norm in zip((q, k), self._of_heads, strict=True))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y, kv = softmax_attention(q, k, v, None, None, state.kv, offsets, window=c.window)
        return self._map(y.reshape(len(z), -1), att.o_proj), AttentionState(kv, state.seen + new)

    def _normed(self, x: Array, norm: Array | None) -> Array:
        if norm is None:
            return x
        return rms_norm(x.reshape(len(x), -1), norm, self._config.norm_eps, x.shape[1]).reshape(x.shape)

    def _map(self, x: Array, linear: Linear) -> Array:
        y = linear_map(x, linear.weight)
        if linear.bias is not None:
            y += vector(linear.bias, self._dtype)
        return y


def network(weights: Weights, config: TransformerConfig, dtype: np.dtype[Any]) -> Network:
    """Return the way from tokens to logits: embedding, layers, last norm and head."""
    table, norm = weights.model.embed_tokens.weight, vector(weights.model.norm.weight, dtype)
    head = table if weights.lm_head is None else weights.lm_head.weight
    return Network(
        embed=lambda tokens: np.asarray(embedding(table, tokens), dtype),
        layers=tuple(AttentionLayer(block, config, dtype) for block in weights.model.layers),
        head=lambda x: linear_map(rms_norm(x, norm, config.norm_eps), head),
    )


def bound(tensors: Mapping[str, LazyTensor], settings: Settings, source: str) -> tuple[Weights, TransformerConfig]:
    """Return tensors in their places among the weights, unread, and the configuration that the fields make.

    Raises
    ------
    CheckpointError
        If a tensor or a field is missing, left over, or not what it must be.
    """
    config = config_of(settings)
    settings.finish()
    require = (*config.present, *(() if config.tied else (r"lm_head\.weight",)))
    weights, sizes = bind(Weights, tensors, source=source, require=require)
    c = config
    agree(sizes, {letter: (name, size) for letter, name, size in _axes(c)}, source)
    return weights, replace(c, dtype=dtype_name(weights.model.layers[0].self_attn.q_proj.weight.dtype))


def _axes(c: TransformerConfig) -> tuple[tuple[str, str, int], ...]:
    return (
        ("C", "hidden_size", c.n_embd),
        ("V", "vocab_size", c.vocab_size),
        ("L", "num_hidden_layers", c.n_layer),
        ("F", "intermediate_size", c.n_ffn),
        ("Q", "num_attention_heads x head_dim", c.n_head * c.head_size),
        ("P", "num_key_value_heads x head_dim", c.n_group * c.head_size),
        ("D", "head_dim", c.head_size),
    )


def config_of(settings: Settings) -> TransformerConfig:
    """Return the configuration that the fields of a ``config.json`` describe."""
    heads, width = settings.integer("num_attention_heads"), settings.integer("hidden_size")
    settings.choice("hidden_act", ("silu",), "silu")
    settings.choice("model_type", MODEL_TYPES)
    window = settings.integer("sliding_window") if "sliding_window" in settings else None
    return TransformerConfig(
        architecture="transformer",
        n_layer=settings.integer("num_hidden_layers"),
        n_embd=width,
        vocab_size=settings.integer("vocab_size"),
        n_head=heads,
        n_group=settings.integer("num_key_value_heads", heads),
        head_size=settings.integer("head_dim", width // heads),
        n_ffn=settings.integer("intermediate_size"),
        norm_eps=settings.number("rms_norm_eps", 1e-6),
        rope_theta=settings.number("rope_theta", 10000.0),
        window=window,
        tied=settings.flag("tie_word_embeddings"),
        fields=settings.fields,
    )


def fresh_fields(
    *, n_layer: int, n_embd: int, vocab_size: int, head_size: int, n_group: int | None = None, window: int | None = None
) -> dict[str, Any]:
    """Return the fields of a model with random weights: as LLaMA has them, and about as many numbers as an RWKV."""
    return {
        "model_type": "llama" if window is None else "mistral",
        "hidden_size": n_embd,
        "intermediate_size": -(-8 * n_embd // 3 // 32) * 32,
        "num_hidden_layers": n_layer,
        "num_attention_heads": n_embd // head_size,
        "num_key_value_heads": n_group or n_embd // head_size,
        "head_dim": head_size,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": window,
        "tie_word_embeddings": False,
        "vocab_size": vocab_size,
    }


def shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a fresh model."""
    sizes = {letter: size for letter, _, size in _axes(config)}
    return declare(Weights, sizes, config.n_layer, lambda name: name == "lm_head.weight" and not config.tied)
