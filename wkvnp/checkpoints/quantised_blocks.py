"""The quantised blocks of ggml, which GGUF and ggmf files share: packed whole numbers and the scales to multiply by.

Blocks lie along the last axis, one behind the other, and rows are whole numbers of blocks. The order of the float32
operations is part of the format: decoding gives the bits that every other reader gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

# Numbers decoded at a time: less than 1 MB of intermediate arrays for a tensor of any size.
_PIECE = 1 << 17


@dataclass(frozen=True)
class BlockType:
    """How `elements` numbers are packed: the fields of a block, and a function that decodes many blocks.

    The function takes an array (n,) of `layout` and writes float32 (n, elements) into its second argument.
    """

    elements: int
    layout: np.dtype[Any]
    decode: Callable[[Array, Array], None]

    @property
    def nbytes(self) -> int:
        """Bytes of one block."""
        return self.layout.itemsize


def row_fault(kind: str, shape: tuple[int, ...]) -> str | None:
    """Say why a tensor of this shape cannot consist of such blocks, or None.

    >>> row_fault("Q4_0", (3, 40))
    'has rows of 40 numbers, no multiple of the 32 in a Q4_0 block'
    """
    row = shape[-1] if shape else 1
    elements = BLOCK_TYPES[kind].elements
    return f"has rows of {row} numbers, no multiple of the {elements} in a {kind} block" if row % elements else None


def packed_size(kind: str, shape: tuple[int, ...]) -> int:
    """Return how many bytes the blocks of a tensor take.

    >>> packed_size("Q4_K", (2, 512))
    576
    """
    block = BLOCK_TYPES[kind]
    return math.prod(shape) // block.elements * block.nbytes


def dequantise(kind: str, buffer: Any, shape: tuple[int, ...], offset: int = 0) -> Array:
    """Return the numbers of a quantised tensor.

    Parameters
    ----------
    kind : str
        A key of `BLOCK_TYPES`.
    buffer : bytes-like
        Holds ``packed_size(kind, shape)`` bytes from `offset` on.
    shape : tuple of int
        The shape of the result; `row_fault` must have nothing against it.
    offset : int, default 0
        Where in the buffer the first block begins.

    Returns
    -------
    ndarray of float32, shape `shape`
        Damaged scales give infinities and NaN, as in every other reader, and no warning.

    Examples
    --------
    >>> block = np.float16(0.5).tobytes() + bytes([0x80] * 16)
    >>> dequantise("Q4_0", block, (32,))[[0, 31]]
    array([-4.,  0.], dtype=float32)
    """
    block = BLOCK_TYPES[kind]
    count = math.prod(shape) // block.elements
    result = np.empty((count, block.elements), np.float32)
    step = _PIECE // block.elements
    with np.errstate(invalid="ignore"):
        for first in range(0, count, step):
            out = result[first : first + step]
            block.decode(np.frombuffer(buffer, block.layout, len(out), offset + first * block.nbytes), out)
    return result.reshape(shape)


def _scale(field: Array) -> Array:
    """Return a float16 field as a float32 column."""
    return field.astype(np.float32)[:, None]


def _nibbles(qs: Array, run: int) -> Array:
    """Return the low halves of `run` bytes, then their high halves, then the next run: (n, B) becomes (n, 2B)."""
    halves = qs.reshape(len(qs), -1, 1, run) >> np.array([[0], [4]], np.uint8)
    halves &= np.uint8(15)
    return halves.reshape(len(qs), -1)


def _with_fifth_bit(blocks: Array) -> Array:
    bits = np.unpackbits(blocks["qh"], axis=-1, bitorder="little")
    q: Array = _nibbles(blocks["qs"], 16) | bits << np.uint8(4)
    return q


def _decode_q4_0(blocks: Array, out: Array) -> None:
    np.subtract(_nibbles(blocks["qs"], 16), np.float32(8), out=out)
    np.multiply(_scale(blocks["d"]), out, out=out)


def _decode_q4_1(blocks: Array, out: Array) -> None:
    np.multiply(_scale(blocks["d"]), _nibbles(blocks["qs"], 16), out=out)
    np.add(out, _scale(blocks["m"]), out=out)


def _decode_q5_0(blocks: Array, out: Array) -> None:
    np.subtract(_with_fifth_bit(blocks), np.float32(16), out=out)
    np.multiply(_scale(blocks["d"]), out, out=out)


def _decode_q5_1(blocks: Array, out: Array) -> None:
    np.multiply(_scale(blocks["d"]), _with_fifth_bit(blocks), out=out)
    np.add(out, _scale(blocks["m"]), out=out)


def _decode_q8_0(blocks: Array, out: Array) -> None:
    np.multiply(blocks["qs"], _scale(blocks["d"]), out=out)


def _six_bit_scales(packed: Array) -> tuple[Array, Array]:
    """Return the eight scales and the eight minima (n, 8) that share twelve bytes (n, 12)."""
    low, middle, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], axis=-1)
    minima = np.concatenate([middle & 63, (high >> 4) | (middle >> 6) << 4], axis=-1)
    return scales, minima


def _scale_and_shift(blocks: Array, q: Array, out: Array) -> None:
    """Give each run of 32 whole numbers its own scale and minimum."""
    scales, minima = _six_bit_scales(blocks["scales"])
    runs = out.reshape(-1, 8, 32)
    np.multiply((_scale(blocks["d"]) * scales)[..., None], q.reshape(-1, 8, 32), out=runs)
    np.subtract(runs, (_scale(blocks["dmin"]) * minima)[..., None], out=runs)


def _decode_q4_k(blocks: Array, out: Array) -> None:
    _scale_and_shift(blocks, _nibbles(blocks["qs"], 32), out)


def _decode_q5_k(blocks: Array, out: Array) -> None:
    bits = blocks["qh"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    _scale_and_shift(blocks, _nibbles(blocks["qs"], 32) | (bits << np.uint8(4)).reshape(-1, 256), out)


def _decode_q6_k(blocks: Array, out: Array) -> None:
    pairs = blocks["qh"].reshape(-1, 2, 1, 32) >> np.array([[0], [2], [4], [6]], np.uint8) & np.uint8(3)
    q = _nibbles(blocks["ql"], 64) | (pairs << np.uint8(4)).reshape(-1, 256)
    runs = out.reshape(-1, 16, 16)
    np.subtract(q.reshape(-1, 16, 16), np.float32(32), out=runs)
    np.multiply((_scale(blocks["d"]) * blocks["scales"])[..., None], runs, out=runs)


def _block(elements: int, decode: Callable[[Array, Array], None], **fields: str) -> BlockType:
    return BlockType(elements, np.dtype(list(fields.items())), decode)


BLOCK_TYPES = {
    "Q4_0": _block(32, _decode_q4_0, d="<f2", qs="16u1"),
    "Q4_1": _block(32, _decode_q4_1, d="<f2", m="<f2", qs="16u1"),
    "Q5_0": _block(32, _decode_q5_0, d="<f2", qh="4u1", qs="16u1"),
    "Q5_1": _block(32, _decode_q5_1, d="<f2", m="<f2", qh="4u1", qs="16u1"),
    "Q8_0": _block(32, _decode_q8_0, d="<f2", qs="32i1"),
    "Q4_K": _block(256, _decode_q4_k, d="<f2", dmin="<f2", scales="12u1", qs="128u1"),
    "Q5_K": _block(256, _decode_q5_k, d="<f2", dmin="<f2", scales="12u1", qh="32u1", qs="128u1"),
    "Q6_K": _block(256, _decode_q6_k, ql="128u1", qh="64u1", scales="16i1", d="<f2"),
}
"""Name of the type -> its blocks."""
