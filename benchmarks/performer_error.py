"""How far Performer is from the softmax attention that it estimates: the tables of docs/mechanisms/performer.md.

    python benchmarks/performer_error.py

Takes some seconds. The seeds are fixed, so another run differs by rounding only.
"""

from __future__ import annotations

import numpy as np

import wkvnp
from wkvnp.mechanisms.favor import favor_features, favor_matrix, favor_relative_std

TOKENS, WIDTH = 128, 64
SIZES = (0.125, 0.25, 0.5, 1.0)
FEATURES = (64, 256, 1024, 4096)
SEEDS = 5
DRAWS, SMALL = 40_000, 8


def softmax_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return attention of every query to every key, (T, H, K)."""
    scores = np.einsum("thk,shk->hts", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hts,shv->thv", weights / weights.sum(-1, keepdims=True), v)


def outputs() -> None:
    """Print the error of the output beside that of the plain mean of all values."""
    print(f"Error of the output, d = {WIDTH}, {TOKENS} tokens, not causal, mean of {SEEDS} seeds:\n")
    print(
        "| standard deviation of q and k |",
        *(f"M = {m} |" for m in FEATURES),
        "mean of all values | a weight, M = 4096 |",
    )
    print("|---|" + "---|" * (len(FEATURES) + 2))
    for size in SIZES:
        errors, single = np.zeros((SEEDS, len(FEATURES) + 1)), []
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            q, k, v = rng.standard_normal((3, TOKENS, 1, WIDTH))
            q, k = size * q, size * k
            exact = softmax_attention(q, k, v)
            found = [wkvnp.performer(q, k, v, favor_matrix(m, WIDTH, rng), causal=False)[0] for m in FEATURES]
            found.append(np.broadcast_to(v.mean(0), v.shape))
            errors[seed] = [np.linalg.norm(y - exact) / np.linalg.norm(exact) for y in found]
            single.append(np.median(favor_relative_std(q[:, None], k, FEATURES[-1])))
        print(f"| {size:g} |", *(f"{error:.2g} |" for error in errors.mean(0)), f"{np.mean(single):.2g} |")


def naive_matrix(rows: int, width: int, seed: int) -> np.ndarray:
    """Return orthogonal directions with the signs that LAPACK leaves in Q."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(rng.standard_normal((rows // width, width, width)))
    return np.swapaxes(turned, 1, 2).reshape(rows, width) * np.sqrt(rng.chisquare(width, (rows, 1)))


def averages() -> None:
    """Print what estimates of one weight are on average, and how they spread, for each kind of directions."""
    q, k = 0.8 * np.random.default_rng(5).standard_normal((2, 5, SMALL))
    exact = np.exp((q * k).sum(-1) / np.sqrt(SMALL))
    print(f"\nEstimates of five weights by {SMALL} features, d = {SMALL}, {DRAWS} draws:\n")
    print("| directions | bias | standard error of the bias | standard deviation |")
    print("|---|---|---|---|")
    names = ("orthogonal", "iid", "hyperbolic", "regularised", "orthogonal, signs not corrected")
    for name in names:
        rows = 2 * DRAWS * SMALL if name == "hyperbolic" else DRAWS * SMALL
        known = not name.endswith("corrected")
        W = favor_matrix(rows, SMALL, 1, kind=name) if known else naive_matrix(rows, SMALL, 1)
        products = favor_features(q, W) * favor_features(k, W) * rows / exact[:, None]
        if name == "hyperbolic":  # its negatives stand behind all directions
            both = products.reshape(5, 2, DRAWS, 2, SMALL // 2)[:, :, :, 0]  # half of a block, so that draws share none
            found = both.mean((1, 3))
        else:
            found = products.reshape(5, DRAWS, SMALL).mean(-1)
        bias, spread = found.mean(1) - 1, found.std(1)
        error = spread / np.sqrt(found.shape[1])
        cells = (" ".join(f"{100 * x:+.1f}" for x in bias), f"{100 * error.max():.1f}", f"{100 * spread.mean():.0f}")
        print(f"| {name} |", *(f"{cell} % |" for cell in cells))


if __name__ == "__main__":
    outputs()
    averages()
