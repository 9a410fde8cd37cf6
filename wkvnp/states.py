"""The states that mechanisms and the layers of models return: named arrays, to be read and to be made by hand."""

from __future__ import annotations

from .kernels.softmax import ForgetCache, KVCache
from .kernels.softmax.state import ForgetParts, KVParts
from .mechanisms._normalised import LinearState
from .mechanisms.gsa import GSAState
from .mechanisms.mlstm import MLSTMState
from .mechanisms.performer import PerformerState
from .mechanisms.rwkv4 import WKVState
from .models.mamba_layer import MambaState
from .models.qwen3_next import DeltaState
from .models.rwkv_layer import LayerState
from .operations import AttentionState

__all__ = [
    "AttentionState",
    "DeltaState",
    "ForgetCache",
    "ForgetParts",
    "GSAState",
    "KVCache",
    "KVParts",
    "LayerState",
    "LinearState",
    "MLSTMState",
    "MambaState",
    "PerformerState",
    "WKVState",
]
