"""Check the vocabulary of a ``tokenizer.json`` before the `tokenizers` package sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..checkpoints.strict_json import parse_object
from ..errors import CheckpointError, TokenizerError
from .text_steps import checked_steps

# The largest published vocabularies have 262,144 tokens.
_MOST_TOKENS = 1 << 21
_LONGEST_TOKEN = 1 << 14
# Beyond the number of tokens: ids that are left out.
_FREE_IDS = 1 << 16


def read_description(text: bytes, path: str) -> dict[str, Any]:
    """Return what a ``tokenizer.json`` says, checked.

    Raises
    ------
    TokenizerError
        It is damaged, or asks for what would take very much memory or time.
    """
    try:
        return checked_description(parse_object(text.lstrip(), path), path)
    except CheckpointError as error:
        raise TokenizerError(f"{path}: not a tokenizer.json: {str(error).removeprefix(path).lstrip(': ')}") from error


def checked_description(described: dict[str, Any], source: str) -> dict[str, Any]:
    """Return a description that the package can be given.

    Raises
    ------
    TokenizerError
        Naming what is wrong with it.
    """
    try:
        _check_model(described.get("model"), _added(described))
        _check_template(described.get("post_processor"))
        return checked_steps(described)
    except TokenizerError as error:
        raise TokenizerError(f"{source}: not a tokenizer.json that is read: {error}") from None


def _added(described: dict[str, Any]) -> dict[str, int]:
    """Return the ids of the added tokens."""
    tokens = described.get("added_tokens")
    if tokens is None:
        return {}
    added: dict[str, int] = {}
    for token in tokens if isinstance(tokens, list) else [tokens]:
        text, id = (token.get("content"), token.get("id")) if isinstance(token, dict) else (None, None)
        if not isinstance(text, str) or not text or type(id) is not int:
            raise TokenizerError(f"added_tokens must be a list of tokens with content and id; got {token!r:.100}")
        if text in added:
            raise TokenizerError(f"the added token {text!r:.60} appears twice")
        added[text] = id
    return added


def _check_template(processor: Any) -> None:
    """Check that the tokens which a template puts around a text are those that it describes."""
    several = processor.get("processors") if isinstance(processor, dict) else None
    for part in several if isinstance(several, list) else [processor]:
        if not isinstance(part, dict) or part.get("type") != "TemplateProcessing":
            continue
        known, used = part.get("special_tokens"), [part.get("single"), part.get("pair")]
        for piece in (piece for pieces in used if isinstance(pieces, list) for piece in pieces):
            token = piece.get("SpecialToken") if isinstance(piece, dict) else None
            id = token.get("id") if isinstance(token, dict) else token
            if id is not None and not (isinstance(id, str) and isinstance(known, dict) and id in known):
                raise TokenizerError(f"its post_processor has a token that it does not describe: {token!r:.60}")


def _check_model(model: Any, added: dict[str, int]) -> None:
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise TokenizerError(f"its model must be of type BPE; got {kind!r:.60}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise TokenizerError(f"{name} of its model must be absent; got {model[name]!r:.60}")
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        raise TokenizerError("its model must have a vocab and merges")
    _check_ids(vocabulary, added)
    _check_merges(merges, vocabulary)


def _check_ids(vocabulary: dict[str, Any], added: dict[str, int]) -> None:
    """Check that ids are not much larger than the number of tokens, and each of one token."""
    ids = vocabulary | {text: id for text, id in added.items() if text not in vocabulary}
    if len(ids) > _MOST_TOKENS:
        raise TokenizerError(f"it has {len(ids)} tokens; at most {_MOST_TOKENS} are read")
    most = len(ids) + _FREE_IDS
    for text, id in (*ids.items(), *added.items()):
        if type(id) is not int or not 0 <= id < most:
            raise TokenizerError(
                f"the id of token {text!r:.60} must be below {most}, for {len(ids)} tokens; got {id!r:.60}"
            )
        if len(text) > _LONGEST_TOKEN:
            raise TokenizerError(
                f"the token {text[:60]!r} has {len(text)} characters; at most {_LONGEST_TOKEN} are read"
            )
    twice = _first_twice(ids)
    if twice is not None:
        raise TokenizerError(f"the token {twice!r:.60} has the id {ids[twice]} of another token")


def _first_twice(ids: dict[str, int]) -> str | None:
    if len(set(ids.values())) == len(ids):
        return None
    seen: set[int] = set()
    return next(text for text, id in ids.items() if id in seen or seen.add(id))  # type: ignore[func-returns-value]


def _check_merges(merges: Iterable[Any], vocabulary: dict[str, int]) -> None:
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise TokenizerError(f"a merge must be of two tokens; got {merge!r:.100}")
        for text in (*pair, pair[0] + pair[1]):
            if text not in vocabulary:
                raise TokenizerError(
                    f"the merge {merge!r:.100} needs the token {text!r:.60}, which is not in the vocab"
                )
