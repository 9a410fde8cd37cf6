"""Finding stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Iterable


class StopWatch:
    r"""Lets text through until a stop string appears, and never lets even a part of one through.

    Text that could be the beginning of a stop string is held back until it is clear that it is not. The stop
    string that is complete first counts (of two that end together, the longer), so the result does not depend on
    how the text was cut into pieces.

    Examples
    --------
    >>> watch = StopWatch(["\n\n"])
    >>> [watch.feed(text) for text in ("One\n", "two", ".\n", "\nThree")]
    ['One', '\ntwo', '.', '']
    >>> watch.stopped
    True
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self.stops = tuple(stops)
        self.held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take in a piece of text and return what may be shown by now."""
        if self.stopped or not self.stops:
            return "" if self.stopped else text
        text = self.held + text
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in self.stops if stop in text]
        if found:
            self.held, self.stopped = "", True
            return text[: min(found)[1]]
        keep = self._undecided(text)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back: the text ends here without a stop string."""
        text, self.held = self.held, ""
        return text

    def _undecided(self, text: str) -> int:
        """Return the length of the longest end of the text with which a stop string begins."""
        longest = min(len(text), max(map(len, self.stops)) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stops):
                return length
        return 0
