"""What this machine can do: figures that every other figure should be read beside.

Prefill is bound by matrix products, decoding by reading the weights once per token. Machines are noisy and differ, so
the other benchmarks are multiples of these, measured in turn with them in one process. Smaller is better everywhere,
as asv takes for granted.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np

from wkvnp import _threads


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


def times(call: Callable[[], object], unit: Callable[[], float], rounds: int = 3, repeats: int = 3) -> float:
    """Return how many times as long as `unit` a call takes.

    Both run in turn; `unit` returns seconds. Of each the best counts, since noise only ever slows.
    """
    call()
    measured = [(best_seconds(call, repeats), unit()) for _ in range(rounds)]
    ours, ideal = zip(*measured, strict=True)
    return min(ours) / min(ideal)


def sgemm_gflops(n: int = 1024) -> float:
    """Return the rate of a float32 matrix product, in 1e9 operations per second."""
    a = np.ones((n, n), np.float32)
    out = np.empty_like(a)
    return 2e-9 * n**3 / best_seconds(lambda: np.matmul(a, a, out=out))


def sgemv_gigabytes_per_second(mebibytes: int = 256) -> float:
    """Return the rate at which a float32 matrix larger than any cache is read by a matrix-vector product."""
    matrix, vector = _words(mebibytes).view(np.float32).reshape(-1, 1024), np.ones(1024, np.float32)
    return 1e-9 * matrix.nbytes / best_seconds(lambda: matrix @ vector)


def read_gigabytes_per_second(mebibytes: int = 256) -> float:
    """Return the rate at which all threads together read memory, with nothing to do but to add up what they read.

    On some machines one stream of words a thread is slower than BLAS, which reads several rows at once: the better
    of the two counts, since this is what others are measured by.
    """
    words, sums = _words(mebibytes), np.empty(64 * _threads.threads(), np.uint64)
    add_up = _adder()
    add_up(words, sums)
    plain = 1e-9 * words.nbytes / best_seconds(lambda: add_up(words, sums))
    return max(plain, sgemv_gigabytes_per_second(mebibytes))


@functools.cache
def _words(mebibytes: int) -> np.ndarray:
    return np.ones(mebibytes << 18, np.float32).view(np.uint64)


@functools.cache
def _adder() -> Callable[..., None]:
    """Return the loop, compiled after wkvnp has settled how threads behave."""
    _threads.share()
    import numba

    @numba.njit(parallel=True, cache=True)
    def add_up(words, sums):  # type: ignore[no-untyped-def]
        n = words.size // sums.size
        for block in numba.prange(sums.size):
            total = np.uint64(0)
            for i in range(block * n, (block + 1) * n):
                total += words[i]
            sums[block] = total

    return add_up


class Machine:
    """NumPy's own products, and plain reading."""

    def setup(self) -> None:
        self.a = np.ones((1024, 1024), np.float32)
        self.matrix, self.vector = np.ones((1 << 16, 1024), np.float32), np.ones(1024, np.float32)
        self.sums = np.empty(64 * _threads.threads(), np.uint64)
        self.time_reading_256_mebibytes()

    def time_product_of_1024_cubed(self) -> None:
        self.a @ self.a

    def time_product_of_256_mebibytes_and_a_vector(self) -> None:
        self.matrix @ self.vector

    def time_reading_256_mebibytes(self) -> None:
        _adder()(_words(256), self.sums)
