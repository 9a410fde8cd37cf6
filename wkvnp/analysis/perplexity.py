"""How well does a model predict a text?

Letters: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._arguments import check_roles, named
from .._logits import peaks_of
from ..errors import ArgumentError, ShapeError
from ..tokenizers.plain_text import plain_encoder

if TYPE_CHECKING:
    from ..models.language_model import Model
    from ..models.state import State
    from ..tokenizers import Tokenizer

# Rows of logits that are turned into float64 at once: 16 rows of 65,536 are 8 MB.
ROWS = 16


@dataclass(frozen=True, eq=False)
class Score:
    """What `score` found: one entry per scored token, and the sums.

    Attributes
    ----------
    tokens : array, int64, shape (T,)
        The scored tokens.
    logprobs : array, float64, shape (T,)
        Natural logarithm of each token's probability given everything before it.
    ranks : array, int64, shape (T,)
        How many tokens were more probable; 0 is the model's first choice.
    pieces : tuple of bytes
        The bytes that each token stands for.
    context : int
        The token before the first scored one.
    state : State
        The state after all tokens but the last, so that
        ``score(model, tokenizer, more, bos=s.tokens[-1], state=s.state)`` goes on.
    """

    tokens: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float64]
    ranks: npt.NDArray[np.int64]
    pieces: tuple[bytes, ...] = field(repr=False)
    context: int
    state: State = field(repr=False)

    @cached_property
    def nats(self) -> float:
        """The text's information content: minus the sum of the log-probabilities."""
        return -math.fsum(self.logprobs)

    @cached_property
    def n_bytes(self) -> int:
        """The bytes of all scored tokens."""
        return sum(map(len, self.pieces))

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text; unlike the perplexity it compares models with different vocabularies."""
        return self.nats / math.log(2) / self.n_bytes if self.n_bytes else math.nan

    @property
    def perplexity(self) -> float:
        """Exp of the mean nats per token."""
        mean = self.nats / len(self.tokens)
        return math.exp(mean) if mean < 709 else math.inf

    @property
    def top1(self) -> float:
        """The part of the tokens that were the model's first choice."""
        return float(np.mean(self.ranks == 0))


@named
def score(
    model: Model,
    tokenizer: Tokenizer,
    text: str | Sequence[int] | npt.NDArray[np.integer[Any]],
    *,
    bos: int | None = None,
    state: State | None = None,
    chunk: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Score:
    """Return the probability that a model gives to every token of a text.

    Parameters
    ----------
    model : Model
        From `wkvnp.load` or `wkvnp.random_model`.
    tokenizer : Tokenizer
        From `wkvnp.load_tokenizer`.
    text : str or sequence of int
        The text, or its token ids. Control tokens that are written out in a text stay text; give
        ``tokenizer.encode(text)`` to score them as what they stand for.
    bos : int, optional
        A token to feed first, so that the first token of the text is scored too. By default what the vocabulary puts
        before a text, else its end of text (that is how documents begin in training). Where there is neither, or a
        `state` is given, the first token of the text is only context: it is not scored, and no count includes it.
    state : State, optional
        Continue from here; one sequence. By default a fresh one.
    chunk : int
        Logits are computed for this number of tokens at a time: memory grows with it, not with the text.
    progress : callable, optional
        Called as ``progress(done, total)`` with numbers of tokens.

    Returns
    -------
    Score
        Per token and in total.

    Raises
    ------
    ArgumentError
        If there is no token to score.

    Notes
    -----
    The logarithm of the softmax is taken in float64. Bytes are those the tokens stand for; a vocabulary that
    normalises the text first may have a few more or fewer than the text.

    Examples
    --------
    >>> import wkvnp
    >>> model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    >>> result = wkvnp.score(model, wkvnp.load_tokenizer("bytes"), "Hello")
    >>> result.n_bytes, result.tokens, result.bits_per_byte > 5
    (4, array([101, 108, 108, 111]), True)
    """
    check_roles("score", model, tokenizer, "text")
    begins = state is None and hasattr(tokenizer, "begin")
    opening = plain_encoder(tokenizer, begins=True)("") if begins else np.empty(0, np.int32)
    ids = _ids(plain_encoder(tokenizer, begins=begins)(text)[len(opening) :] if isinstance(text, str) else text)
    if isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1:
        raise ArgumentError(f"score: chunk must be an integer of at least 1; got {chunk!r}")
    if bos is None and state is None:
        bos = int(opening[-1]) if len(opening) else tokenizer.end_of_text
    if bos is not None:
        ids = np.concatenate([[int(bos)], ids])
    if len(ids) < 2:
        raise ArgumentError(
            "score: text must hold at least one token to score"
            + (" after the first, which is only context unless bos= is given" if bos is None else "")
            + f"; got {len(ids) if bos is None else 0} tokens"
        )
    inputs, targets = ids[:-1], ids[1:]
    logprobs, ranks = np.empty(len(targets)), np.empty(len(targets), np.int64)
    for begin in range(0, len(inputs), int(chunk)):
        part = slice(begin, min(begin + int(chunk), len(inputs)))
        logits, state = model(inputs[part], state, logits="all")
        logprobs[part], ranks[part] = _judge(logits, targets[part])
        if progress is not None:
            progress(part.stop, len(inputs))
    assert state is not None
    pieces = tuple(tokenizer.token_bytes(int(token)) for token in targets)
    return Score(targets, logprobs, ranks, pieces, int(ids[0]), state)


def _judge(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return log-probability and rank of one target per row of logits, shape (T, V)."""
    logprobs, ranks = np.empty(len(targets)), np.empty(len(targets), np.int64)
    for begin in range(0, len(targets), ROWS):
        part = slice(begin, begin + ROWS)
        scores = logits[part].astype(np.float64)
        chosen = np.take_along_axis(scores, targets[part, None], axis=1)
        ranks[part] = (scores > chosen).sum(axis=1)
        peak = peaks_of(scores)
        chosen -= peak
        np.exp(scores - peak, out=scores)
        logprobs[part] = chosen[:, 0] - np.log(scores.sum(axis=1))
    return logprobs, ranks


def _ids(text: Any) -> npt.NDArray[np.int64]:
    tokens = np.asarray(text)
    if tokens.ndim != 1 or (tokens.size and not np.issubdtype(tokens.dtype, np.integer)):
        raise ShapeError(
            f"score: text must be text or token ids of shape (T,); got shape {tokens.shape} of dtype {tokens.dtype}"
        )
    return tokens.astype(np.int64)
