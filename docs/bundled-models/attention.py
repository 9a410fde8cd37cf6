"""The LLaMA block as a PyTorch module: attention over a window of the last tokens, and a gated channel mix.

Shapes: B sequences, T tokens, C channels, H query heads and K heads of keys and values, D channels a head, W tokens a
window. The state is what later tokens may still look at: the last W - 1 keys, before their rotation, and values
(B, W - 1, K, D), and how many of them there really are (B,).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from networks import Sizes, matrix, wide
from torch import Tensor, nn

THETA = 10000.0
BLOCK = 64
"""Queries that go through the softmax together: few enough that their scores stay in the cache of a core."""


class RMSNorm(nn.Module):
    """Division by the root of the mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = wide(x)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


def rotated(x: Tensor, first: int) -> Tensor:
    """Return x (B, T, H, D) turned by its positions first, first + 1, ...; channel i goes with channel i + D / 2.

    Scores depend on the distance only, so positions may be counted from anywhere: here from the oldest key.
    """
    T, D = x.shape[1], x.shape[3]
    frequency = THETA ** (-torch.arange(0, D, 2) / D)
    angle = ((first + torch.arange(T))[:, None] * frequency)[:, None]
    a, b = wide(x).chunk(2, -1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


@torch.compiler.disable
def windowed(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Return softmax(q k) v (B, T, H D): every query sees itself and the W - 1 tokens before it, if they are real.

    q is (B, T, H, D), k and v are (B, W - 1 + T, K, D), of whose first W - 1 only the last seen (B,) are real.
    """
    B, T, H, D = q.shape
    K, past = k.shape[2], k.shape[1] - T
    q = q.view(B, T // BLOCK, BLOCK, K, H // K, D).permute(1, 0, 3, 4, 2, 5).flatten(3, 4) * D**-0.5
    k, v = k.transpose(1, 2), v.transpose(1, 2).contiguous()
    query, key = torch.arange(BLOCK)[:, None], torch.arange(past + BLOCK)
    hidden = torch.tensor(-torch.inf, dtype=q.dtype)
    near = torch.where((key >= query) & (key <= query + past), 0, hidden).repeat(H // K, 1)
    real = torch.where(torch.arange(past + T) >= (past - seen)[:, None], 0, hidden)[:, None, None]
    blocks = []
    with torch.autocast("cpu", enabled=False):
        for first, queries in zip(range(0, T, BLOCK), q.unbind(0), strict=True):
            keys = slice(first, first + past + BLOCK)
            scores = queries @ k[:, :, keys].mT + (near + real[..., keys])
            blocks.append(torch.softmax(scores, -1) @ v[:, :, keys])
    y = torch.stack(blocks, 1).view(B, T // BLOCK, K, H // K, BLOCK, D)
    return y.permute(0, 1, 4, 2, 3, 5).reshape(B, T, H * D)


class Attention(nn.Module):
    """``self_attn``."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C, D, self.past = sizes.width, sizes.attention_head, sizes.window - 1
        self.heads, self.kv_heads = C // D, sizes.kv_heads
        self.q_proj, self.k_proj = matrix(C, C, 0.5), matrix(C, self.kv_heads * D, 0.5)
        self.v_proj, self.o_proj = matrix(C, self.kv_heads * D, 0.5), matrix(C, C, 0.0)

    def start(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        D = self.q_proj.weight.shape[0] // self.heads
        empty = torch.zeros(batch, self.past, self.kv_heads, D)
        return empty, empty, torch.zeros(batch, dtype=torch.int64)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        (B, T, _), (keys, values, seen) = x.shape, state
        q, k, v = (y.view(B, T, -1, keys.shape[3]) for y in (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
        keys, values = (torch.cat([old, wide(new)], 1) for old, new in ((keys, k), (values, v)))
        y = windowed(
            rotated(q, self.past).to(v.dtype), rotated(keys, 0).to(v.dtype).contiguous(), values.to(v.dtype), seen
        )
        state = keys[:, T:], values[:, T:], (seen + T).clamp(max=self.past)
        return self.o_proj(y), state


class GatedLinear(nn.Module):
    """``mlp``: SwiGLU."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C = sizes.width
        self.gate_proj, self.up_proj = matrix(C, sizes.hidden, 0.5), matrix(C, sizes.hidden, 0.5)
        self.down_proj = matrix(sizes.hidden, C, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class AttentionBlock(nn.Module):
    """``model.layers.n`` of LLaMA and Mistral."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(sizes.width), RMSNorm(sizes.width)
        self.self_attn, self.mlp = Attention(sizes), GatedLinear(sizes)

    def start(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.self_attn.start(batch)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.self_attn(self.input_layernorm(x), state)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), state
