"""RWKV-4, 5.2, 6 and 7 as PyTorch modules whose tensors have the names of the original checkpoints.

Shapes: B sequences, T tokens, C channels, H heads of N channels. Every module takes the state it continues from and
returns the one it leaves. Initial values follow the papers and BlinkDL/RWKV-LM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import recurrences
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """What a model is made of; hidden is the inner width of a channel mix, or of a Mamba's mixer."""

    layers: int
    width: int
    head: int
    hidden: int
    ranks: dict[str, int]
    vocabulary: int = 256
    attention_head: int = 32
    kv_heads: int = 2
    window: int = 512
    state: int = 0
    pattern: str = ""


def shifted(x: Tensor, last: Tensor) -> Tensor:
    """Return the previous token of each: x (B, T, C) moved by one, beginning with last (B, C)."""
    return torch.cat([last[:, None], x[:, :-1]], 1)


def wide(x: Tensor) -> Tensor:
    """Return bfloat16 as float32, and anything wider as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x


def ramp(sizes: Sizes) -> Tensor:
    """Return 0, ..., 1 - 1/C along the channels."""
    return torch.arange(sizes.width) / sizes.width


def share(values: Tensor) -> nn.Parameter:
    """Return values of (C,) as the (1, 1, C) that checkpoints have."""
    return nn.Parameter(values.clone().float().view(1, 1, -1))


def matrix(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """Return a matrix without bias, uniform with the spread gain / sqrt(inputs)."""
    linear = nn.Linear(inputs, outputs, bias=False)
    bound = gain * math.sqrt(3 / inputs)
    nn.init.uniform_(linear.weight, -bound, bound) if gain else nn.init.zeros_(linear.weight)
    return linear


def factors(inputs: int, rank: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return a pair [inputs, rank] of zeros and [rank, outputs] of small numbers."""
    return nn.Parameter(torch.zeros(inputs, rank)), nn.Parameter(0.1 * nn.init.orthogonal_(torch.empty(rank, outputs)))


def decay_speed(sizes: Sizes, layer: int) -> Tensor:
    """Return exponents of the decays (C,) from slow to fast, bent more in higher layers."""
    depth = layer / max(sizes.layers - 1, 1)
    return (torch.arange(sizes.width) / (sizes.width - 1)) ** (0.85 + depth**0.5)


class GatedChannelMix(nn.Module):
    """``ffn`` of RWKV-4, 5 and 6."""

    def __init__(self, sizes: Sizes, layer: int, names: tuple[str, str], of_previous: bool) -> None:
        super().__init__()
        C, rest = sizes.width, 1 - layer / sizes.layers
        values = ramp(sizes) ** rest
        self.names = names
        for name in names:
            setattr(self, name, share(1 - values if of_previous else values))
        self.of_previous = of_previous
        self.key = matrix(C, sizes.hidden, 1.0)
        self.receptance = matrix(C, C, 0.0)
        self.value = matrix(sizes.hidden, C, 0.0)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        difference = shifted(x, last) - x
        k, r = (
            x + difference * (part if self.of_previous else 1 - part)
            for part in (getattr(self, name) for name in self.names)
        )
        return torch.sigmoid(self.receptance(r)) * self.value(torch.relu(self.key(k)) ** 2)


