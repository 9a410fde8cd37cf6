"""The configuration of Qwen3-Next, from the fields of its ``config.json``.

What the fields leave out is what the published class fills in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .network import Config
from .rotary_scaling import Rotary, rotary_of
from .settings import SILU, Settings, as_metadata, layer_types

LINEAR, FULL = "linear_attention", "full_attention"


@dataclass(frozen=True, kw_only=True)
class Qwen3NextConfig(Config):
    """Sizes of a Qwen3-Next.

    Attributes
    ----------
    kinds : tuple of str
        For every layer ``"linear_attention"`` (a gated delta net) or ``"full_attention"``.
    n_head, n_group, head_size : int
        Of attention: heads of queries, heads of keys and values, width of a head.
    rotary : Rotary
        How positions turn queries and keys.
    attention_bias : bool
        Whether the matrices of attention have biases.
    n_key_head, n_value_head, key_size, value_size : int
        Of delta nets: heads of queries and keys, heads of values, and the widths of both.
    n_tap : int
        Tokens that the convolution sees.
    n_ffn : int
        Width of a feed-forward network.
    sparse : tuple of bool
        For every layer, whether experts replace that network.
    n_expert, n_chosen : int
        Experts of such a layer, and how many a token goes to.
    expert_ffn, shared_ffn : int
        Width of an expert, and of the one that all tokens go to.
    normalized : bool
        Whether the weights of the chosen are made to sum to 1.
    norm_eps : float
        Added to the mean square in every norm.
    tied : bool
        Whether the embedding is the head.
    fields : dict
        The configuration as it was read.
    """

    kinds: tuple[str, ...]
    n_head: int
    n_group: int
    head_size: int
    rotary: Rotary
    attention_bias: bool
    n_key_head: int
    n_value_head: int
    key_size: int
    value_size: int
    n_tap: int
    n_ffn: int
    sparse: tuple[bool, ...]
    n_expert: int
    n_chosen: int
    expert_ffn: int
    shared_ffn: int
    normalized: bool
    norm_eps: float
    tied: bool
    fields: dict[str, Any]

    @property
    def n_convolved(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.n_key_head * self.key_size + self.n_value_head * self.value_size

    @property
    def state_bytes(self) -> int:
        """Bytes of the delta nets' states of one sequence, in float32, and of the position in other layers."""
        matrix = self.n_value_head * self.key_size * self.value_size
        delta = 4 * self.kinds.count(LINEAR) * (matrix + (self.n_tap - 1) * self.n_convolved)
        return delta + 8 * self.kinds.count(FULL)

    @property
    def state_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token, in float32."""
        return 4 * self.kinds.count(FULL) * 2 * self.n_group * self.head_size

    @property
    def axes(self) -> tuple[tuple[str, str, int], ...]:
        """Letter, name and size of every axis."""
        values = self.n_value_head * self.value_size
        return (
            ("C", "hidden_size", self.n_embd),
            ("V", "vocab_size", self.vocab_size),
            ("L", "num_hidden_layers", self.n_layer),
            ("F", "intermediate_size", self.n_ffn),
            ("Q", "num_attention_heads x head_dim", self.n_head * self.head_size),
            ("P", "num_key_value_heads x head_dim", self.n_group * self.head_size),
            ("D", "head_dim", self.head_size),
            ("U", "linear_num_value_heads", self.n_value_head),
            ("E", "linear_value_head_dim", self.value_size),
            ("O", "linear_num_value_heads x linear_value_head_dim", values),
            ("J", "the width of queries, keys and values of delta nets", self.n_convolved),
            ("Z", "the width of queries, keys, values and gates of delta nets", self.n_convolved + values),
            ("W", "linear_conv_kernel_dim", self.n_tap),
            ("X", "num_experts", self.n_expert),
            ("R", "moe_intermediate_size", self.expert_ffn),
            ("S", "shared_expert_intermediate_size", self.shared_ffn),
        )

    def metadata(self) -> dict[str, str]:
        """Return what a safetensors file says besides the tensors."""
        return as_metadata(self.architecture, self.fields)


def config_of(settings: Settings) -> Qwen3NextConfig:
    """Return the configuration that the fields of a ``config.json`` describe."""
    settings.choice("model_type", ("qwen3_next",))
    settings.choice("hidden_act", SILU, "silu")
    settings.choice("use_sliding_window", (False,), False)
    settings.ignore("sliding_window", "max_window_layers", "output_router_logits", "router_aux_loss_coef")
    n_layer, head_size = settings.layers(), settings.integer("head_dim", 256)
    return Qwen3NextConfig(
        architecture="qwen3_next",
        n_layer=n_layer,
        n_embd=settings.integer("hidden_size"),
        vocab_size=settings.integer("vocab_size"),
        kinds=_kinds(settings, n_layer),
        n_head=(n_head := settings.integer("num_attention_heads")),
        n_group=_divisor(settings, "num_key_value_heads", 2, n_head, "num_attention_heads"),
        head_size=head_size,
        rotary=rotary_of(settings, head_size, 0.25),
        attention_bias=settings.flag("attention_bias"),
        n_value_head=(n_value_head := settings.integer("linear_num_value_heads", 32)),
        n_key_head=_divisor(settings, "linear_num_key_heads", 16, n_value_head, "linear_num_value_heads"),
        key_size=settings.integer("linear_key_head_dim", 128),
        value_size=settings.integer("linear_value_head_dim", 128),
        n_tap=settings.integer("linear_conv_kernel_dim", 4),
        n_ffn=settings.integer("intermediate_size", 5632),
        n_expert=(n_expert := settings.integer("num_experts", 512, 0)),
        sparse=_sparse(settings, n_layer, n_expert),
        n_chosen=_chosen(settings, n_expert),
        expert_ffn=settings.integer("moe_intermediate_size", 512),
        shared_ffn=settings.integer("shared_expert_intermediate_size", 512),
        normalized=settings.flag("norm_topk_prob", True),
        norm_eps=settings.number("rms_norm_eps", 1e-6),
        tied=settings.flag("tie_word_embeddings"),
        fields=settings.fields,
    )


def _divisor(settings: Settings, name: str, default: int, of: int, whole: str) -> int:
    number = settings.integer(name, default)
    if of % number:
        raise settings.fault(name, f"a divisor of {whole}, which is {of}")
    return number


def _kinds(settings: Settings, n_layer: int) -> tuple[str, ...]:
    interval, kinds = settings.integer("full_attention_interval", 4), layer_types(settings)
    if kinds is None:
        return tuple(LINEAR if n % interval else FULL for n in range(1, n_layer + 1))
    if not isinstance(kinds, list) or len(kinds) != n_layer or any(kind not in (LINEAR, FULL) for kind in kinds):
        raise settings.fault("layer_types", f"a list of num_hidden_layers={n_layer} words {LINEAR!r} or {FULL!r}")
    return tuple(kinds)


def _sparse(settings: Settings, n_layer: int, n_expert: int) -> tuple[bool, ...]:
    """Say for every layer whether it has experts."""
    step, dense = settings.integer("decoder_sparse_step", 1), settings.value("mlp_only_layers") or []
    if not isinstance(dense, list) or any(type(n) is not int for n in dense):
        raise settings.fault("mlp_only_layers", "a list of whole numbers")
    excluded = set(dense)
    return tuple(n_expert > 0 and n not in excluded and (n + 1) % step == 0 for n in range(n_layer))


def _chosen(settings: Settings, n_expert: int) -> int:
    chosen = settings.integer("num_experts_per_tok", 10)
    if n_expert and chosen > n_expert:
        raise settings.fault("num_experts_per_tok", f"at most num_experts={n_expert}")
    return chosen


def fresh_fields(
    *,
    n_layer: int,
    n_embd: int,
    vocab_size: int,
    head_size: int,
    n_group: int | None = None,
    interval: int = 4,
) -> dict[str, Any]:
    """Return the fields of a model with random weights: proportions as published, but without experts."""
    heads = n_embd // head_size
    return {
        "model_type": "qwen3_next",
        "hidden_size": n_embd,
        "intermediate_size": -(-8 * n_embd // 3 // 32) * 32,
        "num_hidden_layers": n_layer,
        "num_attention_heads": heads,
        "num_key_value_heads": n_group or heads,
        "head_dim": head_size,
        "full_attention_interval": interval,
        "linear_num_key_heads": heads,
        "linear_num_value_heads": 2 * heads,
        "linear_key_head_dim": head_size,
        "linear_value_head_dim": head_size,
        "linear_conv_kernel_dim": 4,
        "num_experts": 0,
        "partial_rotary_factor": 0.25 if head_size % 8 == 0 else 1.0,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": vocab_size,
    }
