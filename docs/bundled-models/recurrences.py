"""The recurrences of RWKV in the parallel forms that training needs, in PyTorch.

Shapes: B sequences, T tokens, H heads, K and V channels of keys and values, L tokens a chunk. Inside a chunk the tokens
see each other through an L x L matrix; from chunk to chunk goes the state S (B, H, K, V). Decays inside a chunk are
measured from its middle, so that no exponential leaves the range of float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

SLOWEST_TO_MATTER = -5.0
"""Log decays below this count as this: exp(-5 t) is nothing after a token or two, and exp(5 * 8) still is a number."""


def _chunks(x: Tensor, length: int) -> Tensor:
    """Return (B, T, H, K) as (B, H, T / length, length, K)."""
    B, T, H, K = x.shape
    return x.view(B, T // length, length, H, K).permute(0, 3, 1, 2, 4)


def _sequence(y: Tensor) -> Tensor:
    """Undo `_chunks`."""
    B, H, n, length, V = y.shape
    return y.permute(0, 2, 3, 1, 4).reshape(B, n * length, H, V)


def linear(r: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, u: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """RWKV-5 and 6: y_t = r_t (S_{t-1} + diag(u) k_t v_t), S_t = diag(w_t) S_{t-1} + k_t v_t."""
    length = 16
    r, g, k, v = (_chunks(x, length) for x in (r, log_decay.clamp(min=SLOWEST_TO_MATTER), k, v))
    through = g.cumsum(3)  # log decay from before the chunk to after token t
    before = through - g
    middle, end = through[..., length // 2 - 1 : length // 2, :], through[..., -1:, :]
    seen = ((r * torch.exp(before - middle)) @ (k * torch.exp(middle - through)).mT).tril(-1)
    y = seen @ v + (r * u[:, None, None] * k).sum(-1, keepdim=True) * v
    added = (k * torch.exp(end - through)).mT @ v
    states = []
    for kept_n, added_n in zip(torch.exp(end).mT.unbind(2), added.unbind(2), strict=True):
        states.append(S)
        S = kept_n * S + added_n
    return _sequence(y + (r * torch.exp(before)) @ torch.stack(states, 2)), S


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """Mamba-2: S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t, y_t = S_t C_t.

    x is (B, T, H, P), dt (B, T, H), A (H,), B and C (B, T, N), S (B, H, P, N). One decay a head, so its powers over
    every distance inside a chunk fit into one L x L matrix, and none of them exceeds one.
    """
    length = 64
    through = _chunks((dt * A)[..., None], length).cumsum(3)  # (B, H, n, L, 1)
    x, B, C = (_chunks(y, length) for y in (x * dt[..., None], B[:, :, None], C[:, :, None]))
    end = through[..., -1:, :]
    powers = torch.exp((through - through.mT).masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf))
    y = (C @ B.mT * powers) @ x
    added = (x * torch.exp(end - through)).mT @ B
    states = []
    for kept_n, added_n in zip(torch.exp(end).unbind(2), added.unbind(2), strict=True):
        states.append(S)
        S = kept_n * S + added_n
    return _sequence(y + torch.exp(through) * (C @ torch.stack(states, 2).mT)), S


def delta(r: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """RWKV-7: S_t = diag(w_t) S_{t-1} + b_t (a_t S_{t-1}) + k_t v_t, y_t = r_t S_t."""
    length = 32
    r, g, k, v, a, b = (_chunks(x, length) for x in (r, log_decay, k, v, a, b))
    through = g.cumsum(3)
    before = through - g
    middle, end = through[..., length // 2 - 1 : length // 2, :], through[..., -1:, :]
    later, earlier = torch.exp(before - middle), torch.exp(middle - through)
    a_late, r_late = a * later, r * torch.exp(through - middle)
    b_early, k_early = b * earlier, k * earlier
    A = (a_late @ b_early.mT).tril(-1)
    inverse = _inverse(A.float() if A.dtype == torch.bfloat16 else A)
    recalled = inverse @ ((a_late @ k_early.mT).tril(-1) @ v)  # a_t S_{t-1} without what came before the chunk
    reading = inverse @ (a * torch.exp(before))
    to_end = torch.exp(end - through)
    b_end, k_end = (b * to_end).mT, (k * to_end).mT
    parts = (x.unbind(2) for x in (recalled, reading, torch.exp(end).mT, b_end, k_end @ v))
    states, recalls = [], []
    for recalled_n, reading_n, kept_n, b_n, added_n in zip(*parts, strict=True):
        states.append(S)
        recalls.append(recalled_n + reading_n @ S)
        S = kept_n * S + b_n @ recalls[-1] + added_n
    U, S0 = torch.stack(recalls, 2), torch.stack(states, 2)
    y = (r * torch.exp(through)) @ S0 + (r_late @ b_early.mT).tril() @ U + (r_late @ k_early.mT).tril() @ v
    return _sequence(y), S


def _inverse(A: Tensor) -> Tensor:
    """Return (1 - A)^-1 of strictly lower triangles, by substitution: the powers of A would cancel digits away."""
    with torch.autocast("cpu", enabled=False):
        eye = torch.eye(A.shape[-1])
        return torch.linalg.solve_triangular(eye - A, eye.expand_as(A), upper=False, unitriangular=True)


def wkv(
    log_decay: Tensor, u: Tensor, k: Tensor, v: Tensor, state: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """RWKV-4: the mean of the values, weighted by exp(k_i + (t - 1 - i) w) and the present one by exp(k_t + u).

    k and v are (B, T, C). The state is numerator and denominator (B, C), divided by exp(top) (B, C). Both sums go
    through a chunk together, by one L x L matrix of powers of the decay for each channel.
    """
    length, (B, T, C) = 32, k.shape
    numerator, denominator, top = state
    peak = torch.maximum(k.amax(1), top).detach()
    scale, weight = torch.exp(top - peak), torch.exp(k - peak[:, None])
    added = torch.cat([weight * v, weight]).view(2 * B, T // length, length, C)
    S = torch.cat([numerator * scale, denominator * scale])
    steps = torch.arange(length)
    distance = steps[:, None] - 1 - steps
    powers = torch.exp(log_decay[:, None, None] * distance.clamp(min=0)) * (distance >= 0)  # (C, L, L)
    past = (powers @ added.permute(3, 2, 0, 1).flatten(2)).view(C, length, 2 * B, -1).permute(2, 3, 1, 0)
    to_token, decay = torch.exp(log_decay * steps[:, None]), torch.exp(log_decay)
    sums = []
    for past_n, added_n in zip(past.unbind(1), added[:, :, -1].unbind(1), strict=True):
        sums.append(past_n + S[:, None] * to_token)
        S = sums[-1][:, -1] * decay + added_n
    numerators, denominators = (torch.stack(sums, 1) + torch.exp(u) * added).view(2 * B, T, C).chunk(2)
    return numerators / denominators, (*S.chunk(2), peak)
