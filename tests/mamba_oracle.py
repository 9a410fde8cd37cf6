"""Mamba-1 and Mamba-2 in float64, written from the papers: one sequence, one token after the other.

Letters as in the papers: D width, E inner width, N states, H heads of width P, G groups, W taps. `w` holds the tensors
of a file by name, `f` the fields of its configuration.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray


def logits(f: dict[str, Any], w: dict[str, Array], tokens: list[int]) -> Array:
    """Return what follows every token, (T, V)."""
    w = {name: array.astype(np.float64) for name, array in w.items()}
    mixer = mamba2 if f["model_type"] == "mamba2" else mamba1
    eps = f.get("layer_norm_epsilon", 1e-5)
    layers = range(f["num_hidden_layers"])
    past: list[dict[str, Any]] = [{} for _ in layers]
    rows = []
    for token in tokens:
        x = w["backbone.embeddings.weight"][token].copy()
        for n in layers:
            at = f"backbone.layers.{n}."
            inside = {name[len(at + "mixer.") :]: a for name, a in w.items() if name.startswith(at + "mixer.")}
            x += mixer(f, inside, rms(x, eps) * w[at + "norm.weight"], past[n])
        head = w["backbone.embeddings.weight"] if f.get("tie_word_embeddings") else w["lm_head.weight"]
        rows.append(head @ (rms(x, eps) * w["backbone.norm_f.weight"]))
    return np.array(rows)


def mamba1(f: dict[str, Any], w: dict[str, Array], u: Array, past: dict[str, Any]) -> Array:
    """Return the mixer's answer to one token; `past` is what it keeps."""
    E, N = w["A_log"].shape
    x, z = np.split(w["in_proj.weight"] @ u + w.get("in_proj.bias", 0), 2)
    x = silu(taps(w, x, past))
    R = w["dt_proj.weight"].shape[1]
    low, B, C = np.split(w["x_proj.weight"] @ x, [R, R + N])
    if f["model_type"] == "falcon_mamba":
        low, B, C = (rms(part, f["mixer_rms_eps"]) for part in (low, B, C))
    delta = softplus(w["dt_proj.weight"] @ low + w["dt_proj.bias"])
    A = -np.exp(w["A_log"])
    h = past.get("h", np.zeros((E, N)))
    past["h"] = h = np.exp(delta[:, None] * A) * h + (delta * x)[:, None] * B
    y = h @ C + w["D"] * x
    return w["out_proj.weight"] @ (y * silu(z)) + w.get("out_proj.bias", 0)


def mamba2(f: dict[str, Any], w: dict[str, Array], u: Array, past: dict[str, Any]) -> Array:
    """Return the mixer's answer to one token; `past` is what it keeps."""
    H, P, G, N = f["num_heads"], f["head_dim"], f["n_groups"], f["state_size"]
    E = H * P
    z, xBC, dt = np.split(w["in_proj.weight"] @ u + w.get("in_proj.bias", 0), [E, 2 * E + 2 * G * N])
    x, B, C = np.split(silu(taps(w, xBC, past)), [E, E + G * N])
    low, high = f.get("time_step_limit", (0, math.inf))
    high = math.inf if isinstance(high, dict) else high
    h, y = past.setdefault("h", np.zeros((H, P, N))), np.empty((H, P))
    for head in range(H):
        delta = min(max(float(softplus(dt[head] + w["dt_bias"][head])), low), high)
        group = slice(head // (H // G) * N, (head // (H // G) + 1) * N)
        inputs = x[head * P : (head + 1) * P]
        h[head] = math.exp(-delta * math.exp(w["A_log"][head])) * h[head] + delta * np.outer(inputs, B[group])
        y[head] = h[head] @ C[group] + w["D"][head] * inputs
    out = y.ravel() * silu(z)
    out = np.concatenate([rms(part, f.get("layer_norm_epsilon", 1e-5)) for part in np.split(out, G)]) * w["norm.weight"]
    return w["out_proj.weight"] @ out + w.get("out_proj.bias", 0)


def taps(w: dict[str, Array], x: Array, past: dict[str, Any]) -> Array:
    """Return the causal convolution of every channel by itself."""
    kernel = w["conv1d.weight"][:, 0]
    seen = past.setdefault("seen", [np.zeros_like(x)] * kernel.shape[1])
    seen.append(x)
    return sum(kernel[:, -1 - lag] * seen[-1 - lag] for lag in range(kernel.shape[1])) + w.get("conv1d.bias", 0)


def rms(x: Array, eps: float) -> Array:
    """Divide by the root of the mean square."""
    return x / np.sqrt(np.mean(x**2) + eps)


def silu(x: Array) -> Array:
    """Return x / (1 + exp(-x))."""
    return x / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x))."""
    return np.logaddexp(0, x)
