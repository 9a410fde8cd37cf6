"""The float64 meaning of the gated linear recurrence: one sequence, one token at a time."""

import numpy as np


def linear(q, log_decay, k, v, bonus=None, state=None):
    """Return y (T, H, V) and the state (H, K, V) after one sequence.

    q, k (T, H, K); v (T, H, V); log_decay (T, H, K); bonus (H, K) or None; state (H, K, V) or None.
    """
    T, H, K = q.shape
    S = np.zeros((H, K, v.shape[2])) if state is None else np.array(state, np.float64)
    y = np.zeros((T, H, v.shape[2]))
    for t in range(T):
        for h in range(H):
            kv = np.outer(np.float64(k[t, h]), np.float64(v[t, h]))
            if bonus is not None:
                y[t, h] = np.float64(q[t, h]) @ (S[h] + np.float64(bonus[h])[:, None] * kv)
            S[h] = np.exp(np.float64(log_decay[t, h]))[:, None] * S[h] + kv
            if bonus is None:
                y[t, h] = np.float64(q[t, h]) @ S[h]
    return y, S
