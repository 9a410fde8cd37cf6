"""A Transformer in float64 from the papers' equations: one sequence, one token after another, no code of the package.

`w` are the tensors by name, float64; `fields` those of a configuration.
"""

import math
from typing import Any

import numpy as np

Array = np.ndarray


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def rate(pair: int, size: int, theta: float, scaling: dict[str, Any]) -> float:
    """Return the angle per token of a pair of channels."""
    plain = theta ** (-2 * pair / size)
    kind, factor = scaling.get("rope_type", "default"), scaling.get("factor")
    if kind == "default":
        return plain
    if kind == "linear":
        return plain / factor
    length = scaling["original_max_position_embeddings"]
    wave = 2 * math.pi / plain
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        if wave < length / high:
            return plain
        if wave > length / low:
            return plain / factor
        smooth = (length / wave - low) / (high - low)
        return (1 - smooth) * plain / factor + smooth * plain
    assert kind == "yarn"
    ends = [
        size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (scaling.get("beta_fast", 32), scaling.get("beta_slow", 1))
    ]
    low, high = max(math.floor(ends[0]), 0), min(math.ceil(ends[1]), size - 1)
    ramp = min(max((pair - low) / (high - low), 0), 1)
    return ramp * plain / factor + (1 - ramp) * plain


def turned(x: Array, position: int, size: int, fields: dict[str, Any]) -> Array:
    """Turn the first `size` channels of every head of x (H, D), pair i being i and i + size / 2."""
    half, scaling = size // 2, fields["rope_scaling"] or {}
    numbers = x[:, :half] + 1j * x[:, half:size]
    for pair in range(half):
        numbers[:, pair] *= np.exp(1j * position * rate(pair, size, fields["rope_theta"], scaling))
    if scaling.get("rope_type") == "yarn":
        numbers *= 0.1 * math.log(scaling["factor"]) + 1
    return np.concatenate([numbers.real, numbers.imag, x[:, size:]], 1)


def logits(w: dict[str, Array], fields: dict[str, Any], tokens: Array, windows: list[int | None]) -> Array:
    """Return the logits after every token."""
    eps, heads, groups = fields["rms_norm_eps"], fields["num_attention_heads"], fields["num_key_value_heads"]
    size, rows = int(fields["head_dim"] * fields.get("partial_rotary_factor", 1.0)), []
    past: list[list[tuple[Array, Array]]] = [[] for _ in windows]

    def mapped(x: Array, name: str) -> Array:
        y = w[f"{name}.weight"] @ x
        return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

    for position, token in enumerate(tokens):
        x = w["model.embed_tokens.weight"][token]
        for n, window in enumerate(windows):
            here = f"model.layers.{n}."
            z = rms_norm(x, w[here + "input_layernorm.weight"], eps)
            q, k, v = (
                mapped(z, f"{here}self_attn.{name}_proj").reshape(count, -1)
                for name, count in (("q", heads), ("k", groups), ("v", groups))
            )
            if here + "self_attn.q_norm.weight" in w:
                q, k = (rms_norm(part, w[f"{here}self_attn.{c}_norm.weight"], eps) for c, part in (("q", q), ("k", k)))
            past[n].append((turned(k, position, size, fields), v))
            q, seen = turned(q, position, size, fields), past[n][-(window or len(tokens)) :]
            y = []
            for h in range(heads):
                weights = np.exp([q[h] @ key[h * groups // heads] / math.sqrt(q.shape[1]) for key, _ in seen])
                values = np.array([value[h * groups // heads] for _, value in seen])
                y.append(weights / weights.sum() @ values)
            x = x + mapped(np.concatenate(y), here + "self_attn.o_proj")
            z = rms_norm(x, w[here + "post_attention_layernorm.weight"], eps)
            gate = mapped(z, here + "mlp.gate_proj")
            x = x + mapped(gate / (1 + np.exp(-gate)) * mapped(z, here + "mlp.up_proj"), here + "mlp.down_proj")
        x = rms_norm(x, w["model.norm.weight"], eps)
        rows.append(w.get("lm_head.weight", w["model.embed_tokens.weight"]) @ x)
    return np.array(rows)
