"""The float64 meaning of softmax attention: one sequence, one query row at a time."""

import numpy as np


def softmax(
    q, k, v, past_k=None, past_v=None, *, scale, causal=True, window=None, cap=None, slopes=None, sinks=None,
    log_forget=None, past_forget=None, shown=None,
):  # fmt: skip
    """Return y (T, H, V), the logarithm of the sums (T, H), and the keys and values that the next call needs.

    q (T, H, K); k (S, G, K); v (S, G, V); the past the same with other lengths; slopes, sinks (H,); log_forget (T, H)
    and that of the past; `shown`, for every head, (queries, keys): whether a query may see a key, if causality lets it.
    Query t has the position of the key that is as far from the last one.
    """
    k, v = (np.float64(new if old is None else np.concatenate([old, new])) for old, new in ((past_k, k), (past_v, v)))
    (T, H, _), (S, G, _) = q.shape, k.shape
    y, lse = np.zeros((T, H, v.shape[2])), np.full((T, H), -np.inf)
    if log_forget is not None:
        gates = np.float64(log_forget if past_forget is None else np.concatenate([past_forget, log_forget]))
    for t in range(T):
        i = t + S - T
        j = np.arange(S)
        for h in range(H):
            s = scale * (k[:, h // (H // G)] @ np.float64(q[t, h]))
            s = s if cap is None else cap * np.tanh(s / cap)
            s = s if slopes is None else s - float(slopes[h]) * np.abs(i - j)
            if log_forget is not None:
                s[:i] += np.cumsum(gates[i:0:-1, h])[::-1]
            see = (j <= i) if causal else np.full(S, True)
            see = see if window is None else see & (np.abs(i - j) < window)
            see = see if shown is None else see & shown[h][t]
            s = np.append(np.where(see, s, -np.inf), -np.inf if sinks is None else float(sinks[h]))
            if s.max() > -np.inf:
                weights = np.exp(s - s.max())
                y[t, h] = weights[:-1] @ v[:, h // (H // G)] / weights.sum()
                lse[t, h] = s.max() + np.log(weights.sum())
    return y, lse, (k, v)
