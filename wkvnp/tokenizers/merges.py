"""Pieces with scores, as SentencePiece writes them, in the terms of BPE: which two become one, and which first."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import TokenizerError

_MOST_CHARACTERS = 1 << 24
_LONGEST = 256


def merges_of(pieces: Iterable[tuple[str, float]], source: str) -> list[list[str]]:
    """Return all pairs of pieces that make a piece, those of the highest score first.

    Of two ways to make a piece the one with the longer left part comes first; in a run of one character, that is the
    leftmost. BPE then gives what merging by scores gives, as long as no two pieces have the same score (SentencePiece
    writes them so); of such pieces llama.cpp takes the leftmost, BPE always the same one first.

    Raises
    ------
    TokenizerError
        The pieces are absurdly long.

    Examples
    --------
    >>> merges_of([("a", 0), ("b", 0), ("ab", -1), ("abb", -2), ("bb", -3)], "example")
    [['a', 'b'], ['ab', 'b'], ['a', 'bb'], ['b', 'b']]
    """
    scores = {text: score for text, score in pieces if len(text) <= _LONGEST}
    if sum(map(len, scores)) > _MOST_CHARACTERS:
        raise TokenizerError(f"{source}: its tokens have more than {_MOST_CHARACTERS} characters")
    found = []
    for text, score in scores.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in scores and right in scores:
                found.append((-score, -cut, cut - len(text), left, right))
    found.sort(key=lambda merge: merge[:3])
    return [[left, right] for *_, left, right in found]
