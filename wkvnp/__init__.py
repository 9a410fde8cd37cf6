"""Forward-only RWKV and linear attention in NumPy and Numba.

Names are loaded on first use, so that ``import wkvnp`` costs little more than importing NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Cost": ".analysis.cost",
    "KVCache": ".kernels.softmax",
    "Model": ".models.language_model",
    "Piece": ".generation.stream",
    "Score": ".analysis.perplexity",
    "State": ".models.state",
    "attention_matrix": ".analysis.attention_map",
    "based": ".mechanisms.based",
    "bigbird": ".mechanisms.bigbird",
    "convert": ".models.conversion",
    "cost": ".analysis.cost",
    "deltanet": ".mechanisms.deltanet",
    "deltaproduct": ".mechanisms.deltaproduct",
    "forgetting_attention": ".mechanisms.forgetting_attention",
    "gated_deltanet": ".mechanisms.gated_deltanet",
    "generate": ".generation.stream",
    "gla": ".mechanisms.gla",
    "gsa": ".mechanisms.gsa",
    "hgrn": ".mechanisms.hgrn",
    "hgrn2": ".mechanisms.hgrn2",
    "kda": ".mechanisms.kda",
    "lightning_attention": ".mechanisms.lightning_attention",
    "linear_attention": ".mechanisms.linear_attention",
    "load": ".models",
    "load_tokenizer": ".tokenizers",
    "longformer": ".mechanisms.longformer",
    "mamba1": ".mechanisms.mamba1",
    "mamba2": ".mechanisms.mamba2",
    "mingru": ".mechanisms.mingru",
    "mlstm": ".mechanisms.mlstm",
    "performer": ".mechanisms.performer",
    "random_model": ".models.random_model",
    "retnet": ".mechanisms.retnet",
    "rg_lru": ".mechanisms.rg_lru",
    "rwkv4": ".mechanisms.rwkv4",
    "rwkv5": ".mechanisms.rwkv5",
    "rwkv6": ".mechanisms.rwkv6",
    "rwkv7": ".mechanisms.rwkv7",
    "s4d": ".mechanisms.s4d",
    "score": ".analysis.perplexity",
    "set_num_threads": "._threads",
    "short_convolution": ".mechanisms.short_convolution",
    "simple_gla": ".mechanisms.simple_gla",
    "softmax_attention": ".mechanisms.softmax_attention",
    "token_shift": ".mechanisms.token_shift",
    "warmup": ".models.warmup",
}
"""Public name -> the module that defines it."""

_RENAMED = {
    "KVState": "KVCache",
    "draw_random_blocks": "mechanisms.random_blocks.draw_random_blocks",
    "expert_load": "primitives.router.expert_load",
    "favor_features": "mechanisms.favor.favor_features",
    "favor_matrix": "mechanisms.favor.favor_matrix",
    "favor_relative_std": "mechanisms.favor.favor_relative_std",
    "init": "random_model",
    "load_state": "State.load",
    "set_threads": "set_num_threads",
    "tokenizer": "load_tokenizer",
    "top_k_gate": "primitives.router.top_k_gate",
}
"""Names of earlier development versions -> those of today."""

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from ._threads import set_num_threads
    from .analysis.attention_map import attention_matrix
    from .analysis.cost import Cost, cost
    from .analysis.perplexity import Score, score
    from .generation.stream import Piece, generate
    from .kernels.softmax import KVCache
    from .mechanisms.based import based
    from .mechanisms.bigbird import bigbird
    from .mechanisms.deltanet import deltanet
    from .mechanisms.deltaproduct import deltaproduct
    from .mechanisms.forgetting_attention import forgetting_attention
    from .mechanisms.gated_deltanet import gated_deltanet
    from .mechanisms.gla import gla
    from .mechanisms.gsa import gsa
    from .mechanisms.hgrn import hgrn
    from .mechanisms.hgrn2 import hgrn2
    from .mechanisms.kda import kda
    from .mechanisms.lightning_attention import lightning_attention
    from .mechanisms.linear_attention import linear_attention
    from .mechanisms.longformer import longformer
    from .mechanisms.mamba1 import mamba1
    from .mechanisms.mamba2 import mamba2
    from .mechanisms.mingru import mingru
    from .mechanisms.mlstm import mlstm
    from .mechanisms.performer import performer
    from .mechanisms.retnet import retnet
    from .mechanisms.rg_lru import rg_lru
    from .mechanisms.rwkv4 import rwkv4
    from .mechanisms.rwkv5 import rwkv5
    from .mechanisms.rwkv6 import rwkv6
    from .mechanisms.rwkv7 import rwkv7
    from .mechanisms.s4d import s4d
    from .mechanisms.short_convolution import short_convolution
    from .mechanisms.simple_gla import simple_gla
    from .mechanisms.softmax_attention import softmax_attention
    from .mechanisms.token_shift import token_shift
    from .models import load
    from .models.conversion import convert
    from .models.language_model import Model
    from .models.random_model import random_model
    from .models.state import State
    from .models.warmup import warmup
    from .tokenizers import load_tokenizer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        renamed = f"; it is called {_RENAMED[name]} now" if name in _RENAMED else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{renamed}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
