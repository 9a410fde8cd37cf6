"""The float64 meaning of the WKV of RWKV-4: explicit sums, with no running maximum."""

import numpy as np


def wkv(log_decay, u, k, v, aa=None, bb=None, pp=None):
    """Return y (T, C) and (aa, bb, pp) as the sums scaled by their largest exponent.

    log_decay, u (C,); k, v (T, C). Sums run in long double where the platform has one.
    """
    T, C = k.shape
    real = np.longdouble
    W, u, k, v = (np.asarray(x, real) for x in (log_decay, u, k, v))
    exponents = np.full((1, C), -1e38, real) if pp is None else np.asarray(pp, real)[None]
    numerators = np.zeros((1, C), real) if aa is None else np.asarray(aa, real)[None]
    denominators = np.zeros((1, C), real) if bb is None else np.asarray(bb, real)[None]
    # Row 0 is everything before this sequence, row i + 1 is token i.
    e = np.concatenate([exponents, k])
    n = np.concatenate([numerators, v])
    d = np.concatenate([denominators, np.ones_like(k)])
    y = np.zeros((T, C), real)
    for t in range(T + 1):
        past = e[: t + 1] + np.where(np.arange(t + 1) == 0, t, t - np.arange(t + 1))[:, None] * W
        here = (u + k[t])[None] if t < T else past[:0]
        top = np.concatenate([past, here]).max(axis=0)
        scale = np.exp(np.concatenate([past, here]) - top)
        a, b = (scale * n[: len(scale)]).sum(axis=0), (scale * d[: len(scale)]).sum(axis=0)
        if t < T:
            y[t] = a / b
    return np.float64(y), (np.float64(a), np.float64(b), np.float64(top))
