"""The configuration of a Transformer: its sizes, and what LLaMA, Mistral, Qwen2 and Qwen3 do differently.

References
----------
huggingface/transformers, ``models/llama/configuration_llama.py``, and those of ``mistral``, ``qwen2`` and ``qwen3``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .network import Config
from .rotary_scaling import Rotary, rotary_of
from .settings import SILU, Settings, as_metadata, layer_types

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Config):
    """Sizes of a Transformer.

    Attributes
    ----------
    n_head, n_group, head_size, n_ffn : int
        Heads of queries, heads of keys and values, width of a head, width of the feed-forward network.
    norm_eps : float
        Added to the mean square in every norm.
    rotary : Rotary
        How positions turn queries and keys.
    windows : tuple of int or None
        For every layer: a token sees itself and the ``window - 1`` before it; None is all of the past.
    biased : tuple of str
        The linear maps that have a bias: ``"q_proj"``, ...
    head_norms : bool
        Whether queries and keys are normalised, head by head.
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
    rotary: Rotary
    windows: tuple[int | None, ...]
    biased: tuple[str, ...]
    head_norms: bool
    tied: bool
    fields: dict[str, Any]

    def has(self, name: str) -> bool:
        """Say whether such a model has an optional tensor."""
        if name == "lm_head.weight":
            return not self.tied
        module, _, tensor = name.rpartition(".")
        module = module.rpartition(".")[2]
        return module in self.biased if tensor == "bias" else module in ("q_norm", "k_norm") and self.head_norms

    @property
    def state_bytes(self) -> int:
        """Bytes of the state that do not grow: the position in every layer."""
        return 8 * self.n_layer

    @property
    def state_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token, in float32; layers with a window let go of old ones."""
        return 4 * self.n_layer * 2 * self.n_group * self.head_size

    def metadata(self) -> dict[str, str]:
        """Return what a safetensors file says besides the tensors."""
        return as_metadata(self.architecture, self.fields)

    @property
    def axes(self) -> tuple[tuple[str, str, int], ...]:
        """The letters of the tensors' axes, what a configuration calls them, and their sizes."""
        return (
            ("C", "hidden_size", self.n_embd),
            ("V", "vocab_size", self.vocab_size),
            ("L", "num_hidden_layers", self.n_layer),
            ("F", "intermediate_size", self.n_ffn),
            ("Q", "num_attention_heads x head_dim", self.n_head * self.head_size),
            ("P", "num_key_value_heads x head_dim", self.n_group * self.head_size),
            ("D", "head_dim", self.head_size),
        )


def config_of(settings: Settings) -> TransformerConfig:
    """Return the configuration that the fields of a ``config.json`` describe."""
    kind: str = settings.choice("model_type", MODEL_TYPES)
    settings.choice("hidden_act", SILU, "silu")
    heads, width = settings.integer("num_attention_heads"), settings.integer("hidden_size")
    groups = settings.integer("num_key_value_heads", heads)
    if heads % groups:
        raise settings.fault("num_key_value_heads", f"a divisor of num_attention_heads={heads}")
    head_size = settings.integer("head_dim", 128 if kind == "qwen3" else max(1, width // heads))
    n_layer = settings.layers()
    return TransformerConfig(
        architecture="transformer",
        n_layer=n_layer,
        n_embd=width,
        vocab_size=settings.integer("vocab_size"),
        n_head=heads,
        n_group=groups,
        head_size=head_size,
        n_ffn=settings.integer("intermediate_size"),
        norm_eps=settings.number("rms_norm_eps", 1e-6),
        rotary=rotary_of(settings, head_size),
        windows=_windows(settings, kind, n_layer),
        biased=_biased(settings, kind),
        head_norms=kind == "qwen3",
        tied=settings.flag("tie_word_embeddings"),
        fields=settings.fields,
    )


def _biased(settings: Settings, kind: str) -> tuple[str, ...]:
    """Return the maps that have a bias: those that Qwen2 always has, and those that LLaMA and Qwen3 may have."""
    qkv, mlp = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")
    if kind in ("llama", "qwen3"):
        biased: tuple[str, ...] = (*qkv, "o_proj") if settings.flag("attention_bias") else ()
    else:
        settings.choice("attention_bias", (False,), False)
        biased = qkv if kind == "qwen2" else ()
    in_mlp = settings.flag("mlp_bias") if kind == "llama" else settings.choice("mlp_bias", (False,), False)
    return (*biased, *mlp) if in_mlp else biased


def _windows(settings: Settings, kind: str, n_layer: int) -> tuple[int | None, ...]:
    """Return the window of every layer: Mistral has one in all of them, Qwen in those from a certain one on."""
    full, sliding = "full_attention", "sliding_attention"
    window, first = None, n_layer
    if kind in ("llama", "mistral"):
        settings.ignore("max_window_layers")  # left over from a Qwen
    if kind == "mistral":
        if "sliding_window" not in settings.fields:
            raise settings.fault("sliding_window", "a whole number, or null")
        window, first = settings.integer("sliding_window") if "sliding_window" in settings else None, 0
    elif kind != "llama":
        first, size = settings.integer("max_window_layers", 28, least=0), settings.value("sliding_window")
        if settings.flag("use_sliding_window") and (size is not None or "sliding_window" not in settings.fields):
            window = settings.integer("sliding_window", 4096)
    usual = [sliding if window is not None and n >= first else full for n in range(n_layer)]
    kinds = layer_types(settings) or usual
    allowed = (full, sliding) if window is not None else (full,)
    if not isinstance(kinds, list) or len(kinds) != n_layer or any(name not in allowed for name in kinds):
        raise settings.fault("layer_types", f"a list of {n_layer} times {' or '.join(allowed)}")
    if kind == "mistral" and kinds != usual:
        raise settings.fault("layer_types", "the same for all layers of a Mistral, as sliding_window is")
    return tuple(window if name == sliding else None for name in kinds)


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
