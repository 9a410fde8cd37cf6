"""A hybrid in float64 from the papers' equations: one sequence, one token after another, no code of the package.

Every block takes the residual stream x (T, C) and returns it. `w` are the block's tensors by name, float64.
"""

from typing import Any

import numpy as np

Array = np.ndarray
Tensors = dict[str, Array]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))


def layer_norm(x: Array, w: Tensors, name: str) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w[name + ".weight"] + w[name + ".bias"]


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def before(x: Array) -> Array:
    """Return the token before each: zeros before the first."""
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


def rotated(x: Array, position: int, theta: float) -> Array:
    """Turn the pairs (i, i + D/2) of x (H, D)."""
    half = x.shape[1] // 2
    angle = position * theta ** (-np.arange(half) / half)
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], 1)


def attention(x: Array, w: Tensors, fields: dict[str, Any], carry: Any) -> tuple[Array, Any]:
    heads, groups = fields["num_attention_heads"], fields["num_key_value_heads"]
    eps, window = fields["rms_norm_eps"], fields["sliding_window"] or len(x)
    z = rms_norm(x, w["input_layernorm.weight"], eps)
    q, k, v = (
        (z @ w[f"self_attn.{name}_proj.weight"].T).reshape(len(x), n, -1)
        for name, n in (("q", heads), ("k", groups), ("v", groups))
    )
    y = np.zeros_like(q)
    for t in range(len(x)):
        seen = range(max(0, t - window + 1), t + 1)
        query = rotated(q[t], t, fields["rope_theta"])
        keys = np.array([rotated(k[j], j, fields["rope_theta"]) for j in seen])
        for h in range(heads):
            g = h * groups // heads
            scores = np.exp(keys[:, g] @ query[h] / np.sqrt(q.shape[2]))
            y[t, h] = scores @ v[seen, g] / scores.sum()
    x = x + y.reshape(len(x), -1) @ w["self_attn.o_proj.weight"].T
    z = rms_norm(x, w["post_attention_layernorm.weight"], eps)
    inner = silu(z @ w["mlp.gate_proj.weight"].T) * (z @ w["mlp.up_proj.weight"].T)
    return x + inner @ w["mlp.down_proj.weight"].T, carry


def gated_channel_mix(x: Array, w: Tensors, share_k: Array, share_r: Array) -> Array:
    """Return x plus the channel mix of RWKV-4 to 6; shares are those of the current token."""
    z = layer_norm(x, w, "ln2")
    k, r = (z * share + before(z) * (1 - share) for share in (share_k, share_r))
    hidden = np.maximum(k @ w["ffn.key.weight"].T, 0) ** 2
    return x + sigmoid(r @ w["ffn.receptance.weight"].T) * (hidden @ w["ffn.value.weight"].T)


def group_norm(y: Array, w: Tensors, eps: float) -> Array:
    """Normalise each head of y (T, H, N)."""
    y = y - y.mean(-1, keepdims=True)
    y = (y / np.sqrt((y**2).mean(-1, keepdims=True) + eps)).reshape(len(y), -1)
    return y * w["att.ln_x.weight"] + w["att.ln_x.bias"]


def rwkv4(x: Array, w: Tensors, fields: dict[str, Any], carry: Any) -> tuple[Array, Any]:
    z = layer_norm(x, w, "ln1")
    shares = {name: w[f"att.time_mix_{name}"].ravel() for name in "kvr"}
    k, v, r = (
        (z * shares[name] + before(z) * (1 - shares[name])) @ w[f"att.{matrix}.weight"].T
        for name, matrix in (("k", "key"), ("v", "value"), ("r", "receptance"))
    )
    rate, y = np.exp(w["att.time_decay"]), np.zeros_like(v)
    for t in range(len(x)):
        shares_of = [np.exp(-(t - 1 - j) * rate + k[j]) for j in range(t)] + [np.exp(w["att.time_first"] + k[t])]
        y[t] = sum(share * value for share, value in zip(shares_of, v, strict=False)) / sum(shares_of)
    x = x + (sigmoid(r) * y) @ w["att.output.weight"].T
    return gated_channel_mix(x, w, w["ffn.time_mix_k"].ravel(), w["ffn.time_mix_r"].ravel()), carry


