"""Gives the tensors of a model the names and layouts of other libraries, written down independently of the package."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

Arrays = dict[str, np.ndarray]


def layers(arrays: Arrays) -> range:
    return range(len({name.split(".")[1] for name in arrays if name.startswith("blocks.")}))


def to_hugging_face(arrays: Arrays) -> Arrays:
    def rename(name: str) -> str:
        if name == "head.weight":
            return name
        name = name.replace("emb.", "embeddings.").replace("ln0", "pre_ln")
        name = name.replace(".att.", ".attention.").replace(".ffn.", ".feed_forward.")
        for letter, word in (("k", "key"), ("v", "value"), ("r", "receptance"), ("g", "gate")):
            name = re.sub(rf"time_mix_{letter}$", f"time_mix_{word}", name)
        return "rwkv." + name

    return {rename(name): array for name, array in arrays.items()}


FLA_WORDS = (
    ("emb.", "model.embeddings."),
    ("ln_out.", "model.norm."),
    ("head.", "lm_head."),
    ("blocks.0.ln0.", "model.layers.0.pre_norm."),
    ("blocks.", "model.layers."),
    (".ln1.", ".attn_norm."),
    (".ln2.", ".ffn_norm."),
    (".att.", ".attn."),
    (".ln_x.", ".g_norm."),
    (".output.", ".o_proj."),
)


def to_fla(arrays: Arrays, change: Callable[[str, np.ndarray], tuple[str, np.ndarray] | None]) -> Arrays:
    foreign = {}
    for name, array in arrays.items():
        for ours, theirs in FLA_WORDS:
            name = name.replace(ours, theirs)
        changed = change(name, array)
        if changed is not None:
            foreign[changed[0]] = changed[1]
    return foreign


def to_fla_rwkv7(arrays: Arrays) -> Arrays:
    def change(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
        name = re.sub(r"attn\.(receptance|key|value)\.", lambda match: f"attn.{match[1][0]}_proj.", name)
        if match := re.search(r"attn\.([wavg])([012])$", name):
            part = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}[match[2]]
            name = name[: match.start()] + f"attn.{match[1]}_lora.lora.{part}"
            return name, array.reshape(-1) if match[2] == "0" else array.T
        if name.endswith(("k_k", "k_a", "ffn.x_k")):
            return name, array.reshape(-1)
        return name, array

    return to_fla(arrays, change)


def to_old_fla_rwkv7(arrays: Arrays) -> Arrays:
    foreign = to_fla_rwkv7(arrays)
    for n in layers(arrays):
        rows = [foreign.pop(f"model.layers.{n}.attn.x_{letter}").reshape(-1) for letter in "rwkvag"]
        foreign[f"model.layers.{n}.attn.x_x"] = np.stack(rows)
    return foreign


def to_fla_rwkv6(arrays: Arrays) -> Arrays:
    def change(name: str, array: np.ndarray) -> tuple[str, np.ndarray] | None:
        stem, _, last = name.rpartition(".attn.")
        if re.fullmatch(r"time_maa_[wkvrg]", last):
            return None
        if last == "time_maa_x":
            return f"{stem}.attn.x_proj.0.mu", array.reshape(-1)
        order = [3, 0, 1, 2, 4]  # r w k v g out of w k v r g
        if last == "time_maa_w1":
            groups = array.T.reshape(5, -1, array.shape[0])
            return f"{stem}.attn.x_proj.0.linear.weight", groups[order].reshape(array.T.shape)
        if last == "time_maa_w2":
            return f"{stem}.attn.x_proj.2.weight", array[order].reshape(-1, array.shape[2]).T
        if match := re.fullmatch(r"time_decay_w([12])", last):
            return f"{stem}.attn.w_proj.linear.lora.{'02'[int(match[1]) - 1]}.weight", array.T
        if last == "time_decay":
            return f"{stem}.attn.w_proj.linear.lora.2.bias", array.reshape(-1)
        if last == "time_faaaa":
            return f"{stem}.attn.bonus", array
        name = re.sub(r"attn\.(receptance|key|value|gate)\.", lambda match: f"attn.{match[1][0]}_proj.linear.", name)
        name = re.sub(r"ffn\.(receptance|key)\.weight", r"ffn.\1.linear.weight", name)
        if match := re.search(r"ffn\.time_maa_([kr])$", name):
            word = {"k": "key", "r": "receptance"}[match[1]]
            return name[: match.start()] + f"ffn.{word}.mu", array.reshape(-1)
        return name, array

    foreign = to_fla(arrays, change)
    for n in layers(arrays):
        rows = [arrays[f"blocks.{n}.att.time_maa_{letter}"].reshape(-1) for letter in "rwkvg"]
        foreign[f"model.layers.{n}.attn.x_bias"] = np.stack(rows)
    return foreign


def to_web_rwkv(arrays: Arrays) -> Arrays:
    foreign = {}
    for name, array in arrays.items():
        name = name.replace("time_faaaa", "time_first").replace("time_maa", "time_mix")
        swapped = re.search(r"(time_mix_w[12]|time_decay_w[12]|\.[wavg][12]|time_state)$", name)
        foreign[name] = np.swapaxes(array, -1, -2) if swapped else array
    return foreign
