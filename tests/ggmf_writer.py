"""Writes rwkv.cpp files, with the changes that its converter makes, and the blocks that its quantiser makes."""

from __future__ import annotations

import struct

import numpy as np

TYPES = {"FP32": 0, "FP16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 7, "Q5_1": 8, "Q8_0": 9}


def parameter(name: str | bytes, shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    key = name.encode() if isinstance(name, str) else name
    start = struct.pack("<3I", len(shape), len(key), kind)
    return start + struct.pack(f"<{len(shape)}I", *reversed(shape)) + key + data


def header(n_vocab: int = 0, n_embed: int = 0, n_layer: int = 0, kind: int = 0, version: int = 101) -> bytes:
    return struct.pack("<6I", 0x67676D66, version, n_vocab, n_embed, n_layer, kind)


def encode(kind: str, array: np.ndarray) -> bytes:
    """Return the bytes of an array in one of the types; quantised rows must be multiples of 32."""
    if kind in ("FP32", "FP16"):
        return array.astype("<f4" if kind == "FP32" else "<f2").tobytes()
    blocks = np.asarray(array, np.float64).reshape(-1, 32)
    levels = {"Q4": 15, "Q5": 31, "Q8": 254}[kind[:2]]
    low = blocks.min(1, keepdims=True) if kind.endswith("_1") else -np.abs(blocks).max(1, keepdims=True)
    high = blocks.max(1, keepdims=True) if kind.endswith("_1") else -low
    scale = ((high - low) / levels).astype(np.float16)
    shift = low.astype(np.float16) if kind.endswith("_1") else np.float16(0)
    middle = 0 if kind.endswith("_1") or kind == "Q8_0" else (levels + 1) // 2
    quotient = np.divide(blocks - shift, scale, out=np.zeros_like(blocks), where=scale != 0)
    if kind == "Q8_0":
        q = np.clip(np.round(quotient), -127, 127).astype(np.int8).view(np.uint8)
        packed = [scale.view(np.uint8), q]
    else:
        q = np.clip(np.round(quotient) + middle, 0, levels).astype(np.uint8)
        packed = [scale.view(np.uint8), (q[:, :16] & 15) | (q[:, 16:] & 15) << 4]
        if levels == 31:
            packed.insert(1, np.packbits(q >> 4, axis=1, bitorder="little"))
        if kind.endswith("_1"):
            packed.insert(1, shift.view(np.uint8))
    return np.concatenate(packed, axis=1).tobytes()


def as_stored(arrays: dict[str, np.ndarray], architecture: str) -> dict[str, np.ndarray]:
    """Return the tensors as the converter of rwkv.cpp changes them, in float32."""
    stored: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        last = name.rpartition(".")[2]
        array = array.astype(np.float32)
        if ".time_" in name:
            array = array.squeeze()
        if architecture == "rwkv7" and ".att.x_" in name:
            stem = name[: -len(last)]
            name, array = stem + "x_rwkvag", np.concatenate([arrays[f"{stem}x_{letter}"][0] for letter in "rwkvag"])
            array = array[:, None].astype(np.float32)
        elif architecture == "rwkv7" and last in ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"):
            array = array.T
        elif architecture == "rwkv6" and last in ("time_maa_w1", "time_maa_w2", "time_decay_w1", "time_decay_w2"):
            array = array.swapaxes(-1, -2)
        elif architecture == "rwkv6" and last == "time_decay":
            array = array.reshape(arrays["blocks.0.att.time_faaaa"].shape[0], -1, 1)
        elif last == "time_faaaa":
            array = array[..., None]
        elif architecture == "rwkv4" and last == "time_decay":
            array = -np.exp(array)
        elif architecture.startswith("rwkv5") and last == "time_decay":
            array = np.exp(-np.exp(array))
            array = array.reshape(-1, 1, 1) if architecture == "rwkv5.0" else array[..., None]
        elif architecture.startswith("rwkv5") and last == "time_first":
            array = np.exp(array).reshape(-1, 1, 1)
        stored[name] = array
    return stored


_WIDE_IN_FP16 = (".time_", ".k_k", ".k_a", ".r_k", ".x_rwkvag", ".x_k", ".w0", ".a0", ".v0")
_NEVER_QUANTISED = ("emb.weight", "head.weight", ".r_k", ".w1", ".w2", ".a1", ".a2", ".v1", ".v2", ".g1", ".g2")


def type_of(name: str, array: np.ndarray, kind: str) -> str:
    """Return in which type a tensor stands in a file of some type."""
    if kind == "FP16":
        return kind if array.ndim > 1 and not any(part in name for part in _WIDE_IN_FP16) else "FP32"
    small = array.ndim != 2 or array.shape[1] % 32 or name.endswith(_NEVER_QUANTISED)
    return "FP32" if small else kind


def model_file(arrays: dict[str, np.ndarray], architecture: str, kind: str = "FP32", version: int = 101) -> bytes:
    """Return an rwkv.cpp file of a model whose tensors are given as the original authors have them."""
    n_layer = len({name.split(".")[1] for name in arrays if name.startswith("blocks.")})
    parts = [header(*arrays["emb.weight"].shape, n_layer, TYPES[kind], version)]
    for name, array in as_stored(arrays, architecture).items():
        which = type_of(name, array, kind)
        parts.append(parameter(name, array.shape, TYPES[which], encode(which, array)))
    return b"".join(parts)
