"""Compiled loop of the short causal convolution: lanes run over channels, which never meet."""

from numba import prange

from ..._jit import uncounted

CHANNELS = 64


@uncounted
def short(
    offsets,  # IN  (Q + 1,) where each sequence begins, of which this may be a part
    starts,  # IN  (Q,) first token of each sequence
    stops,  # IN  (Q,) one past its last token
    x,  # IN  (M, C)
    weight,  # IN  (W, C) oldest first
    bias,  # IN  (C,)
    window,  # IN  (Q, W - 1, C) the tokens before each sequence
    y,  # OUT (M, C)
):
    """Walk every sequence and block of channels."""
    Q, C = window.shape[0], x.shape[1]
    W = weight.shape[0]
    blocks = (C + CHANNELS - 1) // CHANNELS
    for item in prange(Q * blocks):
        q, i = item // blocks, item % blocks * CHANNELS
        e = min(i + CHANNELS, C)
        for t in range(starts[q], stops[q]):
            out, b = y[t, i:e], bias[i:e]
            for c in range(e - i):
                out[c] = b[c]
            for j in range(W):
                source = t + j - (W - 1)
                row = x[source, i:e] if source >= offsets[q] else window[q, source - offsets[q] + (W - 1), i:e]
                w = weight[j, i:e]
                for c in range(e - i):
                    out[c] += w[c] * row[c]