class TimeMix4(nn.Module):
    """``att`` of RWKV-4."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        C, rest, depth = sizes.width, 1 - layer / sizes.layers, layer / max(sizes.layers - 1, 1)
        values = ramp(sizes) ** rest
        self.time_decay = nn.Parameter(-5 + 8 * (torch.arange(C) / (C - 1)) ** (0.7 + 1.3 * depth))
        self.time_first = nn.Parameter(math.log(0.3) + 0.5 * ((torch.arange(C) + 1) % 3 - 1))
        self.time_mix_k = share(values)
        self.time_mix_v = share(values + 0.3 * depth)
        self.time_mix_r = share(values**0.5)
        self.key, self.receptance = matrix(C, C, 0.0), matrix(C, C, 0.0)
        self.value, self.output = matrix(C, C, 1.0), matrix(C, C, 0.0)

    def start(self, batch: int) -> Any:
        zero = torch.zeros(batch, len(self.time_decay))
        return zero, zero, zero - 1e30

    def forward(self, x: Tensor, last: Tensor, state: Any, carry: Any) -> tuple[Tensor, Any, Any]:
        before = shifted(x, last)
        k, v, r = (x * part + before * (1 - part) for part in (self.time_mix_k, self.time_mix_v, self.time_mix_r))
        r, k, v = torch.sigmoid(self.receptance(r)), self.key(k), self.value(v)
        with torch.autocast("cpu", enabled=False):
            decay, first = -torch.exp(self.time_decay), self.time_first
            y, state = recurrences.wkv(decay, first, wide(k), wide(v), state)
        return self.output(r * y), state, carry


class TimeMix5(nn.Module):
    """``att`` of RWKV-5.2."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        C, rest, depth = sizes.width, 1 - layer / sizes.layers, layer / max(sizes.layers - 1, 1)
        H, N = C // sizes.head, sizes.head
        values = ramp(sizes) ** rest
        self.heads = H
        self.time_mix_k = share(values)
        self.time_mix_v = share(values + 0.3 * depth)
        self.time_mix_r = share(values**0.5)
        self.time_mix_g = share(values**0.5)
        self.time_decay = nn.Parameter((-6 + 6 * decay_speed(sizes, layer)).view(H, N))
        self.time_faaaa = nn.Parameter(
            (depth * (1 - torch.arange(C) / (C - 1)) + 0.1 * ((torch.arange(C) + 1) % 3 - 1)).view(H, N)
        )
        self.receptance, self.key, self.value = (matrix(C, C, gain) for gain in (0.5, 0.05, 0.5))
        self.gate, self.output = matrix(C, C, 0.05), matrix(C, C, 0.0)
        self.ln_x = nn.GroupNorm(H, C, eps=64e-5)

    def start(self, batch: int) -> Tensor:
        N = self.time_faaaa.shape[1]
        return torch.zeros(batch, self.heads, N, N)

    def forward(self, x: Tensor, last: Tensor, state: Any, carry: Any) -> tuple[Tensor, Any, Any]:
        B, T, C = x.shape
        before = shifted(x, last)
        k, v, r, g = (
            x * part + before * (1 - part)
            for part in (self.time_mix_k, self.time_mix_v, self.time_mix_r, self.time_mix_g)
        )
        r, k, v = (y.view(B, T, self.heads, -1) for y in (self.receptance(r), self.key(k), self.value(v)))
        decay = (-torch.exp(self.time_decay)).expand(B, T, -1, -1)
        y, state = recurrences.linear(r, decay, k, v, self.time_faaaa, state)
        y = self.ln_x(wide(y.reshape(B * T, C))).view(B, T, C)
        return self.output(y * F.silu(self.gate(g))), state, carry


