"""What this machine can do: figures that every other figure should be read beside.

Prefill is bound by matrix products, decoding by reading the weights once per token.
"""

from __future__ import annotations

import time

import numpy as np


def best_seconds(call: object, repeats: int = 7) -> float:
    """Return the shortest of several runs of a function without arguments.

    Then wait: the threads of NumPy's BLAS go on spinning for a while after a product, on processors that whatever is
    measured next would need.
    """
    assert callable(call)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    time.sleep(0.25)
    return min(seconds)


def sgemm_gflops(n: int = 1024) -> float:
    """Return the rate of a float32 matrix product, in 1e9 operations per second."""
    a = np.ones((n, n), np.float32)
    out = np.empty_like(a)
    return 2e-9 * n**3 / best_seconds(lambda: np.matmul(a, a, out=out))


def sgemv_gigabytes_per_second(mebibytes: int = 256) -> float:
    """Return the rate at which a float32 matrix larger than any cache is read by a matrix-vector product."""
    matrix = np.ones((mebibytes * 256, 1024), np.float32)
    vector = np.ones(1024, np.float32)
    return 1e-9 * matrix.nbytes / best_seconds(lambda: matrix @ vector)


class Machine:
    """The rates of NumPy's own matrix product and matrix-vector product."""

    def track_sgemm(self) -> float:
        """Measure a 1024 x 1024 x 1024 product in float32."""
        return sgemm_gflops()

    track_sgemm.unit = "GFLOP/s"  # type: ignore[attr-defined]

    def track_sgemv(self) -> float:
        """Measure how fast a 256 MiB matrix is read."""
        return sgemv_gigabytes_per_second()

    track_sgemv.unit = "GB/s"  # type: ignore[attr-defined]
