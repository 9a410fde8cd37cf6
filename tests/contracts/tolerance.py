"""How far results may be from the oracle: the one table, with the reason of each number.

Signed sums cancel, so an error is measured against the size of the whole answer: `rms` is the root mean square of the
error over that of the oracle, `peak` the largest error over the largest oracle value at the same position.
"""

from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    rms: float
    peak: float


SCAN = {
    # 24 bits a number and some K roundings a sum, damped by the decays: measured 1e-7, held to the bar of the issue.
    "float32": Tolerance(5e-6, 5e-5),
    # The witness: same order of sums as the oracle up to reassociation.
    "float64": Tolerance(1e-12, 1e-11),
}

FADED = Tolerance(2e-5, 5e-5)
"""float32, each position alone: a constant decay near 1 rounds the same way at every token, by up to half a unit of the
last place, 6e-8."""

LOGITS = 2e-5
"""Golden models in float32: the original implementation differs from itself by 1e-5 between its own two modes."""

CUT = 1e-5
"""Logits of one prompt in pieces or batches: products of other sizes sum in another order."""

CUT_QWEN3_NEXT = 6e-5
"""The same for a tiny random Qwen3-Next, whose queries and keys are short before they get length one: pieces and whole
are each off from float64 by 3e-5 for some prompts."""

CUT_HYBRID = 2e-5
"""The same for a random hybrid of eight layers with logits up to 3.4. With AVX2, without a matrix unit, a prompt is off
from float64 by 7e-6, and pieces of it by 3e-6 and more."""


def assert_close(actual: np.ndarray, oracle: np.ndarray, tolerance: Tolerance, what: str = "y") -> None:
    """Compare with the time axis first."""
    assert actual.shape == oracle.shape, f"{what}: {actual.shape} is not {oracle.shape}"
    if not oracle.size:
        return
    error = np.abs(actual.astype(np.result_type(actual, np.float64)) - oracle)
    scale = np.sqrt(np.mean(np.abs(oracle) ** 2))
    rms = np.sqrt(np.mean(error**2)) / (scale or 1.0)
    assert rms <= tolerance.rms, f"{what}: relative RMS error {rms:.2e} is over {tolerance.rms:.0e}"
    flat, reference = error.reshape(len(error), -1), np.abs(oracle).reshape(len(oracle), -1)
    peak = (flat.max(1) / np.maximum(reference.max(1), 1e-3 * (scale or 1.0))).max()
    assert peak <= tolerance.peak, f"{what}: error {peak:.2e} of a position is over {tolerance.peak:.0e}"
