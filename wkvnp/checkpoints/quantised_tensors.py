"""Quantised matrices in safetensors: the codes under the matrix's name, and their scales beside them.

A file that says ``quantised`` in its metadata has for some matrices ``NAME`` (O, I), or (O, I / 2) bytes of int4, and
``NAME.scale`` (O, I / 32) in bfloat16. Elsewhere, whole numbers are not what a model has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from .._dtypes import widen
from .._quantised import GROUP, LARGEST, QUANTISED, Quantised
from ..errors import CheckpointError
from .tensors import Container, LazyTensor, quoted

KEY = "quantised"
FORMS = {f"{dtype}, groups of {GROUP}, version 1": dtype for dtype in QUANTISED}
"""What the metadata may say under `KEY`, and the dtype that it means."""
_SCALE = ".scale"
_STORED = {"int8": ("int8", 1), "int4": ("uint8", 2)}
"""In which dtype codes are stored, and how many of them in a byte."""


@dataclass(frozen=True, eq=False)
class QuantisedTensor(LazyTensor):
    """A matrix (O, I) of a checkpoint that is read as `Quantised`; its dtype is ``"int8"`` or ``"int4"``."""

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        O, I = self.shape
        return O * (I // _STORED[self.dtype][1] + 2 * (I // GROUP))

    def shaped(self, shape: tuple[int, ...]) -> LazyTensor:
        """Return the tensor itself: its shape must be the one asked for."""
        if shape != self.shape:
            raise CheckpointError(f"tensor {self.name} of shape {shape} must be floating point; got {self.dtype} codes")
        return self

    def read(self) -> Any:
        """Return the matrix, a view of the mapped file where possible."""
        return self.loader()

    def widened(self) -> LazyTensor:
        """Return the same matrix in float32."""
        return LazyTensor(self.name, self.shape, "float32", lambda: self.read().widened())


def tensor_of(name: str, array: Any) -> LazyTensor:
    """Wrap an array or a matrix that is already in memory."""
    if isinstance(array, Quantised):
        return QuantisedTensor(name, array.shape, array.dtype, lambda: cast(Any, array))
    return LazyTensor.of(name, array)


def joined(container: Container) -> Container:
    """Return a container in which codes and their scales are one tensor, if its metadata says that it has such.

    Raises
    ------
    CheckpointError
        If the metadata says it in an unknown way, or codes and scales do not fit.
    """
    if KEY not in container.metadata:
        return container
    source, form = str(container.path), container.metadata[KEY]
    if form not in FORMS:
        raise CheckpointError(f"{source}: {KEY} in the metadata must be one of {list(FORMS)}; got {quoted(form)}")
    dtype, tensors = FORMS[form], dict(container.tensors)
    for name, tensor in container.tensors.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in container.tensors:
            codes = container.tensors[name.removesuffix(_SCALE)]
            tensors[codes.name] = _joined(codes, tensors.pop(name), dtype, source)
        elif tensor.dtype in ("int8", "uint8") and name + _SCALE not in container.tensors:
            raise CheckpointError(
                f"{source}: tensor {quoted(name)} has {tensor.dtype} codes, but no {_SCALE} beside it"
            )
    return replace(container, tensors=tensors)


def _joined(codes: LazyTensor, scale: LazyTensor, dtype: str, source: str) -> QuantisedTensor:
    stored, in_byte = _STORED[dtype]
    shape = (codes.shape[0], in_byte * codes.shape[1]) if len(codes.shape) == 2 else ()
    if codes.dtype != stored or not shape or 0 in shape or shape[1] % GROUP:
        raise CheckpointError(
            f"{source}: tensor {quoted(codes.name)} must be {stored} of two axes, the last a multiple of "
            f"{GROUP // in_byte}; got {codes.dtype} {codes.shape}"
        )
    wanted = (shape[0], shape[1] // GROUP)
    if (scale.dtype, scale.shape) != ("bfloat16", wanted):
        raise CheckpointError(
            f"{source}: tensor {quoted(scale.name)} must be bfloat16 {wanted}; got {scale.dtype} {scale.shape}"
        )

    def load() -> Any:
        scales = scale.read()
        if not (np.abs(widen(scales)) <= LARGEST).all():
            raise CheckpointError(f"{source}: tensor {quoted(scale.name)} must hold finite numbers, 2**120 at most")
        return Quantised(codes.read(), scales)

    return QuantisedTensor(codes.name, shape, dtype, load)


def parts(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return arrays or tensors as a file has them, codes and scales apart, and what its metadata must say."""
    apart: dict[str, Any] = {}
    dtypes = set()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Quantised | QuantisedTensor):
            apart[name] = tensor
            continue
        dtypes.add(tensor.dtype)
        if isinstance(tensor, Quantised):
            apart[name], apart[name + _SCALE] = tensor.codes, tensor.scales
        else:
            apart[name], apart[name + _SCALE] = _codes(tensor), _scales(tensor)
    assert len(dtypes) <= 1
    described = [form for form, dtype in FORMS.items() if dtype in dtypes]
    return apart, {KEY: described[0]} if described else {}


def _codes(tensor: QuantisedTensor) -> LazyTensor:
    (O, I), (stored, in_byte) = tensor.shape, _STORED[tensor.dtype]
    return LazyTensor(tensor.name, (O, I // in_byte), stored, lambda: tensor.read().codes)


def _scales(tensor: QuantisedTensor) -> LazyTensor:
    O, I = tensor.shape
    return LazyTensor(tensor.name + _SCALE, (O, I // GROUP), "bfloat16", lambda: tensor.read().scales)
