"""Which device arrays live on, read off the arrays themselves."""

from __future__ import annotations

from typing import Any, Literal

from .errors import DeviceError

Device = Literal["cpu", "cuda"]


def device_of(function: str, **arrays: Any) -> Device:
    """Return the one device that all `arrays` live on.

    Parameters
    ----------
    function : str
        Name of the caller, for the message.
    **arrays : array_like or None
        The arguments by name; None is skipped.

    Raises
    ------
    DeviceError
        If some live on a GPU and some do not, or if they live on a GPU and this version has no kernel for it.

    Examples
    --------
    >>> device_of("rwkv7", r=[0.5, 1.0])
    'cpu'
    """
    on_gpu = [name for name, array in arrays.items() if hasattr(array, "__cuda_array_interface__")]
    if not on_gpu:
        return "cpu"
    elsewhere = [name for name, array in arrays.items() if array is not None and name not in on_gpu]
    if elsewhere:
        raise DeviceError(
            f"{function}: all arrays must live on one device; "
            f"{', '.join(on_gpu)} on the GPU but {', '.join(elsewhere)} on the CPU"
        )
    raise DeviceError(f"{function}: {', '.join(on_gpu)} on the GPU, but this version computes on the CPU only")
