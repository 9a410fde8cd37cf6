"""Every architecture that the recipe can train, by name, and what its file says about itself."""

from __future__ import annotations

from typing import Any

import torch
from attention import THETA, AttentionBlock, RMSNorm
from mamba import TAPS, MambaBlock
from networks import TIME_MIX, Block, Network, Sizes, matrix
from torch import Tensor, nn

COMPILED = (Block, AttentionBlock, MambaBlock)
"""What is worth compiling, one by one."""


def embedding_of(sizes: Sizes) -> nn.Embedding:
    """Return the rows that stand for the bytes."""
    embedding = nn.Embedding(sizes.vocabulary, sizes.width)
    nn.init.uniform_(embedding.weight, -0.5, 0.5)
    return embedding


def through(layers: nn.ModuleList, x: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
    """Return what the layers make of x, and the state they leave."""
    left = []
    for layer, entry in zip(layers, state, strict=True):
        x, entry = layer(x, entry)
        left.append(entry)
    return x, left


class Transformer(nn.Module):
    """LLaMA with a window, which is Mistral: the names are theirs in Hugging Face's files."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = embedding_of(sizes)
        self.model.layers = nn.ModuleList(AttentionBlock(sizes) for _ in range(sizes.layers))
        self.model.norm = RMSNorm(sizes.width)
        self.lm_head = matrix(sizes.width, sizes.vocabulary, 0.5)

    def start(self, batch: int) -> list[Any]:
        """Return the state before the first token."""
        return [layer.start(batch) for layer in self.model.layers]

    def forward(self, tokens: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        x, state = through(self.model.layers, self.model.embed_tokens(tokens), state)
        return self.lm_head(self.model.norm(x)), state


class Mamba(nn.Module):
    """Mamba-1 or Mamba-2."""

    def __init__(self, architecture: str, sizes: Sizes) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.embeddings = embedding_of(sizes)
        self.backbone.layers = nn.ModuleList(MambaBlock(architecture, sizes) for _ in range(sizes.layers))
        self.backbone.norm_f = RMSNorm(sizes.width)
        self.lm_head = matrix(sizes.width, sizes.vocabulary, 0.5)

    def start(self, batch: int) -> list[Any]:
        """Return the state before the first token."""
        return [layer.start(batch) for layer in self.backbone.layers]

    def forward(self, tokens: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        x, state = through(self.backbone.layers, self.backbone.embeddings(tokens), state)
        return self.lm_head(self.backbone.norm_f(x)), state


def layers_of(sizes: Sizes) -> str:
    """Return the letter of every layer of a hybrid: its pattern, repeated."""
    return (sizes.pattern * sizes.layers)[: sizes.layers]


class Hybrid(nn.Module):
    """Blocks of RWKV-7 and of attention in turn."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self.blocks = sizes, nn.ModuleList()
        self.emb = embedding_of(sizes)
        letters = layers_of(sizes)
        for layer, letter in enumerate(letters):
            block = (
                AttentionBlock(sizes) if letter == "a" else Block("rwkv7", sizes, layer, layer == letters.index("r"))
            )
            self.blocks.append(nn.ModuleDict({"attention" if letter == "a" else "rwkv7": block}))
        self.ln_out = nn.LayerNorm(sizes.width)
        self.head = matrix(sizes.width, sizes.vocabulary, 0.5)

    def start(self, batch: int) -> list[Any]:
        """Return the state before the first token."""
        zero = torch.zeros(batch, self.sizes.width)
        inner = (next(iter(block.values())) for block in self.blocks)
        return [
            block.start(batch) if isinstance(block, AttentionBlock) else (zero, zero, block.att.start(batch))
            for block in inner
        ]

    def forward(self, tokens: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        x, carry, left = self.emb(tokens), None, []
        for block, entry in zip(self.blocks, state, strict=True):
            if "attention" in block:
                x, entry = block["attention"](x, entry)
            else:
                x, entry, carry = block["rwkv7"](x, entry, carry)
            left.append(entry)
        return self.head(self.ln_out(x)), left


def build(architecture: str, sizes: Sizes) -> nn.Module:
    """Return a language model: logits (B, T, vocabulary) and state of tokens (B, T) and state."""
    if architecture in TIME_MIX:
        return Network(architecture, sizes)
    if architecture.startswith("mamba"):
        return Mamba(architecture, sizes)
    return Hybrid(sizes) if architecture == "hybrid" else Transformer(sizes)


def config_of(architecture: str, sizes: Sizes) -> dict[str, Any] | None:
    """Return the fields of a Hugging Face ``config.json``; RWKV files need none, their tensors say all."""
    if architecture in TIME_MIX:
        return None
    if architecture == "hybrid":
        attention = config_of("transformer", sizes)
        return {
            "model_type": "hybrid",
            "pattern": layers_of(sizes),
            "attention": attention,
            "rwkv7": {"head_size": sizes.head},
        }
    shared = {
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "intermediate_size": sizes.hidden,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    if architecture == "transformer":
        return {"model_type": "mistral"} | shared | attention_fields(sizes)
    own = {
        "state_size": sizes.state,
        "conv_kernel": TAPS,
        "expand": 2,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
    }
    if architecture == "mamba1":
        own |= {"model_type": "mamba", "time_step_rank": sizes.ranks["dt"]}
    else:
        own |= {
            "model_type": "mamba2",
            "num_heads": sizes.hidden // sizes.head,
            "head_dim": sizes.head,
            "n_groups": 1,
        }
    return shared | own


def attention_fields(sizes: Sizes) -> dict[str, Any]:
    """Return what attention adds."""
    return {
        "num_attention_heads": sizes.width // sizes.attention_head,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.attention_head,
        "rms_norm_eps": 1e-5,
        "rope_theta": THETA,
        "sliding_window": sizes.window,
        "max_position_embeddings": 16384,
    }