def linear(r: Array, decay: Array, k: Array, v: Array, bonus: Array) -> Array:
    """Return y (T, H, N) of a matrix state with a decay (T, H, N) and a bonus (H, N) for the current token."""
    S, y = np.zeros((*r.shape[1:], r.shape[2])), np.zeros_like(v)
    for t in range(len(r)):
        new = k[t, :, :, None] * v[t, :, None]
        y[t] = np.einsum("hk,hkv->hv", r[t], S + bonus[:, :, None] * new)
        S = decay[t, :, :, None] * S + new
    return y


def rwkv5(x: Array, w: Tensors, fields: dict[str, Any], carry: Any) -> tuple[Array, Any]:
    z, bonus = layer_norm(x, w, "ln1"), w["att.time_faaaa"]
    mixed = {}
    for name, matrix in (("r", "receptance"), ("k", "key"), ("v", "value"), ("g", "gate")):
        share = w[f"att.time_mix_{name}"].ravel()
        mixed[name] = (z * share + before(z) * (1 - share)) @ w[f"att.{matrix}.weight"].T
    r, k, v = (mixed[name].reshape(len(x), *bonus.shape) for name in "rkv")
    decay = np.broadcast_to(np.exp(-np.exp(w["att.time_decay"])), r.shape)
    y = group_norm(linear(r, decay, k, v, bonus), w, fields.get("group_norm_eps", 64e-5))
    x = x + (y * silu(mixed["g"])) @ w["att.output.weight"].T
    return gated_channel_mix(x, w, w["ffn.time_mix_k"].ravel(), w["ffn.time_mix_r"].ravel()), carry


def rwkv6(x: Array, w: Tensors, fields: dict[str, Any], carry: Any) -> tuple[Array, Any]:
    z, bonus = layer_norm(x, w, "ln1"), w["att.time_faaaa"]
    d = before(z) - z
    low = np.tanh((z + d * w["att.time_maa_x"].ravel()) @ w["att.time_maa_w1"]).reshape(len(x), 5, -1)
    mixed = {}
    for n, name in enumerate("wkvrg"):
        mixed[name] = z + d * (w[f"att.time_maa_{name}"].ravel() + low[:, n] @ w["att.time_maa_w2"][n])
    slow = w["att.time_decay"].ravel() + np.tanh(mixed["w"] @ w["att.time_decay_w1"]) @ w["att.time_decay_w2"]
    heads = len(x), *bonus.shape
    r, k, v = (
        (mixed[name] @ w[f"att.{matrix}.weight"].T).reshape(heads)
        for name, matrix in (("r", "receptance"), ("k", "key"), ("v", "value"))
    )
    y = group_norm(linear(r, np.exp(-np.exp(slow)).reshape(heads), k, v, bonus), w, 64e-5)
    x = x + (y * silu(mixed["g"] @ w["att.gate.weight"].T)) @ w["att.output.weight"].T
    return gated_channel_mix(x, w, 1 - w["ffn.time_maa_k"].ravel(), 1 - w["ffn.time_maa_r"].ravel()), carry


def rwkv7(x: Array, w: Tensors, fields: dict[str, Any], carry: Any) -> tuple[Array, Any]:
    z, shape = layer_norm(x, w, "ln1"), w["att.r_k"].shape
    d, heads = before(z) - z, (len(x), *shape)
    r, c, k, for_v, a, g = (z + d * w[f"att.x_{name}"].ravel() for name in "rwkvag")
    r, k, v = r @ w["att.receptance.weight"].T, k @ w["att.key.weight"].T, for_v @ w["att.value.weight"].T
    decay = np.exp(-np.exp(-0.5) * sigmoid(w["att.w0"].ravel() + np.tanh(c @ w["att.w1"]) @ w["att.w2"]))
    a = sigmoid(w["att.a0"].ravel() + a @ w["att.a1"] @ w["att.a2"])
    if carry is None:
        carry = v
    else:
        v = v + (carry - v) * sigmoid(w["att.v0"].ravel() + for_v @ w["att.v1"] @ w["att.v2"])
    g = sigmoid(g @ w["att.g1"]) @ w["att.g2"]
    kappa = (k * w["att.k_k"].ravel()).reshape(heads)
    kappa = kappa / np.sqrt((kappa**2).sum(-1, keepdims=True))
    k = (k * (1 + (a - 1) * w["att.k_a"].ravel())).reshape(heads)
    r, v, a, decay = (part.reshape(heads) for part in (r, v, a, decay))
    S, y = np.zeros((shape[0], shape[1], shape[1])), np.zeros(heads)
    for t in range(len(x)):
        for h in range(shape[0]):  # value axis first, as in the paper
            change = np.diag(decay[t, h]) - np.outer(kappa[t, h], a[t, h] * kappa[t, h])
            S[h] = S[h] @ change + np.outer(v[t, h], k[t, h])
            y[t, h] = S[h] @ r[t, h]
    bonus = (r * k * w["att.r_k"]).sum(-1, keepdims=True) * v
    y = group_norm(y, w, fields.get("group_norm_eps", 64e-5)) + bonus.reshape(len(x), -1)
    x = x + (y * g) @ w["att.output.weight"].T
    z = layer_norm(x, w, "ln2")
    hidden = np.maximum((z + (before(z) - z) * w["ffn.x_k"].ravel()) @ w["ffn.key.weight"].T, 0) ** 2
    return x + hidden @ w["ffn.value.weight"].T, carry


