"""Writes safetensors files in memory, without the package's own writer."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

CODES = {"bool": "BOOL", "bfloat16": "BF16"} | {f"float{bits}": f"F{bits}" for bits in (16, 32, 64)}
CODES |= {f"{sign}int{bits}": f"{letter}{bits}" for sign, letter in (("", "I"), ("u", "U")) for bits in (8, 16, 32, 64)}


def write_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    body = b""
    for name, array in arrays.items():
        code = CODES["bfloat16" if array.dtype.kind == "V" else array.dtype.name]
        data = array.tobytes()
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body
