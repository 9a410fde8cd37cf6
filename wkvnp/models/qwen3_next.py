"""Qwen3-Next: most layers are gated delta nets, every fourth is gated attention.

Letters: M packed tokens of B sequences, C channels, V vocabulary, F feed-forward width. Attention: H heads of queries,
G groups (heads of keys and values), D width of a head, Q = H D, P = G D. Delta net: I heads of queries and keys of
width K, U heads of values of width E, O = U E, J = 2 I K + O channels of a convolution over W tokens, Z = J + O.
Mixture: X experts of width R, and one of width S for all tokens. Matrices are [out, in].

References
----------
Yang et al. 2024 (arXiv:2412.06464), section 3.4, for the delta net; Qiu et al. 2025 (arXiv:2505.06708) for the gate
after attention; huggingface/transformers, ``models/qwen3_next/modeling_qwen3_next.py``.
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
from ..errors import CheckpointError
from ..mechanisms.gated_deltanet import packed as gated_deltanet
from ..mechanisms.softmax_attention import KVState
from ..mechanisms.softmax_attention import packed as softmax_attention
from ..primitives.elementwise import elementwise, sigmoid, silu
from ..primitives.linear_map import Product, linear_map, multiply
from ..primitives.norm import rms_norm
from ..primitives.rotary import rotate
from ..primitives.router import top_k_gate
from .mamba_layer import Convolution
from .maps import Maps
from .network import Network, rms_network, vector
from .qwen3_next_config import FULL, Qwen3NextConfig, config_of, fresh_fields
from .rotary_scaling import rotation_of
from .settings import Settings, agree
from .tied_head import without_head
from .transformer import AttentionState, swiglu

__all__ = ["CENTRED", "WEIGHTS", "bound", "config_of", "fresh_fields", "network", "shapes"]


@dataclass(frozen=True, eq=False)
class GatedAttention:
    """``self_attn``; `q_proj` makes the query and the gate of every head."""

    q_proj: Annotated[Linear, "2Q C"]
    k_proj: Annotated[Linear, "P C"]
    v_proj: Annotated[Linear, "P C"]
    o_proj: Annotated[Linear, "C Q"]
    q_norm: Annotated[Matrix, "D"]
    k_norm: Annotated[Matrix, "D"]


@dataclass(frozen=True, eq=False)
class DeltaNet:
    """``linear_attn``; for each head of queries `in_proj_qkvz` makes q, k, v and gates, `in_proj_ba` b and a."""

    in_proj_qkvz: Annotated[Matrix, "Z C"]
    in_proj_ba: Annotated[Matrix, "2U C"]
    conv1d: Annotated[Matrix, "J 1 W"]
    A_log: Annotated[Array, "U"]
    dt_bias: Annotated[Array, "U"]
    norm: Annotated[Matrix, "E"]
    out_proj: Annotated[Matrix, "C O"]


@dataclass(frozen=True, eq=False)
class Expert:
    """``mlp.experts.n``."""

    gate_proj: Annotated[Matrix, "R C"]
    up_proj: Annotated[Matrix, "R C"]
    down_proj: Annotated[Matrix, "C R"]


@dataclass(frozen=True, eq=False)
class SharedExpert:
    """``mlp.shared_expert``."""

    gate_proj: Annotated[Matrix, "S C"]
    up_proj: Annotated[Matrix, "S C"]
    down_proj: Annotated[Matrix, "C S"]


@dataclass(frozen=True, eq=False)
class FeedForward:
    """``mlp``: one network, or a router with its experts."""

    gate_proj: Annotated[Matrix | None, "F C"] = None
    up_proj: Annotated[Matrix | None, "F C"] = None
    down_proj: Annotated[Matrix | None, "C F"] = None
    gate: Annotated[Matrix | None, "X C"] = None
    experts: tuple[Expert, ...] | None = None
    shared_expert: SharedExpert | None = None
    shared_expert_gate: Annotated[Matrix | None, "1 C"] = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """``model.layers.n``."""

    input_layernorm: Annotated[Matrix, "C"]
    linear_attn: DeltaNet | None = None
    self_attn: GatedAttention | None = None
    post_attention_layernorm: Annotated[Matrix, "C"]
    mlp: FeedForward


@dataclass(frozen=True, eq=False)
class Decoder:
    """``model``."""

    embed_tokens: Annotated[Matrix, "V C"]
    layers: tuple[Block, ...]
    norm: Annotated[Matrix, "C"]


@dataclass(frozen=True, eq=False)
class Weights:
    """All tensors of a checkpoint but ``mtp``; without a head, the embedding is the head."""

    model: Decoder
    lm_head: Annotated[Matrix | None, "V C"] = None


WEIGHTS = {"qwen3_next": Weights}
CENTRED = r".*(layernorm|[qk]_norm|model\.norm)\.weight"
"""Names of the norms whose scale is stored as its difference from 1."""


@dataclass(frozen=True, eq=False)
class DeltaState:
    """The state of one gated delta net; the batch axis comes first.

    Attributes
    ----------
    conv : ndarray, shape (B, W - 1, J)
        The last inputs of the convolution, the oldest first.
    S : ndarray, shape (B, U, K, E)
        What the keys recall.
    """

    conv: Array
    S: Array


class AttentionMixer:
    """Attention whose keys and queries are normalised and partly rotated, and whose output is gated."""

    def __init__(self, att: GatedAttention, config: Qwen3NextConfig, dtype: np.dtype[Any]) -> None:
        self._config, self._dtype, self._rotation = config, dtype, rotation_of(config.rotary, dtype)
        self._qkv, self._o = Maps((att.q_proj, att.k_proj, att.v_proj), dtype), Maps((att.o_proj,), dtype)
        self._q_norm, self._k_norm = centred(att.q_norm, dtype), centred(att.k_norm, dtype)

    def start(self, batch: int) -> AttentionState:
        """Return an empty past."""
        c = self._config
        kv = KVState.empty(batch, c.n_group, c.head_size, c.head_size, self._dtype)
        return AttentionState(kv, np.zeros(batch, np.int64))

    def __call__(self, z: Array, state: AttentionState, offsets: Array) -> tuple[Array, AttentionState]:
        """Return what the layer adds to the residual stream (M, C), and its state."""
        c, M = self._config, len(z)
        cos, sin, seen = self._rotation(state.seen, offsets)
        both, k, v = self._qkv(z)
        query, gate = (part.reshape(M, -1) for part in np.split(both.reshape(M, c.n_head, -1), 2, axis=2))
        q = rms_norm(query, self._q_norm, c.norm_eps, c.n_head).reshape(M, c.n_head, -1)
        k = rms_norm(k, self._k_norm, c.norm_eps, c.n_group).reshape(M, c.n_group, -1)
        q, k, v = rotate(q, cos, sin), rotate(k, cos, sin), v.reshape(k.shape)
        y, kv = softmax_attention(q, k, v, None, None, state.kv, offsets)
        return self._o(y.reshape(M, -1) * sigmoid(gate))[0], AttentionState(kv, seen)


@elementwise
def log_decay_of(step: Any, A_log: Any) -> Any:
    """Return the log decay of a token: -exp(A_log) softplus(step)."""
    return -scalar.exp(A_log) * scalar.softplus(step)


class DeltaMixer:
    """A gated delta net: a short convolution makes queries, keys and values, whose delta rule is normed and gated."""

    def __init__(self, net: DeltaNet, config: Qwen3NextConfig, dtype: np.dtype[Any]) -> None:
        self._net, self._config, self._dtype = net, config, dtype
        self._A_log, self._dt_bias = vector(net.A_log, dtype), vector(net.dt_bias, dtype)
        self._convolution = Convolution(Linear(net.conv1d.weight), dtype)
        self._norm = vector(net.norm.weight, dtype)

    def start(self, batch: int) -> DeltaState:
        """Return zeros."""
        c = self._config
        return DeltaState(
            np.zeros((batch, c.n_tap - 1, c.n_convolved), self._dtype),
            np.zeros((batch, c.n_value_head, c.key_size, c.value_size), self._dtype),
        )

    def __call__(self, z: Array, state: DeltaState, offsets: Array) -> tuple[Array, DeltaState]:
        """Return what the layer adds to the residual stream (M, C), and its state."""
        c, net, M, I = self._config, self._net, len(z), self._config.n_key_head
        shared = c.n_value_head // I  # heads of values that read one key
        widths = np.cumsum([c.key_size, c.key_size, shared * c.value_size])
        *qkv, gate = np.split(linear_map(z, net.in_proj_qkvz.weight).reshape(M, I, -1), widths, axis=2)
        b, a = np.split(linear_map(z, net.in_proj_ba.weight).reshape(M, I, -1), 2, axis=2)
        beta, log_decay = sigmoid(b.reshape(M, -1)), log_decay_of(a.reshape(M, -1) + self._dt_bias, self._A_log)
        x, conv = self._convolution(np.hstack([part.reshape(M, -1) for part in qkv]), state.conv, offsets)
        parts = np.split(x, [I * c.key_size, 2 * I * c.key_size], axis=1)
        q, k, v = (part.reshape(M, heads, -1) for part, heads in zip(parts, (I, I, c.n_value_head), strict=True))
        y, S = gated_deltanet(q, k, np.ascontiguousarray(v), beta, log_decay, state.S, offsets)
        y = rms_norm(y.reshape(M, -1), self._norm, c.norm_eps, c.n_value_head) * silu(gate.reshape(M, -1))
        return linear_map(y, net.out_proj.weight), DeltaState(conv, S)


def feed_forward(z: Array, mlp: Any) -> Array:
    """Return ``W_down (silu(W_gate z) * W_up z)`` for z (M, C)."""
    gate, up = multiply([Product(z, mlp.gate_proj.weight), Product(z, mlp.up_proj.weight)])
    return linear_map(swiglu(gate, up), mlp.down_proj.weight)


def mixture(z: Array, mlp: FeedForward, c: Qwen3NextConfig) -> Array:
    """Return the shared expert, as far as its gate is open, and the weighted sum of those that each token chooses.

    Experts come in the order of their numbers, so that a token's sum does not depend on the other tokens.
    """
    assert mlp.gate is not None and mlp.experts is not None and mlp.shared_expert_gate is not None
    y = sigmoid(linear_map(z, mlp.shared_expert_gate.weight)) * feed_forward(z, mlp.shared_expert)
    chosen = top_k_gate(linear_map(z, mlp.gate.weight), c.n_chosen, normalize=c.normalized)
    for expert in np.unique(chosen.experts):
        tokens, ranks = np.nonzero(chosen.experts == expert)
        y[tokens] += chosen.weights[tokens, ranks, None] * feed_forward(z[tokens], mlp.experts[expert])
    return y


class Layer:
    """One layer: a mixer of tokens and a network on each are added to the residual stream, each after an RMS norm."""

    def __init__(self, block: Block, config: Qwen3NextConfig, dtype: np.dtype[Any]) -> None:
        self._mlp, self._config = block.mlp, config
        self._norms = [centred(norm, dtype) for norm in (block.input_layernorm, block.post_attention_layernorm)]
        self._mixer: AttentionMixer | DeltaMixer
        if block.self_attn is not None:
            self._mixer = AttentionMixer(block.self_attn, config, dtype)
        else:
            assert block.linear_attn is not None
            self._mixer = DeltaMixer(block.linear_attn, config, dtype)

    def start(self, batch: int) -> AttentionState | DeltaState:
        """Return the state at the start of `batch` texts."""
        return self._mixer.start(batch)

    def __call__(self, x: Array, state: Any, offsets: Array, carry: Any) -> tuple[Array, Any, Any]:
        """Return x (M, C) after the layer, its state, and `carry` untouched."""
        (ln1, ln2), eps = self._norms, self._config.norm_eps
        y, final = self._mixer(rms_norm(x, ln1, eps), state, offsets)
        x = x + y
        z = rms_norm(x, ln2, eps)
        y = feed_forward(z, self._mlp) if self._mlp.gate is None else mixture(z, self._mlp, self._config)
        return x + y, final, carry


def centred(norm: Matrix, dtype: np.dtype[Any]) -> Array:
    """Return the scale of a norm, which is stored as its difference from 1."""
    scale: Array = 1 + vector(norm.weight, dtype)
    return scale


def network(weights: Weights, config: Qwen3NextConfig, dtype: np.dtype[Any]) -> Network:
    """Return the way from tokens to logits: embedding, layers, last norm and head."""
    layers = tuple(Layer(block, config, dtype) for block in weights.model.layers)
    norm = centred(weights.model.norm, dtype)
    return rms_network(weights.model.embed_tokens, layers, norm, config.norm_eps, weights.lm_head)


def bound(tensors: Mapping[str, LazyTensor], settings: Settings, source: str) -> tuple[Weights, Qwen3NextConfig]:
    """Return tensors in their places among the weights, unread, and the configuration that the fields make.

    Tensors under ``mtp.`` are left out: they guess further tokens and change no logits.

    Raises
    ------
    CheckpointError
        If a tensor or a field is missing, left over, or not what it must be.
    """
    config = config_of(settings)
    settings.finish()
    require = () if config.tied else (r"lm_head\.weight",)
    tensors = without_head(tensors, "model.embed_tokens.weight", source) if config.tied else tensors
    weights, sizes = bind(Weights, tensors, source=source, ignore=(r"mtp\..+",), require=require)
    layers = weights.model.layers
    agree(sizes | {"L": len(layers)}, {letter: (name, size) for letter, name, size in config.axes}, source)
    for n, block in enumerate(layers):
        wanted, found = _wanted(config, n), _found(block)
        odd = [f"{part} is missing" for part in wanted if part not in found]
        odd += [f"{part} is left over" for part in found if part not in wanted]
        if odd:
            raise CheckpointError(f"{source}: model.layers.{n} is not as configured: {', '.join(odd)}")
    return weights, replace(config, dtype=dtype_name(weights.model.embed_tokens.weight.dtype))


_BIASES = tuple(f"self_attn.{name}.bias" for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
_DENSE = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_SPARSE = ("mlp.gate", "mlp.shared_expert", "mlp.shared_expert_gate")


def _wanted(c: Qwen3NextConfig, n: int) -> tuple[str, ...]:
    """Return the optional parts that a layer must have."""
    attention = ("self_attn", *(_BIASES if c.attention_bias else ()))
    network = (*_SPARSE, f"a list of {c.n_expert} mlp.experts") if c.sparse[n] else _DENSE
    return (attention if c.kinds[n] == FULL else ("linear_attn",)) + network


def _found(block: Block) -> tuple[str, ...]:
    """Return the optional parts that a layer has."""

    def there(path: str) -> bool:
        part: Any = block
        for name in path.split("."):
            part = getattr(part, name, None)
        return part is not None

    parts = tuple(part for part in ("linear_attn", "self_attn", *_BIASES, *_DENSE, *_SPARSE) if there(part))
    return parts if block.mlp.experts is None else (*parts, f"a list of {len(block.mlp.experts)} mlp.experts")


def shapes(config: Qwen3NextConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a fresh model, which has no experts."""

    def included(name: str) -> bool:
        if name == "lm_head.weight":
            return not config.tied
        n, _, tensor = name.removeprefix("model.layers.").partition(".")
        return tensor.startswith(tuple(f"{part}." for part in _wanted(config, int(n)))) and tensor not in _BIASES

    return declare(Weights, {letter: size for letter, _, size in config.axes}, config.n_layer, included)
