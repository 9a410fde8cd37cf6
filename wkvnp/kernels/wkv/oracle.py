"""The float64 meaning of the WKV of RWKV-4: explicit sums, with no running maximum."""

import numpy as np


def wkv(log_decay, u, k, v, aa=None, bb=None, pp=None):
    """Return y (T, C) and (aa, bb, pp) as the sums scaled by their largest exponent.

    log_decay, u (C,); k, v (T, C). Sums run in long double, where exp(|k|) up to 11,000 is finite.
    """
    T, C = k.shape
    real = np.longdouble
    W, u, k, v = (np.asarray(x, real) for x in (log_decay, u, k, v))
    exponents = [np.full(C, -1e38, real) if pp is None else np.asarray(pp, real)]
    numerators = [np.zeros(C, real) if aa is None else np.asarray(aa, real)]
    denominators = [np.zeros(C, real) if bb is None else np.asarray(bb, real)]
    y = np.zeros((T, C), real)
    for t in range(T + 1):
        decayed = [exponents[0] + t * W] + [k[i] + (t - 1 - i) * W for i in range(t)]
        here = [u + k[t]] if t < T else []
        top = np.max(np.stack(decayed + here), axis=0)
        scale = [np.exp(e - top) for e in decayed + here]
        a = sum(s * n for s, n in zip(scale, [numerators[0], *v[:t], *v[t : t + 1]]))
        b = sum(s * n for s, n in zip(scale, [denominators[0], *np.ones_like(v[:t]), *np.ones_like(v[t : t + 1])]))
        if t < T:
            y[t] = a / b
    return np.float64(y), (np.float64(a), np.float64(b), np.float64(top))
