"""From logits to one token id.

The order of the steps is that of the original RWKV code: probabilities first, then top-p, then top-k, and the
temperature last, so that it never changes *which* tokens survive. Letters: V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._logits import peaks_of
from ..errors import ArgumentError, ShapeError

Floats = npt.NDArray[np.float64]


def softmax(logits: npt.ArrayLike) -> Floats:
    """Return the probabilities exp(l_i) / sum_j exp(l_j), computed in float64.

    Parameters
    ----------
    logits : array, shape (V,)
        Real numbers; minus infinity forbids a token.

    Returns
    -------
    array, shape (V,), float64
        Probabilities that sum to 1.

    Raises
    ------
    ArgumentError
        If a logit is NaN or plus infinity, or if all are minus infinity.

    Examples
    --------
    >>> softmax([0.0, 0.0, -np.inf])
    array([0.5, 0.5, 0. ])
    """
    scores = np.asarray(logits, np.float64)
    weights: Floats = scores - _peak(scores)
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def log_probability(logits: npt.ArrayLike, token: int) -> float:
    """Return the natural logarithm of one token's probability under the softmax of the logits.

    Examples
    --------
    >>> round(log_probability([0.0, 0.0, 0.0, 0.0], 2), 4)
    -1.3863
    """
    scores = np.asarray(logits, np.float64)
    peak = _peak(scores)
    return float(scores[token] - peak - math.log(np.exp(scores - peak).sum()))


def keep_top_p(probabilities: Floats, top_p: float) -> Floats:
    """Set to zero what is less probable than the smallest set of tokens that holds the mass `top_p`.

    The cutoff is the probability at which the descending cumulative sum first reaches `top_p`; tokens with the same
    probability survive. Unlike the original code, ``top_p >= 1`` keeps everything: there a sum that rounding left below
    1 turned the sampler greedy.

    Parameters
    ----------
    probabilities : array, shape (V,), float64
        Probabilities that sum to 1.
    top_p : float
        The mass to keep, at least 0. With 0 only the most probable token is left (and its ties).

    Returns
    -------
    array, shape (V,), float64
        The same numbers, or zero; not normalised again.

    Examples
    --------
    >>> keep_top_p(np.array([0.5, 0.1, 0.1, 0.3]), 0.75)
    array([0.5, 0. , 0. , 0.3])
    """
    if top_p >= 1:
        return probabilities
    return np.where(probabilities >= _cutoff(probabilities, top_p), probabilities, 0.0)


def keep_top_k(probabilities: Floats, top_k: int) -> Floats:
    """Set to zero all but the `top_k` most probable tokens; among equals the lower ids stay. 0 keeps everything.

    Examples
    --------
    >>> keep_top_k(np.array([0.2, 0.4, 0.2, 0.2]), 2)
    array([0.2, 0.4, 0. , 0. ])
    """
    candidates = np.flatnonzero(probabilities > 0)
    if top_k <= 0 or top_k >= candidates.size:
        return probabilities
    values = probabilities[candidates]
    smallest = np.partition(values, values.size - top_k)[values.size - top_k]
    above = candidates[values > smallest]
    level = candidates[values == smallest][: top_k - above.size]
    kept = np.zeros_like(probabilities)
    kept[above] = probabilities[above]
    kept[level] = smallest
    return kept


def sharpen(probabilities: Floats, temperature: float) -> Floats:
    """Return p^(1/temperature), normalised: below 1 the probable gain, above 1 the improbable do; zeros stay zero.

    Examples
    --------
    >>> sharpen(np.array([0.6, 0.3, 0.1, 0.0]), 0.5).round(4)
    array([0.7826, 0.1957, 0.0217, 0.    ])
    """
    if temperature == 1:
        sharpened = probabilities.copy()
    else:
        alive = np.flatnonzero(probabilities > 0)
        sharpened = np.zeros_like(probabilities)
        # Relative to the largest, so that a small temperature cannot drive every power to zero.
        sharpened[alive] = (probabilities[alive] / probabilities.max()) ** (1.0 / temperature)
    sharpened /= sharpened.sum()
    return sharpened


def draw(probabilities: Floats, rng: np.random.Generator) -> int:
    """Draw one token id; takes exactly one ``rng.random()``. The probabilities need not sum to 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> [draw(np.array([0.25, 0.0, 0.75]), rng) for _ in range(5)]
    [2, 2, 0, 0, 2]
    """
    sums = np.cumsum(probabilities)
    # "right" steps over tokens of probability zero; the sum may be reached by rounding, hence the clamp.
    place = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
    return min(place, int(np.searchsorted(sums, sums[-1])))


def distribution(logits: npt.ArrayLike, *, temperature: float = 1.0, top_p: float = 0.85, top_k: int = 0) -> Floats:
    """Return the probabilities that a token is drawn from: softmax, top-p, top-k, temperature, in this order.

    Parameters
    ----------
    logits : array, shape (V,)
        What the model returned, after bans and penalties.
    temperature : float
        At least 0. 0 is greedy: the largest logit, and among equals the lowest id, gets probability 1.
    top_p : float
        At least 0; 1 or more keeps everything. See `keep_top_p`.
    top_k : int
        At least 0; 0 keeps everything. See `keep_top_k`.

    Returns
    -------
    array, shape (V,), float64
        Probabilities that sum to 1.

    Raises
    ------
    ArgumentError
        If an argument is out of its range, or no logit is finite.

    References
    ----------
    ``PIPELINE.sample_logits`` of the `rwkv` package.

    Examples
    --------
    >>> distribution([2.0, 1.0, 0.0, -1.0], top_p=0.8, temperature=0.5).round(4)
    array([0.8808, 0.1192, 0.    , 0.    ])
    """
    check_sampling("distribution", temperature=temperature, top_p=top_p, top_k=top_k)
    full = np.zeros(np.shape(logits))
    if temperature == 0:
        full[_greedy(logits)] = 1.0
    else:
        tokens, probabilities = _survivors(logits, temperature, top_p, top_k)
        full[tokens] = probabilities
    return full


def sample(
    logits: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    temperature: float = 1.0,
    top_p: float = 0.85,
    top_k: int = 0,
) -> int:
    """Draw one token id from `distribution`; a temperature of 0 takes nothing from `rng`.

    Examples
    --------
    >>> sample([0.0, 3.0, 3.0], np.random.default_rng(0), temperature=0)
    1
    """
    check_sampling("sample", temperature=temperature, top_p=top_p, top_k=top_k)
    if temperature == 0:
        return _greedy(logits)
    tokens, probabilities = _survivors(logits, temperature, top_p, top_k)
    return int(tokens[draw(probabilities, rng)])


class Repetition:
    """The penalties on tokens that were already written.

    Every written token n carries a weight o_n, and logit n is lowered by ``presence + o_n * frequency``. After each
    token all weights are multiplied by `decay`; then the new token's weight grows by one, or stays (but exists) if
    its text is made of blanks and digits only. The prompt counts for nothing.
    """

    def __init__(self, vocab_size: int, presence: float, frequency: float, decay: float) -> None:
        self.presence, self.frequency, self.decay = presence, frequency, decay
        self.active = presence != 0 or frequency != 0
        self._seen = np.zeros(vocab_size if self.active else 0, bool)
        self._weights = np.zeros(vocab_size if self.active else 0)

    def penalise(self, logits: Floats) -> Floats:
        """Return the lowered logits."""
        if not self.active:
            return logits
        return logits - np.where(self._seen, self.presence + self._weights * self.frequency, 0.0)

    def note(self, token: int, text: str) -> None:
        """Take in a written token and the text of this token alone."""
        if not self.active:
            return
        self._weights *= self.decay
        self._weights[token] += text not in " \t0123456789"
        self._seen[token] = True


def check_sampling(caller: str, *, temperature: float, top_p: float, top_k: int) -> None:
    """Raise ShapeError unless the three numbers are in their range."""
    if not (isinstance(temperature, (int, float, np.number)) and 0 <= temperature < math.inf):
        raise ArgumentError(f"{caller}: temperature must be a number of at least 0; got {temperature!r}")
    if not (isinstance(top_p, (int, float, np.number)) and top_p >= 0):
        raise ArgumentError(f"{caller}: top_p must be a number of at least 0 (1 keeps everything); got {top_p!r}")
    if not (isinstance(top_k, (int, np.integer)) and top_k >= 0):
        raise ArgumentError(f"{caller}: top_k must be an integer of at least 0 (0 keeps everything); got {top_k!r}")


def _peak(scores: npt.NDArray[Any]) -> float:
    if scores.ndim != 1 or not scores.size:
        raise ShapeError(f"logits must have shape (V,) with V of at least 1; got {scores.shape}")
    return float(peaks_of(scores)[0])


def _greedy(logits: npt.ArrayLike) -> int:
    scores = np.asarray(logits)
    _peak(scores)
    return int(scores.argmax())


def _survivors(
    logits: npt.ArrayLike, temperature: float, top_p: float, top_k: int
) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return the tokens that top-p leaves, ascending, and their final probabilities.

    After top-p only these few are looked at: of a large vocabulary that saves most of the time.
    """
    if top_p >= 1 and top_k == 0:  # with nothing cut off, the power of the softmax is a softmax: four times faster
        scores = np.asarray(logits, np.float64)
        with np.errstate(over="ignore"):
            return np.arange(scores.size), softmax((scores - _peak(scores)) / temperature)
    probabilities = softmax(logits)
    cutoff = _cutoff(probabilities, top_p) if top_p < 1 else 0.0
    tokens = np.flatnonzero(probabilities >= cutoff)
    return tokens, sharpen(keep_top_k(probabilities[tokens], top_k), temperature)


def _cutoff(probabilities: Floats, top_p: float) -> float:
    """Return the probability at the first place where the descending cumulative sum reaches `top_p`.

    Only what can matter is sorted. The first floor is a guess that suffices for a confident model. The second is
    certain up to rounding: what lies below (1 - top_p) / V cannot add up to 1 - top_p.
    """
    floors = (float(probabilities.max()) / 64, 0.999 * (1 - top_p) / probabilities.size, 0.0)
    for floor in floors:
        candidates = probabilities[np.flatnonzero(probabilities >= floor)]
        if floor and candidates.sum() < top_p:
            continue
        candidates = np.sort(candidates)[::-1]
        sums = np.cumsum(candidates)
        if sums[-1] >= top_p:
            return float(candidates[np.searchsorted(sums, top_p)])
    return float(candidates[-1])
