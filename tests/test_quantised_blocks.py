"""Quantised blocks: stored numbers, the formulas one element at a time, llama.cpp's package, damaged scales, memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wkvnp.checkpoints.quantised_blocks import BLOCK_TYPES, dequantise, packed_size, row_fault

GOLDEN = json.loads((Path(__file__).parent / "golden" / "quantised_blocks.json").read_text())
HALVES = ("d", "m", "dmin")
# Zeros, subnormal and ordinary numbers, the largest ones, infinities, quiet and signalling NaN.
DAMAGED = (0, 0x8000, 1, 0x8001, 0x3FF, 0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFE00, 0x7C01, 0xFFFF, 0x7D55)


def random_blocks(kind: str, count: int, seed: int, damaged: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, count * BLOCK_TYPES[kind].nbytes, dtype=np.uint8)
    blocks = raw.view(BLOCK_TYPES[kind].layout)
    for field in HALVES:
        if field in (blocks.dtype.names or ()):
            if damaged:
                blocks[field] = rng.choice(np.array(DAMAGED, np.uint16), count).view(np.float16)
            else:
                blocks[field] = rng.standard_normal(count)
    return raw


def bits(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint32)


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_stored_numbers(kind: str) -> None:
    blocks, numbers = (bytes.fromhex(GOLDEN[kind][part]) for part in ("blocks", "float32"))
    got = dequantise(kind, b"..." + blocks, (2, BLOCK_TYPES[kind].elements), 3)
    assert got.astype("<f4").tobytes() == numbers


def half(block: bytes, at: int) -> np.float32:
    return np.float32(np.frombuffer(block, "<f2", 1, at)[0])


def nibble(block: bytes, start: int, j: int, run: int) -> int:
    """Return whole number j: low halves of `run` bytes, then their high halves, then the next run."""
    pair, rest = divmod(j, 2 * run)
    byte = block[start + pair * run + rest % run]
    return byte >> 4 if rest >= run else byte & 15


def fifth(block: bytes, start: int, j: int) -> int:
    return 16 * (int.from_bytes(block[start : start + 4], "little") >> j & 1)


def six_bits(block: bytes, j: int) -> tuple[np.float32, np.float32]:
    scales = block[4:16]
    if j < 4:
        pair = scales[j] & 63, scales[j + 4] & 63
    else:
        pair = (scales[j + 4] & 15) + 16 * (scales[j - 4] >> 6), (scales[j + 4] >> 4) + 16 * (scales[j] >> 6)
    return np.float32(pair[0]), np.float32(pair[1])


def k_element(block: bytes, j: int, q: int) -> np.float32:
    scale, minimum = six_bits(block, j // 32)
    return half(block, 0) * scale * np.float32(q) - half(block, 2) * minimum


def q6_element(block: bytes, j: int) -> np.float32:
    h, g, l = j // 128, j // 32 % 4, j % 32
    low = block[64 * h + 32 * (g % 2) + l]
    q = (low & 15 if g < 2 else low >> 4) + 16 * (block[128 + 32 * h + l] >> 2 * g & 3)
    scale = np.int8(np.uint8(block[192 + 8 * h + 2 * g + l // 16]))
    return half(block, 208) * np.float32(scale) * np.float32(q - 32)


ELEMENTS: dict[str, Callable[[bytes, int], np.float32]] = {
    "Q4_0": lambda b, j: half(b, 0) * np.float32(nibble(b, 2, j, 16) - 8),
    "Q4_1": lambda b, j: half(b, 0) * np.float32(nibble(b, 4, j, 16)) + half(b, 2),
    "Q5_0": lambda b, j: half(b, 0) * np.float32(nibble(b, 6, j, 16) + fifth(b, 2, j) - 16),
    "Q5_1": lambda b, j: half(b, 0) * np.float32(nibble(b, 8, j, 16) + fifth(b, 4, j)) + half(b, 2),
    "Q8_0": lambda b, j: half(b, 0) * np.float32(np.int8(np.uint8(b[2 + j]))),
    "Q4_K": lambda b, j: k_element(b, j, nibble(b, 16, j, 32)),
    "Q5_K": lambda b, j: k_element(b, j, nibble(b, 48, j, 32) + 16 * (b[16 + j % 32] >> j // 32 & 1)),
    "Q6_K": q6_element,
}


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_the_formulas_one_element_at_a_time(kind: str) -> None:
    raw = random_blocks(kind, 4, seed=1).tobytes()
    size, elements = BLOCK_TYPES[kind].nbytes, BLOCK_TYPES[kind].elements
    got = dequantise(kind, raw, (4, elements))
    for number in range(4):
        block = raw[number * size : (number + 1) * size]
        expected = np.array([ELEMENTS[kind](block, j) for j in range(elements)])
        assert expected.dtype == np.float32
        np.testing.assert_array_equal(bits(got[number]), bits(expected))


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_against_the_gguf_package(kind: str, damaged: bool) -> None:
    gguf = pytest.importorskip("gguf", reason="blocks are compared with the package of llama.cpp")
    theirs = gguf.GGMLQuantizationType[kind]
    block = BLOCK_TYPES[kind]
    assert gguf.GGML_QUANT_SIZES[theirs] == (block.elements, block.nbytes)
    # More than one piece, and a last one that is not full.
    count = 10 * ((1 << 17) // block.elements * 2 // 10 + 3)
    raw = random_blocks(kind, count, seed=2, damaged=damaged)
    with np.errstate(invalid="ignore"):
        expected = gguf.quants.dequantize(raw.reshape(count // 10, -1), theirs)
    got = dequantise(kind, raw.tobytes(), (count // 10, 10 * block.elements))
    np.testing.assert_array_equal(bits(got), bits(expected))


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_pieces(kind: str) -> None:
    block = BLOCK_TYPES[kind]
    half = (1 << 17) // block.elements * 2 // 3
    raw = random_blocks(kind, 2 * half, seed=4).tobytes()
    whole = dequantise(kind, raw, (2, half * block.elements))
    for number in range(2):
        alone = dequantise(kind, raw, (half, block.elements), number * half * block.nbytes)
        np.testing.assert_array_equal(bits(whole[number]), bits(alone).reshape(-1))


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_damaged_scales_do_not_warn(kind: str) -> None:
    with np.errstate(all="raise"):
        got = dequantise(kind, random_blocks(kind, 300, seed=3, damaged=True), (300, BLOCK_TYPES[kind].elements))
    assert np.isnan(got).any()
    assert np.isinf(got).any()
    assert np.isfinite(got).any()


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_memory_beyond_the_result_is_bounded(kind: str) -> None:
    raw = bytes(packed_size(kind, (2048, 1024)))
    tracemalloc.start()
    result = dequantise(kind, raw, (2048, 1024))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.nbytes == 8 << 20
    assert peak - result.nbytes < 1_000_000


def test_rows_are_whole_numbers_of_blocks() -> None:
    assert row_fault("Q4_0", (3, 64)) is None
    assert row_fault("Q4_K", (3, 64)) == "has rows of 64 numbers, no multiple of the 256 in a Q4_K block"
    assert row_fault("Q8_0", ()) is not None
    assert packed_size("Q6_K", (5, 512)) == 2100
    assert dequantise("Q5_1", b"", (0, 32)).shape == (0, 32)
