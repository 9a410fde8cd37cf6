"""Qwen3-Next in float64 from the papers' equations: one sequence, one token after another, no code of the package."""

from typing import Any

import numpy as np

Array = np.ndarray
Tensors = dict[str, Array]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def rms(x: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def unit(x: Array) -> Array:
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)


def attention(z: Array, w: Tensors, fields: dict[str, Any], eps: float) -> Array:
    """Return the attention of z (T, C): gated, q and k normalised, the first channels of a head rotated."""
    D, H, G, T = fields["head_dim"], fields["num_attention_heads"], fields["num_key_value_heads"], len(z)
    rope = fields.get("rope_parameters", fields)
    half = int(D * rope["partial_rotary_factor"]) // 2

    def mapped(name: str) -> Array:
        return z @ w[f"self_attn.{name}_proj.weight"].T + w.get(f"self_attn.{name}_proj.bias", 0)

    def rotated(x: Array, position: int) -> Array:
        angle = position * rope["rope_theta"] ** (-np.arange(half) / half)
        a, b, rest = x[:half], x[half : 2 * half], x[2 * half :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle), rest])

    both, v = mapped("q").reshape(T, H, 2, D), mapped("v").reshape(T, G, D)
    q = rms(both[:, :, 0], eps) * (1 + w["self_attn.q_norm.weight"])
    k = rms(mapped("k").reshape(T, G, D), eps) * (1 + w["self_attn.k_norm.weight"])
    y = np.zeros((T, H, D))
    for t in range(T):
        for h in range(H):
            g, query = h * G // H, rotated(q[t, h], t)
            scores = np.exp([query @ rotated(k[j, g], j) / np.sqrt(D) for j in range(t + 1)])
            y[t, h] = scores @ v[: t + 1, g] / scores.sum() * sigmoid(both[t, h, 1])
    return y.reshape(T, -1) @ w["self_attn.o_proj.weight"].T + w.get("self_attn.o_proj.bias", 0)


def delta_net(z: Array, w: Tensors, fields: dict[str, Any], eps: float) -> Array:
    """Return the gated delta net of z (T, C)."""
    I, U = fields["linear_num_key_heads"], fields["linear_num_value_heads"]
    K, E, T, each = fields["linear_key_head_dim"], fields["linear_value_head_dim"], len(z), U // I
    qkvz = (z @ w["linear_attn.in_proj_qkvz.weight"].T).reshape(T, I, -1)
    ba = (z @ w["linear_attn.in_proj_ba.weight"].T).reshape(T, I, 2, each)
    taps, width = w["linear_attn.conv1d.weight"], fields["linear_conv_kernel_dim"]
    x = np.concatenate([part.reshape(T, -1) for part in np.split(qkvz[:, :, : 2 * K + each * E], [K, 2 * K], 2)], 1)
    gate, beta = qkvz[:, :, 2 * K + each * E :].reshape(T, U, E), sigmoid(ba[:, :, 0].reshape(T, U))
    step = np.log1p(np.exp(ba[:, :, 1].reshape(T, U) + w["linear_attn.dt_bias"]))
    alpha = np.exp(-np.exp(w["linear_attn.A_log"]) * step)
    S, y = np.zeros((U, E, K)), np.zeros((T, U, E))
    for t in range(T):
        c = silu(sum(taps[:, 0, width - 1 - j] * x[t - j] for j in range(min(width, t + 1))))
        q, k, v = unit(c[: I * K].reshape(I, K)), unit(c[I * K : 2 * I * K].reshape(I, K)), c[2 * I * K :].reshape(U, E)
        for h in range(U):  # value axis first, as in equation 10
            key = k[h // each]
            S[h] = S[h] @ (alpha[t, h] * (np.eye(K) - beta[t, h] * np.outer(key, key)))
            S[h] += beta[t, h] * np.outer(v[h], key)
            y[t, h] = S[h] @ q[h // each] / np.sqrt(K)
    y = rms(y, eps) * w["linear_attn.norm.weight"] * silu(gate)
    return y.reshape(T, -1) @ w["linear_attn.out_proj.weight"].T


def network(z: Array, w: Tensors, place: str) -> Array:
    inner = silu(z @ w[place + ".gate_proj.weight"].T) * (z @ w[place + ".up_proj.weight"].T)
    return inner @ w[place + ".down_proj.weight"].T


def mixture(z: Array, w: Tensors, fields: dict[str, Any]) -> Array:
    """Return the mixture of experts for one token z (C,)."""
    shares = np.exp(w["mlp.gate.weight"] @ z)
    shares /= shares.sum()
    chosen = sorted(range(len(shares)), key=lambda n: -shares[n])[: fields["num_experts_per_tok"]]
    total = shares[chosen].sum() if fields["norm_topk_prob"] else 1.0
    y = sigmoid(w["mlp.shared_expert_gate.weight"] @ z) * network(z, w, "mlp.shared_expert")
    return y + sum(shares[n] / total * network(z, w, f"mlp.experts.{n}") for n in chosen)


def qwen3_next(tokens: list[int], tensors: Tensors, fields: dict[str, Any]) -> Array:
    """Return the logits after every token."""
    wide = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    x, eps = wide["model.embed_tokens.weight"][tokens], fields["rms_norm_eps"]
    for n in range(fields["num_hidden_layers"]):
        place = f"model.layers.{n}."
        w = {name.removeprefix(place): array for name, array in wide.items() if name.startswith(place)}
        mixer = attention if "self_attn.q_proj.weight" in w else delta_net
        x = x + mixer(rms(x, eps) * (1 + w["input_layernorm.weight"]), w, fields, eps)
        z = rms(x, eps) * (1 + w["post_attention_layernorm.weight"])
        if "mlp.gate.weight" in w:
            x = x + np.array([mixture(token, w, fields) for token in z])
        else:
            x = x + network(z, w, "mlp")
    head = wide.get("lm_head.weight", wide["model.embed_tokens.weight"])
    return rms(x, eps) * (1 + wide["model.norm.weight"]) @ head.T
