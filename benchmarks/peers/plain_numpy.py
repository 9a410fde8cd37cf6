"""RWKV-7 in NumPy alone, as one would write it down from the paper: every product a call of BLAS."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

TITLE, PACKAGES = "plain NumPy", ("numpy",)
FORMATS = ("float32",)
SUFFIX = ".safetensors"


def write(source: Path, path: Path, form: str) -> None:
    """Use the safetensors file as it is."""
    path.hardlink_to(source)


def prepare(path: Path, form: str, threads: int) -> Runner:
    """Load a model; the environment says how many threads BLAS has."""
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    entries = {name: entry for name, entry in json.loads(raw[8:begin]).items() if name != "__metadata__"}
    assert {entry["dtype"] for entry in entries.values()} == {"F32"}
    weights = {
        name: np.frombuffer(raw, np.float32, math.prod(entry["shape"]), begin + entry["data_offsets"][0]).reshape(
            [n for n in entry["shape"] if n > 1]
        )
        for name, entry in entries.items()
    }
    return Runner(weights)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def normal(x: np.ndarray, eps: float) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


class Runner:
    """Weights and the state after what was last read: per layer two shifted vectors and a matrix (H, V, K)."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.w = weights
        self.layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        self.heads, self.size = weights["blocks.0.att.r_k"].shape
        self.state: list[list[np.ndarray]] = []
        self.att: list[dict[str, np.ndarray]] = [{} for _ in range(self.layers)]
        for name, array in weights.items():
            if ".att." in name:
                _, n, _, rest = name.split(".", 3)
                self.att[int(n)][rest] = array

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return normal(x, 1e-5) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def time_mix(self, n: int, x: np.ndarray, first: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the time mix of layer n, and the values of the first layer."""
        w = self.att[n]
        before = np.vstack([self.state[n][0], x[:-1]])
        self.state[n][0] = x[-1]
        r, d, k, v, a, g = (x + (before - x) * w[f"x_{letter}"] for letter in "rwkvag")
        r, k, value = r @ w["receptance.weight"].T, k @ w["key.weight"].T, v @ w["value.weight"].T
        decay = np.exp(-math.exp(-0.5) * sigmoid(w["w0"] + np.tanh(d @ w["w1"]) @ w["w2"]))
        a = sigmoid(w["a0"] + a @ w["a1"] @ w["a2"])
        g = sigmoid(g @ w["g1"]) @ w["g2"]
        if first is None:
            first = value
        else:
            value = value + (first - value) * sigmoid(w["v0"] + v @ w["v1"] @ w["v2"])
        shape = (len(x), self.heads, self.size)
        kappa = (k * w["k_k"]).reshape(shape)
        kappa /= np.maximum(np.linalg.norm(kappa, axis=-1, keepdims=True), 1e-12)
        k = k * (1 + (a - 1) * w["k_a"])
        r, decay, k, v, a = (array.reshape(shape) for array in (r, decay, k, value, a))
        y, S = np.empty_like(v), self.state[n][2]
        for t in range(len(x)):
            recalled = S @ kappa[t, :, :, None]
            S = S * decay[t, :, None] - recalled * (kappa * a)[t, :, None] + v[t, :, :, None] * k[t, :, None]
            y[t] = (S @ r[t, :, :, None])[:, :, 0]
        self.state[n][2] = S
        y = normal(y, 64e-5).reshape(x.shape) * w["ln_x.weight"] + w["ln_x.bias"]
        y = y + ((r * k * w["r_k"]).sum(-1, keepdims=True) * v).reshape(x.shape)
        return (y * g) @ w["output.weight"].T, first

    def channel_mix(self, n: int, x: np.ndarray) -> np.ndarray:
        before = np.vstack([self.state[n][1], x[:-1]])
        self.state[n][1] = x[-1]
        mixed = x + (before - x) * self.w[f"blocks.{n}.ffn.x_k"]
        hidden = np.maximum(mixed @ self.w[f"blocks.{n}.ffn.key.weight"].T, 0)
        return hidden**2 @ self.w[f"blocks.{n}.ffn.value.weight"].T

    def forward(self, tokens: list[int]) -> np.ndarray:
        x, first = self.norm(self.w["emb.weight"][tokens], "blocks.0.ln0"), None
        for n in range(self.layers):
            mixed, first = self.time_mix(n, self.norm(x, f"blocks.{n}.ln1"), first)
            x = x + mixed
            x = x + self.channel_mix(n, self.norm(x, f"blocks.{n}.ln2"))
        return self.norm(x[-1], "ln_out") @ self.w["head.weight"].T

    def prefill(self, tokens: list[int]) -> np.ndarray:
        """Read a prompt from the beginning of a text; return the logits after it."""
        width = np.zeros(self.heads * self.size, np.float32)
        matrix = np.zeros((self.heads, self.size, self.size), np.float32)
        self.state = [[width, width, matrix] for _ in range(self.layers)]
        return self.forward(tokens)

    def decode(self, tokens: list[int]) -> np.ndarray:
        """Go on token by token; return the logits after the last."""
        for token in tokens:
            logits = self.forward([token])
        return logits
