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

from .. import _scalar as scalar
from .._dtypes import dtype_name
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, Linear, Matrix, bind, declare
from ..checkpoints.tensors import quoted
from ..decoding import Place, Program, attention_groups
from ..errors import CheckpointError
from ..mechanisms.softmax_attention import KVState
from ..mechanisms.softmax_attention import packed as softmax_attention
from ..primitives.elementwise import elementwise
from ..primitives.norm import rms_norm
from ..primitives.rotary import rotate
from .maps import Maps
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


@dataclass(frozen=True, eq=False)
class AttentionState:
    """The state of one attention layer.

    Attributes
    ----------
    kv : KVState
        Keys, after their rotation, and values; of a layer with a window only those that can still be seen.
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
    """One layer: attention and a feed-forward network are added to the residual stream, each after an RMS norm.

    `number` says which layer of its model it is.
    """

    def __init__(self, block: Block, config: TransformerConfig, dtype: np.dtype[Any], number: int = 0) -> None:
        att, mlp, maps, widened = block.self_attn, block.mlp, partial(Maps, dtype=dtype), partial(vector, dtype=dtype)
        self._config, self._dtype, self._window = config, dtype, config.windows[number]
        self._rotation = rotation_of(config.rotary, dtype)
        self._ln1, self._ln2 = widened(block.input_layernorm.weight), widened(block.post_attention_layernorm.weight)
        self._of_heads = [None if norm is None else widened(norm.weight) for norm in (att.q_norm, att.k_norm)]
        self._qkv, self._o = maps((att.q_proj, att.k_proj, att.v_proj)), maps((att.o_proj,))
        self._gate_up, self._down = maps((mlp.gate_proj, mlp.up_proj)), maps((mlp.down_proj,))

    def start(self, batch: int) -> AttentionState:
        """Return an empty past."""
        c = self._config
        kv = KVState.empty(batch, c.n_group, c.head_size, c.head_size, self._dtype)
        return AttentionState(kv, np.zeros(batch, np.int64))

    def __call__(
        self, x: Array, state: AttentionState, offsets: Array, carry: Any
    ) -> tuple[Array, AttentionState, Any]:
        """Return x (M, C) after the layer, its state, and `carry` untouched."""
        eps = self._config.norm_eps
        y, final = self._attention(rms_norm(x, self._ln1, eps), state, offsets)
        x = x + y
        gate, up = self._gate_up(rms_norm(x, self._ln2, eps))
        return x + self._down(swiglu(gate, up))[0], final, carry

    def plan(self, program: Program, x: Place, carry: Any) -> Any:
        """Add what the layer does with one token of every sequence; return `carry` untouched."""
        c, p, eps = self._config, program, self._config.norm_eps
        H, G, K = c.n_head, c.n_group, c.head_size
        rotation = p.slot(c.rotary.size // 2), p.slot(c.rotary.size // 2)
        store = p.slot(0), p.slot(0), p.slot(0), p.slot(0)
        q, y = p.shared("q", H * K), p.shared("y", H * K)
        k, v = p.shared("k", G * K), p.shared("v", G * K)
        gate, up = p.shared("gate", c.n_ffn), p.shared("up", c.n_ffn)
        p.phase()
        self._qkv.plan(p, p.norm(x, self._ln1, None, eps), (q, k, v))
        p.phase()
        q_norm, k_norm = self._of_heads
        attention_groups(p, q, k, v, (q_norm, k_norm), eps, rotation, store, y, (H, G, K), self._window)
        p.phase()
        self._o.plan(p, y, (x,), add=True)
        p.phase()
        self._gate_up.plan(p, p.norm(x, self._ln2, None, eps), (gate, up))
        p.phase()
        self._down.plan(p, p.gate(up, gate), (x,), add=True)
        return carry

    def advance(self, state: AttentionState, offsets: Array) -> tuple[AttentionState, list[Array]]:
        """Return a state to be written, and the arrays for the slots of `plan`."""
        cos, sin, seen = self._rotation(state.seen, offsets)
        kv = state.kv.reserved(np.diff(offsets))
        store, base, lengths = kv.stored()
        slots = [cos, sin, store.keys, store.values, base, lengths]
        if self._window is not None:
            kv = kv.within(self._window)
        return AttentionState(kv, seen), slots

    def _attention(self, z: Array, state: AttentionState, offsets: Array) -> tuple[Array, AttentionState]:
        cos, sin, seen = self._rotation(state.seen, offsets)
        q, k, v = (part.reshape(len(z), -1, self._config.head_size) for part in self._qkv(z))
        q, k = (rotate(self._normed(x, norm), cos, sin) for x, norm in zip((q, k), self._of_heads, strict=True))
        y, kv = softmax_attention(q, k, v, None, None, state.kv, offsets, window=self._window)
        if self._window is not None:
            kv = kv.within(self._window)
        return self._o(y.reshape(len(z), -1))[0], AttentionState(kv, seen)

    def _normed(self, x: Array, norm: Array | None) -> Array:
        if norm is None:
            return x
        return rms_norm(x.reshape(len(x), -1), norm, self._config.norm_eps, x.shape[1]).reshape(x.shape)


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
