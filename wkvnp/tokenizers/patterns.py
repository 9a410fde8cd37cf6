r"""Which regular expressions of a ``tokenizer.json`` are run: those that take time in proportion to the text.

The `tokenizers` package runs them by backtracking, so one expression can take hours for a page of text: ``(a+)+$`` by
its nested quantifiers, ``a+b`` because it reads a run of ``a`` anew from each of its letters. Accepted is what never
gives up after an endless run, which is what published vocabularies have:

- alternatives of parts in a row: characters, classes, escapes, groups, lookarounds; a group may be optional, but is
  not repeated, and holds nothing endless (``*``, ``+``, ``{n,}``);
- in an alternative, all that follows an endless part is optional, so that it has succeeded by then: ``\s?\p{L}+``,
  `` ?[^\s\p{L}\p{N}]+[\r\n]*``;
- or it is ``\s+(?!\S)``, or one of these, where another alternative, the next one or one before it, takes the run:
  ``\s*[\r\n]+`` or ``\s*[\r\n]`` beside ``\s+`` or ``\s+(?!\S)``; ``x*y+`` beside ``x+y*``.

``\s+$`` is run as ``(?<!\s)\s+$``, which finds the same.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import TokenizerError

# Per expression: characters, groups in groups, and steps at one place of a text that are not those of an endless part.
_LENGTH, _DEPTH, _STEPS = 4096, 4, 2048
_ATOM = re.compile(
    r"""\\[pP]\{\^?\w+\} | \\x\{[0-9a-fA-F]{1,6}\} | \\x[0-9a-fA-F]{2} | \\u[0-9a-fA-F]{4} | \\[sSdDwWhHbBAzZrntfve0]
      | \\[^\w\s] | [^\\()\[\]{}|*+?]""",
    re.VERBOSE,
)
_CLASS = re.compile(
    r"\[\^?(?:\\[pP]\{\^?\w+\}|\\x\{[0-9a-fA-F]{1,6}\}|\\[sSdDwWhHrntfvexu0]|\\[^\w\s]|[^\\\[\]&]|&(?!&))+\]"
)
_QUANTIFIER = re.compile(r"([?*+])[?+]?|\{([0-9]{1,4})?(,)?([0-9]{1,4})?\}")
_GROUP = re.compile(r"\((?:\?(?::|i:|=|!|<=|<!|>))?(?!\?)")
_WHOLE = {r"\s+$": r"(?<!\s)\s+$"}
_BLANKS = (r"\s+", r"\s+(?!\S)")
_LINES = (r"\s*[\r\n]+", r"\s*[\r\n]", "\\s*[\r\n]+", "\\s*[\r\n]")


@dataclass(frozen=True)
class _Part:
    text: str
    atom: str
    most: float
    """Repetitions at most; inf for an endless part."""
    optional: bool
    ways: int
    """In which a backtracking engine can match it."""
    span: int
    """The most characters that it reads, if it is not endless."""


def linear(pattern: str) -> str:
    r"""Return the expression to run for one of a file.

    Raises
    ------
    TokenizerError
        It is none of those above.

    Examples
    --------
    >>> linear(r" ?\p{L}+|\s+(?!\S)|\s+")
    ' ?\\p{L}+|\\s+(?!\\S)|\\s+'
    >>> linear("(a+)+$")
    Traceback (most recent call last):
    wkvnp.errors.TokenizerError: '(a+)+$' may take very long: 'a+' in a group is endless
    """
    if pattern in _WHOLE:
        return _WHOLE[pattern]
    try:
        if not 0 < len(pattern) <= _LENGTH:
            raise TokenizerError(f"it must have 1 to {_LENGTH} characters")
        reader = _Reader(pattern)
        alternatives = reader.alternatives(0)
        if reader.at < len(pattern):
            raise TokenizerError(f"it is not understood from {pattern[reader.at :][:20]!r} on")
        if sum(ways * span for ways, span in map(_size, alternatives)) > _STEPS:
            raise TokenizerError("it has too many repetitions or optional parts")
        texts = ["".join(part.text for part in parts) for parts in alternatives]
        for n, parts in enumerate(alternatives):
            _check(parts, texts[n], texts[: n + 2])
    except TokenizerError as error:
        raise TokenizerError(f"{pattern!r:.100} may take very long: {error}") from None
    return pattern


def _check(parts: list[_Part], text: str, others: list[str]) -> None:
    """Refuse an alternative that can give up after it has read an endless run."""
    first = next((n for n, part in enumerate(parts) if part.most == math.inf), len(parts))
    after = parts[first + 1 :]
    if all(part.optional for part in after) or text == _BLANKS[1]:
        return
    if text in _LINES and any(blank in others for blank in _BLANKS):
        return
    run, then = parts[first], after[0]
    if run.text == run.atom + "*" and then.text == then.atom + "+" and all(part.optional for part in after[1:]):
        before = "".join(part.text for part in parts[:first])
        if f"{before}{run.atom}+{then.atom}*{''.join(part.text for part in after[1:])}" in others:
            return
    raise TokenizerError(f"in {text!r:.60} something must follow the endless {run.text!r:.40}")


def _size(parts: list[_Part]) -> tuple[int, int]:
    """Return the ways to match parts in a row, and their length."""
    return math.prod(part.ways for part in parts), sum(part.span for part in parts)


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def alternatives(self, depth: int) -> list[list[_Part]]:
        found: list[list[_Part]] = [[]]
        while self.at < len(self.pattern) and self.pattern[self.at] != ")":
            if self.pattern[self.at] == "|":
                self.at += 1
                found.append([])
            else:
                found[-1].append(self.part(depth))
        return found

    def part(self, depth: int) -> _Part:
        start = self.at
        ways, span, single = 1, 1, True
        if match := _GROUP.match(self.pattern, start):
            ways, span = self.group(match, depth)
            single = False
        elif match := _CLASS.match(self.pattern, start) or _ATOM.match(self.pattern, start):
            self.at = match.end()
        else:
            raise TokenizerError(f"it is not understood from {self.pattern[start:][:20]!r} on")
        atom = self.pattern[start : self.at]
        least, most = self.quantifier()
        if most != 1 and not single and most > 1:
            raise TokenizerError(f"a group is repeated, {self.pattern[start : self.at]!r:.40}")
        text = self.pattern[start : self.at]
        if most == math.inf:
            return _Part(text, atom, most, least == 0, 1, least)
        return _Part(text, atom, most, least == 0, ways * (int(most) - least + 1), span * int(most))

    def group(self, match: re.Match[str], depth: int) -> tuple[int, int]:
        """Read a group; return the ways to match it, and its length."""
        if depth == _DEPTH:
            raise TokenizerError(f"groups are nested more than {_DEPTH} deep")
        self.at = match.end()
        inside = self.alternatives(depth + 1)
        if self.pattern[self.at : self.at + 1] != ")":
            raise TokenizerError("a group has no end")
        self.at += 1
        for parts in inside:
            for part in parts:
                if part.most == math.inf:
                    raise TokenizerError(f"{part.text!r:.40} in a group is endless")
        sizes = [_size(parts) for parts in inside]
        return sum(ways for ways, _ in sizes), max(span for _, span in sizes)

    def quantifier(self) -> tuple[int, float]:
        match = _QUANTIFIER.match(self.pattern, self.at)
        if match is None:
            return 1, 1
        self.at = match.end()
        sign, low, comma, high = match.groups()
        if sign is not None:
            return (1 if sign == "+" else 0), (1 if sign == "?" else math.inf)
        if low is None and high is None:
            raise TokenizerError(f"{match[0]!r} is no repetition")
        least = int(low or 0)
        most = least if comma is None else int(high) if high is not None else math.inf
        if most < least or self.pattern[self.at : self.at + 1] in ("?", "+", "*", "{"):
            raise TokenizerError(f"the repetition {match[0]!r} is not understood")
        return least, most
