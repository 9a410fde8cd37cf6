"""One token per byte: nothing to load, nothing unknown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .table import TableTokenizer


class ByteTokenizer(TableTokenizer):
    """The 256 bytes as token ids.

    Examples
    --------
    >>> ByteTokenizer().encode('"in')
    array([ 34, 105, 110], dtype=int32)
    """

    reach = 1

    def __init__(self) -> None:
        super().__init__("bytes", [bytes((byte,)) for byte in range(256)])

    def encode(self, text: str, special: bool = True) -> npt.NDArray[np.int32]:
        """Return the UTF-8 bytes of `text` as ids, int32."""
        return self.encode_bytes(self._utf8(text))

    def encode_bytes(self, data: bytes) -> npt.NDArray[np.int32]:
        """Return the bytes of `data` as ids, int32."""
        return np.frombuffer(data, np.uint8).astype(np.int32)
