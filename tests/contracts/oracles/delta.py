"""What the delta-rule mechanisms mean: one transition matrix a step, as the papers write them, in float64."""

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def lengthened(x: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    x = np.float64(x)
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6) if options.get("qk_l2norm", True) else x


def walk(x: Arrays, decay: np.ndarray, state: Any, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """k, v, beta have an axis of steps after time; decay (T, H, K) holds factors."""
    q, k = lengthened(x["q"], options), lengthened(x["k"], options)
    v, beta = np.float64(x["v"]), np.float64(x["beta"])
    (T, R, H, V), K = v.shape, q.shape[-1]
    heads = np.repeat(np.arange(q.shape[1]), H // q.shape[1])
    scale = options.get("scale") or K**-0.5
    S = np.zeros((H, K, V)) if state is None else np.array(state, np.float64)
    y = np.zeros((T, H, V))
    for t in range(T):
        for h in range(H):
            S[h] = np.diag(decay[t, h]) @ S[h]
            for r in range(R):
                key = k[t, r, heads[h]][:, None]
                erase = np.eye(K) - beta[t, r, h] * (key @ key.T)
                S[h] = erase @ S[h] + beta[t, r, h] * (key @ v[t, r, h][None])
            y[t, h] = scale * (S[h].T @ q[t, heads[h]])
    return y, S


def one_step(x: Arrays) -> Arrays:
    return {"q": x["q"]} | {name: x[name][:, None] for name in ("k", "v", "beta")}


def factors(log_decay: Any, v: np.ndarray, K: int) -> np.ndarray:
    """Return decays (T, H, K) from logarithms (T, H), (T, H, K) or None."""
    shape = (v.shape[0], v.shape[-2])
    logs = np.zeros(shape) if log_decay is None else np.float64(log_decay)
    return np.exp(np.broadcast_to(logs if logs.ndim == 3 else logs[..., None], (*shape, K)))


def one_step_oracle(x: Arrays, state: Any, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return walk(one_step(x), factors(x.get("log_decay"), x["v"], x["q"].shape[-1]), state, options)


def deltaproduct(x: Arrays, state: Any, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return walk(x, factors(x["log_decay"], x["v"], x["q"].shape[-1]), state, options)


ORACLES = {
    "deltanet": one_step_oracle,
    "gated_deltanet": one_step_oracle,
    "kda": one_step_oracle,
    "deltaproduct": deltaproduct,
}