class TimeMix6(nn.Module):
    """``att`` of RWKV-6."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        C, rest, depth = sizes.width, 1 - layer / sizes.layers, layer / max(sizes.layers - 1, 1)
        H, N = C // sizes.head, sizes.head
        values = ramp(sizes) ** rest
        self.heads = H
        self.time_maa_x, self.time_maa_w, self.time_maa_k = share(1 - values), share(1 - values), share(1 - values)
        self.time_maa_v = share(1 - (values + 0.3 * depth))
        self.time_maa_r, self.time_maa_g = share(1 - values**0.5), share(1 - values**0.5)
        rank = sizes.ranks["mix"]
        self.time_maa_w1 = nn.Parameter(torch.zeros(C, 5 * rank))
        self.time_maa_w2 = nn.Parameter(torch.empty(5, rank, C).uniform_(-0.01, 0.01))
        self.time_decay = share(-6 + 6 * decay_speed(sizes, layer))
        self.time_decay_w1, self.time_decay_w2 = factors(C, sizes.ranks["decay"], C)
        self.time_faaaa = nn.Parameter(
            (depth * (1 - torch.arange(C) / (C - 1)) + 0.1 * ((torch.arange(C) + 1) % 3 - 1)).view(H, N)
        )
        self.receptance, self.key, self.value = (matrix(C, C, gain) for gain in (0.5, 0.05, 0.5))
        self.gate, self.output = matrix(C, C, 0.05), matrix(C, C, 0.0)
        self.ln_x = nn.GroupNorm(H, C, eps=64e-5)

    start = TimeMix5.start

    def forward(self, x: Tensor, last: Tensor, state: Any, carry: Any) -> tuple[Tensor, Any, Any]:
        B, T, C = x.shape
        difference = shifted(x, last) - x
        s = torch.tanh((x + difference * self.time_maa_x) @ self.time_maa_w1).view(B, T, 5, -1)
        moved = torch.einsum("btgr,grc->gbtc", s, self.time_maa_w2)
        parts = (self.time_maa_w, self.time_maa_k, self.time_maa_v, self.time_maa_r, self.time_maa_g)
        w, k, v, r, g = (x + difference * (part + m) for part, m in zip(parts, moved, strict=True))
        decay = -torch.exp(wide(self.time_decay + torch.tanh(w @ self.time_decay_w1) @ self.time_decay_w2))
        r, k, v, decay = (y.view(B, T, self.heads, -1) for y in (self.receptance(r), self.key(k), self.value(v), decay))
        y, state = recurrences.linear(r, decay, k, v, self.time_faaaa, state)
        y = self.ln_x(wide(y.reshape(B * T, C))).view(B, T, C)
        return self.output(y * F.silu(self.gate(g))), state, carry


class TimeMix7(nn.Module):
    """``att`` of RWKV-7. The carry is the value of the first layer."""

    def __init__(self, sizes: Sizes, layer: int, first: bool) -> None:
        super().__init__()
        C, rest, depth = sizes.width, 1 - layer / sizes.layers, layer / max(sizes.layers - 1, 1)
        H, N = C // sizes.head, sizes.head
        values, self.heads, ranks = ramp(sizes), H, sizes.ranks
        self.x_r, self.x_w = share(1 - values ** (0.2 * rest)), share(1 - values ** (0.9 * rest))
        self.x_k, self.x_v = share(1 - values ** (0.7 * rest)), share(1 - values ** (0.7 * rest))
        self.x_a, self.x_g = share(1 - values ** (0.9 * rest)), share(1 - values ** (0.2 * rest))
        linear = torch.arange(C) / (C - 1) - 0.5
        zigzag = (torch.arange(C) % N - (N - 1) / 2) / ((N - 1) / 2)
        zigzag = zigzag * zigzag.abs()
        self.w0 = share(-6 + 6 * (torch.arange(C) / (C - 1)) ** (1 + depth**0.3) + 0.5 + 2.5 * zigzag)
        self.w1, self.w2 = factors(C, ranks["w"], C)
        self.a0 = share(-0.19 + 0.3 * zigzag + 0.4 * linear)
        self.a1, self.a2 = factors(C, ranks["a"], C)
        self.g1, self.g2 = factors(C, ranks["g"], C)
        if not first:
            self.v0 = share(0.73 - 0.4 * linear)
            self.v1, self.v2 = factors(C, ranks["v"], C)
        self.k_k, self.k_a = share(0.71 - 0.1 * linear), share(torch.full((C,), 1.02))
        self.r_k = nn.Parameter(torch.full((H, N), -0.04))
        self.receptance, self.key, self.value = (matrix(C, C, gain) for gain in (0.5, 0.05, 0.5))
        self.output = matrix(C, C, 0.0)
        self.ln_x = nn.GroupNorm(H, C, eps=64e-5)

    def start(self, batch: int) -> Tensor:
        N = self.r_k.shape[1]
        return torch.zeros(batch, self.heads, N, N)

    def forward(self, x: Tensor, last: Tensor, state: Any, carry: Any) -> tuple[Tensor, Any, Any]:
        B, T, C = x.shape
        difference = shifted(x, last) - x
        r, w, k, for_v, a, g = (
            x + difference * part for part in (self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g)
        )

        def heads(y: Tensor) -> Tensor:
            return y.view(B, T, self.heads, -1)

        r, k, v = self.receptance(r), self.key(k), self.value(for_v)
        decay = -math.exp(-0.5) * torch.sigmoid(wide(self.w0 + torch.tanh(w @ self.w1) @ self.w2))
        a = torch.sigmoid(self.a0 + a @ self.a1 @ self.a2)
        if hasattr(self, "v0"):
            v = v + (carry - v) * torch.sigmoid(self.v0 + for_v @ self.v1 @ self.v2)
        else:
            carry = v
        g = torch.sigmoid(g @ self.g1) @ self.g2
        kappa = F.normalize(heads(wide(k * self.k_k)), dim=-1)
        k = k * (1 + (a - 1) * self.k_a)
        y, state = recurrences.delta(heads(r), heads(decay), heads(k), heads(v), -kappa, kappa * heads(a), state)
        y = self.ln_x(wide(y.reshape(B * T, C))).view(B, T, C)
        bonus = ((heads(r) * heads(k) * self.r_k).sum(-1, keepdim=True) * heads(v)).view(B, T, C)
        return self.output((y + bonus) * g), state, carry


class ChannelMix7(nn.Module):
    """``ffn`` of RWKV-7."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        self.x_k = share(1 - ramp(sizes) ** ((1 - layer / sizes.layers) ** 4))
        self.key = matrix(sizes.width, sizes.hidden, 1.0)
        self.value = matrix(sizes.hidden, sizes.width, 0.0)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        return self.value(torch.relu(self.key(x + (shifted(x, last) - x) * self.x_k)) ** 2)


