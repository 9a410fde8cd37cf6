"""Reading the arguments of `generate`: every message says which one, what it must be and what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ShapeError, TokenizerError

if TYPE_CHECKING:
    from ..tokenizers import Tokenizer

Ids = npt.NDArray[np.int64]


def read_prompts(prompt: Any, tokenizer: Tokenizer, begins: bool) -> tuple[list[Ids], bool]:
    """Return the token ids of every prompt, which may be the beginning of a text, and whether a batch was given."""
    encode = getattr(tokenizer, "begin", tokenizer.encode) if begins else tokenizer.encode
    if isinstance(prompt, str):
        return [_ids(prompt, encode, "prompt")], False
    if not isinstance(prompt, (list, tuple, np.ndarray)):
        raise ArgumentError(f"generate: prompt must be text, token ids or a list of these; got {type(prompt).__name__}")
    if all(isinstance(item, (int, np.integer)) for item in prompt):
        return [_ids(prompt, encode, "prompt")], False
    return [_ids(item, encode, f"prompt[{i}]") for i, item in enumerate(prompt)], True


def _ids(prompt: Any, encode: Callable[[str], npt.NDArray[Any]], name: str) -> Ids:
    if isinstance(prompt, str):
        tokens = np.asarray(encode(prompt))
    else:
        tokens = np.asarray(prompt)
        if tokens.ndim != 1 or (tokens.size and not np.issubdtype(tokens.dtype, np.integer)):
            raise ShapeError(
                f"generate: {name} must be text or token ids of shape (T,); "
                f"got shape {tokens.shape} of dtype {tokens.dtype}"
            )
    if not tokens.size:
        raise ArgumentError(
            f"generate: {name} must not be empty: the first token is drawn from the logits after the prompt's last "
            "token, which a state does not hold; feed at least one token (end of text starts a fresh document)"
        )
    return tokens.astype(np.int64)


def read_stops(stop: str | Iterable[str]) -> tuple[str, ...]:
    """Return the stop strings; one may be given as it is."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise ArgumentError(f"generate: stop must be text of at least one character, or several; got {text!r}")
    return stops


def read_stop_tokens(stop_tokens: Iterable[int] | None, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that end a text; by default those of the tokenizer, else its end of text."""
    stop_tokens = getattr(tokenizer, "stop_tokens", None) if stop_tokens is None else stop_tokens
    if stop_tokens is not None:
        return frozenset(map(int, stop_tokens))
    return frozenset() if tokenizer.end_of_text is None else frozenset((tokenizer.end_of_text,))


def read_bans(ban: Iterable[int], vocab_size: int, tokenizer: Tokenizer) -> Ids:
    """Return the ids that are never drawn: those given, and the last ones if the tokenizer has no text for them."""
    ids = [int(token) for token in ban]
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ArgumentError(f"generate: ban must hold token ids from 0 to {vocab_size - 1}; got {token}")
    return np.array(ids + list(_without_text(vocab_size, tokenizer)), np.int64)


def _without_text(vocab_size: int, tokenizer: Tokenizer) -> Iterator[int]:
    """Yield the ids at the end of the vocabulary that the tokenizer does not know."""
    for token in range(vocab_size - 1, -1, -1):
        try:
            tokenizer.token_bytes(token)
        except TokenizerError:
            yield token
        else:
            return


def read_integer(name: str, value: Any, least: int) -> int:
    """Return an integer argument, or say what it must be."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(f"generate: {name} must be an integer of at least {least}; got {value!r}")
    return int(value)


def read_number(name: str, value: Any) -> float:
    """Return a number argument, or say what it must be."""
    if not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise ArgumentError(f"generate: {name} must be a finite number; got {value!r}")
    return float(value)