def convolved(x: Array, weight: Array, bias: Array) -> Array:
    """Return the SiLU of a causal convolution of every channel of x (T, E); weight is (E, 1, W)."""
    taps, y = weight.shape[2], np.zeros_like(x)
    for t in range(len(x)):
        y[t] = bias + sum(weight[:, 0, taps - 1 - j] * x[t - j] for j in range(min(taps, t + 1)))
    return silu(y)


def mamba1(x: Array, w: Tensors, fields: dict[str, Any], carry: Any) -> tuple[Array, Any]:
    N, R = fields["state_size"], fields["time_step_rank"]
    z = rms_norm(x, w["norm.weight"], fields["layer_norm_epsilon"])
    u, gate = np.split(z @ w["mixer.in_proj.weight"].T, 2, 1)
    u = convolved(u, w["mixer.conv1d.weight"], w["mixer.conv1d.bias"])
    dt, B, C = np.split(u @ w["mixer.x_proj.weight"].T, [R, R + N], 1)
    dt = softplus(dt @ w["mixer.dt_proj.weight"].T + w["mixer.dt_proj.bias"])
    A, h, y = -np.exp(w["mixer.A_log"]), np.zeros_like(w["mixer.A_log"]), np.zeros_like(u)
    for t in range(len(x)):
        h = np.exp(dt[t, :, None] * A) * h + dt[t, :, None] * B[t] * u[t, :, None]
        y[t] = h @ C[t] + w["mixer.D"] * u[t]
    return x + (y * silu(gate)) @ w["mixer.out_proj.weight"].T, carry


def mamba2(x: Array, w: Tensors, fields: dict[str, Any], carry: Any) -> tuple[Array, Any]:
    H, P, N = fields["num_heads"], fields["head_dim"], fields["state_size"]
    z = rms_norm(x, w["norm.weight"], fields["layer_norm_epsilon"])
    gate, u, dt = np.split(z @ w["mixer.in_proj.weight"].T, [H * P, 2 * H * P + 2 * N], 1)
    u, B, C = np.split(convolved(u, w["mixer.conv1d.weight"], w["mixer.conv1d.bias"]), [H * P, H * P + N], 1)
    u, dt, A = u.reshape(len(x), H, P), softplus(dt + w["mixer.dt_bias"]), -np.exp(w["mixer.A_log"])
    S, y = np.zeros((H, P, N)), np.zeros_like(u)
    for t in range(len(x)):
        S = np.exp(dt[t] * A)[:, None, None] * S + dt[t, :, None, None] * u[t, :, :, None] * B[t]
        y[t] = S @ C[t] + w["mixer.D"][:, None] * u[t]
    y = rms_norm(y.reshape(len(x), -1) * silu(gate), w["mixer.norm.weight"], fields["layer_norm_epsilon"])
    return x + y @ w["mixer.out_proj.weight"].T, carry


BLOCKS = {
    "a": attention,
    "4": rwkv4,
    "5": rwkv5,
    "6": rwkv6,
    "7": rwkv7,
    "r": rwkv7,
    "m": mamba1,
    "s": mamba2,
}


def hybrid(tokens: list[int], tensors: Tensors, fields: dict[str, Any]) -> Array:
    """Return the logits after every token."""
    wide = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    x, carry = wide["emb.weight"][tokens], None
    for n, letter in enumerate(fields["pattern"]):
        part = "attention" if letter == "a" else BLOCKS[letter].__name__
        place = f"blocks.{n}.{part}."
        inside = {name.removeprefix(place): array for name, array in wide.items() if name.startswith(place)}
        x, carry = BLOCKS[letter](x, inside, fields[part], carry)
    return layer_norm(x, wide, "ln_out") @ wide["head.weight"].T