TIME_MIX: dict[str, type[nn.Module]] = {
    "rwkv4": TimeMix4,
    "rwkv5.2": TimeMix5,
    "rwkv6": TimeMix6,
    "rwkv7": TimeMix7,
}
"""A new architecture is a mixer with `start` and `forward` as these have, and its name here."""


class Block(nn.Module):
    """``blocks.n``; the first with such a mixer gives its values to those that follow."""

    def __init__(self, architecture: str, sizes: Sizes, layer: int, first: bool) -> None:
        super().__init__()
        C = sizes.width
        if layer == 0:
            self.ln0 = nn.LayerNorm(C)
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        more = (first,) if architecture == "rwkv7" else ()
        self.att = TIME_MIX[architecture](sizes, layer, *more)
        if architecture == "rwkv7":
            self.ffn: nn.Module = ChannelMix7(sizes, layer)
        elif architecture == "rwkv6":
            self.ffn = GatedChannelMix(sizes, layer, ("time_maa_k", "time_maa_r"), of_previous=True)
        else:
            self.ffn = GatedChannelMix(sizes, layer, ("time_mix_k", "time_mix_r"), of_previous=False)

    def forward(self, x: Tensor, state: Any, carry: Any) -> tuple[Tensor, Any, Any]:
        att_last, ffn_last, recurrence = state
        if hasattr(self, "ln0"):
            x = self.ln0(x)
        z = self.ln1(x)
        y, recurrence, carry = self.att(z, att_last, recurrence, carry)
        x = x + y
        m = self.ln2(x)
        x = x + self.ffn(m, ffn_last)
        return x, (z[:, -1], m[:, -1], recurrence), carry


class Network(nn.Module):
    """A language model: logits (B, T, vocabulary) of tokens (B, T)."""

    def __init__(self, architecture: str, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.emb = nn.Embedding(sizes.vocabulary, sizes.width)
        nn.init.uniform_(self.emb.weight, -0.5, 0.5)
        self.blocks = nn.ModuleList(Block(architecture, sizes, layer, layer == 0) for layer in range(sizes.layers))
        self.ln_out = nn.LayerNorm(sizes.width)
        self.head = matrix(sizes.width, sizes.vocabulary, 0.5)

    def start(self, batch: int) -> list[Any]:
        """Return the state before the first token."""
        zero = torch.zeros(batch, self.sizes.width)
        return [(zero, zero, block.att.start(batch)) for block in self.blocks]

    def forward(self, tokens: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        x, carry, left = self.emb(tokens), None, []
        for block, entry in zip(self.blocks, state, strict=True):
            x, entry, carry = block(x, entry, carry)
            left.append(entry)
        return self.head(self.ln_out(x)), left
