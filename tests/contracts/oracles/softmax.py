"""What softmax attention and its relatives mean: a row of scores for every query, in float64."""

from typing import Any

import numpy as np

from wkvnp.kernels.softmax.oracle import softmax

Arrays = dict[str, np.ndarray]


def attend(x: Arrays, state: Any, options: dict[str, Any], **more: Any) -> tuple[np.ndarray, Any]:
    past = (None, None) if state is None else (state.parts().k, state.parts().v)
    scale = options.get("scale") or x["q"].shape[-1] ** -0.5
    y, _, (k, v) = softmax(x["q"], x["k"], x["v"], *past, scale=scale, causal=options.get("causal", True), **more)
    return y, (k, v, np.array(len(k)))


def softmax_attention(x: Arrays, state: Any, options: dict[str, Any]) -> tuple[np.ndarray, Any]:
    more = {"window": options.get("window"), "cap": options.get("softcap")}
    return attend(x, state, options, slopes=x["slopes"], sinks=x["sinks"], **more)


def forgetting_attention(x: Arrays, state: Any, options: dict[str, Any]) -> tuple[np.ndarray, Any]:
    gates = x["log_forget"]
    before = gates[:0] if state is None else np.diff(state.parts().gates, axis=0, prepend=0)
    y, parts = attend(x, state, options, log_forget=gates, past_forget=before)
    return y, (*parts, np.cumsum(np.concatenate([before, gates]), axis=0, dtype=np.float64))


def positions(x: Arrays, state: Any) -> tuple[np.ndarray, np.ndarray]:
    past = 0 if state is None else int(state.lengths)
    return past + np.arange(len(x["q"]))[:, None], np.arange(past + len(x["q"]))


def longformer(x: Arrays, state: Any, options: dict[str, Any]) -> tuple[np.ndarray, Any]:
    i, j = positions(x, state)
    chosen = options.get("global_tokens", ())
    shown = (np.abs(i - j) < options.get("window", 512)) | np.isin(i, chosen) | np.isin(j, chosen)
    return attend(x, state, options, shown=[shown] * x["q"].shape[1])


def bigbird(x: Arrays, state: Any, options: dict[str, Any]) -> tuple[np.ndarray, Any]:
    i, j = (position // options.get("block", 64) for position in positions(x, state))
    window, first = options.get("window_blocks", 3), options.get("global_blocks", 1)
    near = (i - j < window) & (j <= i) if options.get("causal", True) else abs(i - j) <= window // 2
    tables = np.array(options.get("random_blocks", np.zeros((0, 1))), int)
    shown = []
    for h in range(x["q"].shape[1]):
        table = tables if tables.ndim == 2 else tables[h]
        drawn = {(a, b) for a, row in enumerate(table) for b in row}
        pairs = np.array([[(a, b) in drawn for b in j] for a in i[:, 0]], bool).reshape(len(i), len(j))
        shown.append(near | (i < first) | (j < first) | pairs)
    return attend(x, state, options, shown=shown)


ORACLES = {
    "softmax_attention": softmax_attention,
    "forgetting_attention": forgetting_attention,
    "longformer": longformer,
    "bigbird": bigbird,
}
