"""Tiny models of every architecture, regenerated from a formula, and what they must answer."""

import zlib

import numpy as np

from wkvnp.checkpoints import LazyTensor, save_safetensors
from wkvnp.checkpoints.naming import declare
from wkvnp.models.architectures import weights_of

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
SIZES = {"C": 8, "A": 8, "V": 11, "H": 2, "N": 4, "R": 3, "D": 4, "Dw": 4, "Da": 3, "Dg": 5, "Dv": 2}
COUNTS = {"rwkv4": 42, "rwkv5.0": 46, "rwkv5.1": 50, "rwkv5.2": 50, "rwkv6": 62, "rwkv7": 69}

LAST = {
    "rwkv4": "0.1700077 -1.4151483 0.4729156 0.4136448 -0.0197928 -0.9297502 -0.1190268 0.6681853 1.9847485 -0.6296188"
    " -1.8539715",
    "rwkv5.0": "1.6035701 -0.9426336 1.1780394 -0.0785416 0.8094147 0.1170876 -0.4951917 0.9663092 2.0049955 0.4118538"
    " -0.1590853",
    "rwkv5.1": "1.2474371 -0.6161204 -0.4326620 -1.2549628 -0.6052833 -0.5868216 -1.4226735 0.8880200 1.8653579"
    " 0.0981737 -0.7705392",
    "rwkv5.2": "1.4781839 -0.6499412 -0.1577637 -1.2788381 -0.5764407 -0.3886851 -1.5439243 0.8848077 2.0834436"
    " 0.1561831 -0.4406310",
    "rwkv6": "2.1164274 -1.4678047 1.1940016 0.3340527 0.8681966 0.0802635 -1.0364091 1.9186116 1.8995965 1.4135362"
    " -0.6767025",
    "rwkv7": "1.7820534 -0.0382492 -1.3361652 -0.5208646 0.3969788 0.0398919 -0.0523141 1.1922079 1.2628856 1.4178335"
    " -0.7537520",
}
"""Logits after the eight tokens."""

FIRST = {
    "rwkv4": "-0.2376562 0.8631138 -0.3264075 0.5473574",
    "rwkv5.0": "-0.5849672 0.9060340 -0.8732414 0.3914949",
    "rwkv5.1": "0.6159410 1.6519438 -1.0978895 -0.7541846",
    "rwkv5.2": "0.1445169 2.0952191 -1.0395961 -0.9929226",
    "rwkv6": "2.4016110 0.5711197 -0.3070288 -0.5680917",
    "rwkv7": "-1.0668663 0.8879578 -0.9205836 0.2421742",
}
"""The first four logits after the first token."""

STATE_SUMS = {
    "rwkv4": "6.4251081 20.1354208 21.6065361 6.5804621 7.3127241 | 6.3026280 23.6219338 31.2556197 2.2275990 7.2550163",
    "rwkv5.0": "6.4251081 53.1319134 7.1307812 | 6.9358418 44.4209517 7.3288722",
    "rwkv5.1": "6.4251081 53.1319134 7.5698066 | 6.4498064 38.1971154 7.7314705",
    "rwkv5.2": "6.4251081 81.8998929 7.4049737 | 6.6386615 56.6832018 7.9408777",
    "rwkv6": "6.4251081 81.4641592 7.3098481 | 6.7291412 38.0158803 7.4864391",
    "rwkv7": "6.4251081 19.3377322 7.8908389 | 6.4735351 10.7926469 8.1035187",
}
"""Sums of absolute values per slot: time shift, recurrence, channel shift, of layer 0 | layer 1. In RWKV-4 the
recurrence is aa, bb and the signed sum of pp."""

HEAD = {
    "rwkv5.0": "-3.5089652 -0.1268900 2.8763128 -1.1888635 -0.7831570 1.3926404 0.7557108 -2.4637475"
    " 7.7165636 -1.7791023 -6.3408118 5.3449070 -2.8444377 1.9728941 2.0996013 -2.8914573",
    "rwkv5.2": "-3.5089652 -0.1268900 2.8763128 -1.1888635 0.0945691 -0.1210681 0.0178762 -1.2004548"
    " 0.1361607 0.3128554 -0.2540000 1.7025159 -6.6183297 3.9580929 4.6500226 -4.8742582",
    "rwkv6": "-4.8540933 -1.4634153 3.1323167 0.4654349 -0.6875841 1.0942559 0.0146555 -0.6617600"
    " 1.4701908 -1.0324864 -0.4364861 0.7066098 -7.2541458 5.7052549 3.8426402 -5.1856716",
    "rwkv7": "-2.1662508 0.2754028 1.1394287 0.8992430 -0.5619249 0.1809422 0.1361751 -0.1917780"
    " 2.7463011 -0.5635355 -1.4254089 -0.9011533 0.6249539 -0.7706351 0.3507936 -0.0635839",
}
"""State of layer 0, head 0, row by row: rows are keys, in RWKV-7 values."""


def numbers(text: str) -> np.ndarray:
    return np.array(text.split(), np.float64)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of a tensor, which depend on its name only."""
    offset, scale = _range(name)
    s, values = zlib.crc32(name.encode()), np.empty(int(np.prod(shape)))
    for i in range(values.size):
        s = (1664525 * s + 1013904223) % 2**32
        values[i] = offset + scale * (2 * s / 2**32 - 1)
    return values.astype(np.float32).reshape(shape)


def _range(name: str) -> tuple[float, float]:
    last = name.rpartition(".")[2]
    if ".ln" in f".{name}":
        return (1, 0.25) if last == "weight" else (0, 0.25)
    if name == "emb.weight" or last in ("time_first", "time_faaaa", "a0", "v0"):
        return 0, 1
    if last == "time_decay":
        return -2, 3
    if last == "w0":
        return 0, 3
    if last in ("k_k", "k_a"):
        return 1, 0.5
    if last == "r_k" or last[-2:] in ("w1", "w2", "a1", "a2", "g1", "g2", "v1", "v2"):
        return 0, 0.5
    if last.startswith(("time_mix", "time_maa", "x_")):
        return 0.5, 0.5
    return (0, 0.4) if name.endswith("ffn.value.weight") else (0, 0.75)


def tensors(architecture: str) -> dict[str, np.ndarray]:
    """Return all tensors of the tiny model under original names."""

    def present(name: str) -> bool:
        block, _, tensor = name.removeprefix("blocks.").partition(".")
        if tensor.startswith("ln0."):
            return block == "0"
        if tensor in ("att.v0", "att.v1", "att.v2"):
            return block != "0"
        return tensor == ("att.time_first" if architecture == "rwkv5.0" else "att.time_faaaa")

    sizes = SIZES | {"F": 32 if architecture in ("rwkv4", "rwkv7") else 28}
    shapes = declare(weights_of(architecture), sizes, 2, present)
    return {name: fill(name, shape) for name, shape in shapes.items()}


def lazy(arrays: dict[str, np.ndarray]) -> dict[str, LazyTensor]:
    return {name: LazyTensor.of(name, array) for name, array in arrays.items()}


def write(architecture: str, path: object) -> None:
    """Write the tiny model as a checkpoint."""
    save_safetensors(path, tensors(architecture), {})  # type: ignore[arg-type]
