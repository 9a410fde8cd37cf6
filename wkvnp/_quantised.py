"""Matrices of small whole numbers: codes of 8 or 4 bits, and a scale for every 32 of a row.

A weight is its code times the scale of its group, exactly so in float32. Scales are bfloat16: they have the range of
float32, so that no group is too small or too large for them, and their rounding is made good by the codes, which are
chosen after it.

In memory 16 outputs lie side by side, as the lanes of a vector: of each group first four codes of every output, then
the next four. So the products of a group with its activations add up within lanes, and one output is one lane.

Letters: O outputs, I inputs, a multiple of 32; B blocks of 16 outputs, G groups of a row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._dtypes import aligned, compiled_view, dtype_name, widen

Array = npt.NDArray[Any]

GROUP = 32
"""Weights that share a scale."""
BLOCK_ROWS = 16
"""Outputs that lie side by side."""
_SIGNS = np.uint32(0x80808080)
QUANTISED = ("int8", "int4")
LARGEST = 2.0**120
"""A scale may have this size, so that no weight is infinite."""
_HALF = GROUP // 2


class Quantised:
    """A matrix (O, I) of codes and scales, which is not changed.

    Parameters
    ----------
    codes : ndarray
        int8 (O, I); or uint8 (O, I / 2), in which 16 bytes hold a group: byte j has code j + 8 in its lower half and
        code j + 16, also plus 8, in its upper half.
    scales : ndarray (O, I / 32), bfloat16

    Attributes
    ----------
    dtype : str
        ``"int8"`` or ``"int4"``.
    shape : tuple of int
        (O, I).
    blocks : ndarray (B, G, 8 or 4, 16), uint32
        Four bytes of each of 16 outputs; bytes of int8 are codes plus 128. Outputs that are not there are 0.
    block_scales : ndarray (B, G, 16), bfloat16

    Examples
    --------
    >>> from wkvnp._dtypes import narrow
    >>> codes = np.arange(-32, 32, dtype=np.int8).reshape(2, 32)
    >>> matrix = Quantised(codes, narrow(np.array([[0.5], [2.0]]), "bfloat16"))
    >>> matrix, matrix.nbytes, matrix.widened()[:, :3]
    (<int8 matrix (2, 32)>, 68, array([[-16. , -15.5, -15. ],
           [  0. ,   2. ,   4. ]], dtype=float32))
    """

    __slots__ = ("block_scales", "blocks", "dtype", "shape")
    ndim = 2

    def __init__(self, codes: Array, scales: Array) -> None:
        self.dtype = "int8" if codes.dtype == np.int8 else "int4"
        self.shape = (codes.shape[0], codes.shape[1] * (1 if self.dtype == "int8" else 2))
        assert codes.dtype in (np.int8, np.uint8) and dtype_name(scales.dtype) == "bfloat16"
        assert scales.shape == (self.shape[0], self.shape[1] // GROUP) and self.shape[1] % GROUP == 0
        words = np.ascontiguousarray(codes).view(np.uint32)
        self.blocks = _side_by_side(words.reshape(*scales.shape, -1))
        self.block_scales = _side_by_side(scales)
        if self.dtype == "int8":
            self.blocks ^= _SIGNS
        self.blocks.flags.writeable = self.block_scales.flags.writeable = False

    @property
    def codes(self) -> Array:
        """The codes as they were given."""
        words = self.blocks ^ _SIGNS if self.dtype == "int8" else self.blocks
        return _in_rows(words, len(self)).view(np.int8 if self.dtype == "int8" else np.uint8)

    @property
    def scales(self) -> Array:
        """The scales as they were given."""
        return _in_rows(self.block_scales, len(self))

    def __repr__(self) -> str:
        return f"<{self.dtype} matrix {self.shape}>"

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> Quantised:
        """Return some of the rows, as a view if they begin with a block."""
        begin, stop, step = rows.indices(len(self))
        if begin % BLOCK_ROWS or step != 1:
            return Quantised(self.codes[rows], self.scales[rows])
        some = object.__new__(Quantised)
        blocks = slice(begin // BLOCK_ROWS, -(-stop // BLOCK_ROWS))
        some.dtype, some.shape = self.dtype, (max(0, stop - begin), self.shape[1])
        some.blocks, some.block_scales = self.blocks[blocks], self.block_scales[blocks]
        return some

    @property
    def size(self) -> int:
        """How many weights there are."""
        return int(self.shape[0] * self.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales, without those that fill the last block."""
        return self.size // (1 if self.dtype == "int8" else 2) + self.size // GROUP * 2

    def whole_numbers(self) -> Array:
        """Return the codes (O, I) as int8."""
        if self.dtype == "int8":
            return self.codes
        packed = self.codes.reshape(*self.scales.shape, _HALF)
        unpacked = np.concatenate([packed & 15, packed >> 4], axis=2).astype(np.int8) - np.int8(8)
        return unpacked.reshape(self.shape)

    def widened(self) -> Array:
        """Return the weights (O, I) in float32."""
        codes = self.whole_numbers().reshape(*self.scales.shape, GROUP)
        wide: Array = codes.astype(np.float32) * widen(self.scales)[..., None]
        return wide.reshape(self.shape)


def _side_by_side(rows: Array) -> Array:
    """Return rows (O, ...) as blocks (B, ..., 16), with zeros where the last one has none."""
    dtype, rows = rows.dtype, compiled_view(rows)
    (O, *shape), whole = rows.shape, len(rows) // BLOCK_ROWS
    blocks = aligned((-(-O // BLOCK_ROWS), *shape, BLOCK_ROWS), rows.dtype)
    blocks[:whole] = np.moveaxis(rows[: whole * BLOCK_ROWS].reshape(whole, BLOCK_ROWS, *shape), 1, -1)
    blocks[whole:] = 0
    blocks[whole:, ..., : O % BLOCK_ROWS] = np.moveaxis(rows[whole * BLOCK_ROWS :], 0, -1)
    return blocks.view(dtype)


def _in_rows(blocks: Array, outputs: int) -> Array:
    """Return blocks (B, ..., 16) as rows (O, ...), flat but for the outputs."""
    rows = np.ascontiguousarray(np.moveaxis(compiled_view(blocks), -1, 1)).view(blocks.dtype)
    return rows.reshape(len(blocks) * BLOCK_ROWS, math.prod(blocks.shape[1:-1]))[:outputs]


def packed(codes: Array) -> Array:
    """Return codes (O, I) from -8 to 7 as the bytes (O, I / 2) of an int4 matrix."""
    groups = (codes + np.int8(8)).view(np.uint8).reshape(len(codes), -1, 2, _HALF)
    return (groups[:, :, 0] | (groups[:, :, 1] << 4)).reshape(len(codes), -1)
