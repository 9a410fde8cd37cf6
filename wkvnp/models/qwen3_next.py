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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from .._dtypes import dtype_name
from ..checkpoints import LazyTensor
from ..checkpoints.naming import Array, Linear, Matrix, bind, declare
from ..errors import CheckpointError
from ..kernels.softmax import KVCache
from ..operations import AttentionState, Operations, Product, SoftmaxAttention, Value
from .mamba_layer import convolution, product_with
from .network import Network, rms_network, vector
from .qwen3_next_config import FULL, Qwen3NextConfig, config_of, fresh_fields
from .rotary_scaling import rotation_of
from .settings import Settings, agree
from .tied_head import without_head

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
        c = self._config = config
        self._dtype = dtype
        self._how = SoftmaxAttention(
            c.n_head, c.n_group, c.head_size, rotation_of(c.rotary, dtype), c.rotary.size,
            q_norm=centred(att.q_norm, dtype), k_norm=centred(att.k_norm, dtype), eps=c.norm_eps,
        )  # fmt: skip
        self._q, self._k, self._v = (product_with(proj, dtype) for proj in (att.q_proj, att.k_proj, att.v_proj))
        self._out = product_with(att.o_proj, dtype)

    def start(self, batch: int) -> AttentionState:
        """Return an empty past."""
        c = self._config
        kv = KVCache.empty(batch, c.n_group, c.head_size, c.head_size, self._dtype)
        return AttentionState(kv, np.zeros(batch, np.int64))

    def __call__(self, o: Operations, x: Value, z: Value) -> Value:
        """Return x plus attention of z."""
        c = self._config
        both, k, v = o.multiply(qg=self._q(z), k=self._k(z), v=self._v(z))
        q, g = o.interleaved(both, c.n_head, q=c.head_size, g=c.head_size)
        return o.add_product(x, self._out(o.sigmoid_gate("gated", o.attention(q, k, v, self._how), g)))


class DeltaMixer:
    """A gated delta net: a short convolution makes queries, keys and values, whose delta rule is normed and gated."""

    def __init__(self, net: DeltaNet, config: Qwen3NextConfig, dtype: np.dtype[Any]) -> None:
        self._net, self._config, self._dtype = net, config, dtype
        self._A_log, self._dt_bias = vector(net.A_log, dtype), vector(net.dt_bias, dtype)
        self._conv, self._norm = convolution(Linear(net.conv1d.weight), dtype), vector(net.norm.weight, dtype)

    def start(self, batch: int) -> DeltaState:
        """Return zeros."""
        c = self._config
        return DeltaState(
            np.zeros((batch, c.n_tap - 1, c.n_convolved), self._dtype),
            np.zeros((batch, c.n_value_head, c.key_size, c.value_size), self._dtype),
        )

    def __call__(self, o: Operations, x: Value, z: Value) -> Value:
        """Return x plus the delta net of z."""
        c, net, I = self._config, self._net, self._config.n_key_head
        shared = c.n_value_head // I  # heads of values that read one key
        K, E = c.key_size, shared * c.value_size
        qkvz, ba = o.multiply(qkvz=Product(z, net.in_proj_qkvz.weight), ba=Product(z, net.in_proj_ba.weight))
        q, k, v, gate = o.interleaved(qkvz, I, q=K, k=K, v=E, z=E)
        b, a = o.interleaved(ba, I, b=shared, a=shared)
        qkv = o.convolve("conv", o.join(q, k, v), *self._conv, "conv")
        q, k, v = o.split(qkv, q=I * K, k=I * K, v=I * E)
        y = o.delta_rule(q, k, v, b, a, self._A_log, self._dt_bias, (I, c.n_value_head), "S")
        y = o.gate("gated", o.rms_norm("normed", y, self._norm, c.norm_eps, c.n_value_head), gate)
        return o.add_product(x, Product(y, net.out_proj.weight))


def feed_forward(mlp: Any) -> Callable[[Operations, Value], Value]:
    """Return the network ``W_down (silu(W_gate z) * W_up z)``."""

    def run(o: Operations, z: Value) -> Value:
        """Return its output for z."""
        gate, up = o.multiply(gate=Product(z, mlp.gate_proj.weight), up=Product(z, mlp.up_proj.weight))
        (y,) = o.multiply(y=Product(o.gate("k", up, gate), mlp.down_proj.weight))
        return y

    return run


class Layer:
    """One layer: a mixer of tokens and a network on each are added to the residual stream, each after an RMS norm."""

    def __init__(self, block: Block, config: Qwen3NextConfig, dtype: np.dtype[Any]) -> None:
        self._mlp, self._config = block.mlp, config
        self._ln1, self._ln2 = centred(block.input_layernorm, dtype), centred(block.post_attention_layernorm, dtype)
        self._mixer: AttentionMixer | DeltaMixer
        if block.self_attn is not None:
            self._mixer = AttentionMixer(block.self_attn, config, dtype)
        else:
            assert block.linear_attn is not None
            self._mixer = DeltaMixer(block.linear_attn, config, dtype)

    def start(self, batch: int) -> AttentionState | DeltaState:
        """Return the state at the start of `batch` texts."""
        return self._mixer.start(batch)

    def __call__(self, o: Operations, x: Value, v_first: Value) -> tuple[Value, Value]:
        """Return the residual stream after the layer, and `v_first` as it was."""
        mlp, c = self._mlp, self._config
        o.scope = "att"
        x = self._mixer(o, x, o.rms_norm("x", x, self._ln1, c.norm_eps))
        o.scope = "ffn"
        z = o.rms_norm("x", x, self._ln2, c.norm_eps)
        if mlp.gate is None:
            return o.add(x, feed_forward(mlp)(o, z)), v_first
        assert mlp.experts is not None and mlp.shared_expert_gate is not None
        (gate,) = o.multiply(shared_gate=Product(z, mlp.shared_expert_gate.weight))
        shared = o.sigmoid_gate("shared", feed_forward(mlp.shared_expert)(o, z), gate)
        experts = [feed_forward(expert) for expert in mlp.experts]
        chosen = o.experts(z, mlp.gate.weight, experts, c.n_chosen, c.normalized)
        return o.add(o.add(x, shared), chosen), v_first


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
