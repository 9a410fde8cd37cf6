"""Mamba-1 and Mamba-2 as PyTorch modules whose tensors have the names of the original checkpoints.

Shapes: B sequences, T tokens, C channels, E = 2 C inner channels, N states a channel, H heads of P channels. The state
is the last three inputs of the convolution (B, 3, .) and that of the recurrence. Initial values follow the papers and
state-spaces/mamba, but for the last matrix of a mixer, which begins at zero as everywhere here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from attention import RMSNorm
from networks import Sizes, matrix, wide
from recurrences import ssd
from selective_scan import selective
from torch import Tensor, nn

TAPS = 4
UNIFORM = 1 / math.sqrt(3)
"""What `matrix` calls the spread of PyTorch's own initial values."""


def step_bias(count: int) -> Tensor:
    """Return biases whose softplus is spread from 0.001 to 0.1, evenly in the logarithm."""
    dt = torch.exp(torch.rand(count) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
    return dt + torch.log(-torch.expm1(-dt))


class Convolution(nn.Module):
    """``conv1d``: every channel for itself, over the present input and the three before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, TAPS).uniform_(-0.5, 0.5))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-0.5, 0.5))

    def forward(self, x: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        T, x = x.shape[1], torch.cat([last, wide(x)], 1)
        y = sum((x[:, tap : tap + T] * self.weight[:, 0, tap] for tap in range(TAPS)), self.bias)
        return F.silu(y), x[:, T:]


class Mixer1(nn.Module):
    """``mixer`` of Mamba-1."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C, E, N, self.rank = sizes.width, sizes.hidden, sizes.state, sizes.ranks["dt"]
        self.in_proj, self.conv1d = matrix(C, 2 * E, UNIFORM), Convolution(E)
        self.x_proj = matrix(E, self.rank + 2 * N, UNIFORM)
        self.dt_proj = nn.Linear(self.rank, E)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        self.dt_proj.bias = nn.Parameter(step_bias(E))
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, N + 1)).repeat(E, 1))
        self.D = nn.Parameter(torch.ones(E))
        self.out_proj = matrix(E, C, 0.0)

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        E, N = self.A_log.shape
        return torch.zeros(batch, TAPS - 1, E), torch.zeros(batch, N, E)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        last, h = state
        x, z = self.in_proj(x).chunk(2, -1)
        x, last = self.conv1d(x, last)
        N = self.A_log.shape[1]
        dt, B, C = self.x_proj(x).split([self.rank, N, N], -1)
        dt = F.softplus(wide(F.linear(dt, self.dt_proj.weight)) + self.dt_proj.bias)
        y, h = selective(x, dt, -torch.exp(self.A_log.T), wide(B), wide(C), h)
        return self.out_proj((y + self.D * x) * F.silu(wide(z))), (last, h)


class Mixer2(nn.Module):
    """``mixer`` of Mamba-2, with one group of B and C."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        C, E, N = sizes.width, sizes.hidden, sizes.state
        H = E // sizes.head
        self.sizes = sizes
        self.in_proj, self.conv1d = matrix(C, 2 * E + 2 * N + H, UNIFORM), Convolution(E + 2 * N)
        self.dt_bias = nn.Parameter(step_bias(H))
        self.A_log = nn.Parameter(torch.log(torch.empty(H).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(H))
        self.norm, self.out_proj = RMSNorm(E), matrix(E, C, 0.0)

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        E, N, P = self.sizes.hidden, self.sizes.state, self.sizes.head
        return torch.zeros(batch, TAPS - 1, E + 2 * N), torch.zeros(batch, E // P, P, N)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        last, S = state
        E, N, H = self.sizes.hidden, self.sizes.state, len(self.D)
        z, x, dt = self.in_proj(x).split([E, E + 2 * N, H], -1)
        x, last = self.conv1d(x, last)
        x, B, C = x.split([E, N, N], -1)
        x = x.unflatten(-1, (H, -1))
        dt = F.softplus(wide(dt) + self.dt_bias)
        y, S = ssd(x, dt, -torch.exp(self.A_log), B, C, S)
        y = (y + self.D[:, None] * x).flatten(2)
        return self.out_proj(self.norm(y * F.silu(wide(z)))), (last, S)


class MambaBlock(nn.Module):
    """``backbone.layers.n``."""

    def __init__(self, architecture: str, sizes: Sizes) -> None:
        super().__init__()
        self.norm = RMSNorm(sizes.width)
        self.mixer = Mixer1(sizes) if architecture == "mamba1" else Mixer2(sizes)

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        return self.mixer.start(batch)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.mixer(self.norm(x), state)
        return x + y, state
