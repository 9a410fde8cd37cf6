"""The prompt forms that the chat models were trained with.

A blank line separates turns, and nothing follows the colon of the turn that the model is to write: it begins
with the blank itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


def clean(text: str) -> str:
    r"""Return user input with plain line ends, no blank lines and nothing around it: a blank line ends a turn.

    Examples
    --------
    >>> clean("  First.\r\n\r\nSecond.\n")
    'First.\nSecond.'
    """
    return re.sub("\n+", "\n", text.replace("\r\n", "\n")).strip()


@dataclass(frozen=True)
class ChatForm:
    r"""How a conversation is written down.

    Parameters
    ----------
    name : str
        What the command line calls it.
    opening : str
        What the model's turn is made to begin with; it writes the rest.
    stop : str
        The text that ends the model's turn.
    user, assistant : str
        What the two sides are called.

    Examples
    --------
    >>> WORLD.turn("Hello!")
    'User: Hello!\n\nAssistant:'
    >>> FORMS["g1"].turn("Hello!")
    'User: Hello!\n\nAssistant: <think'
    """

    name: str
    opening: str = ""
    stop: str = "\n\n"
    user: str = "User"
    assistant: str = "Assistant"

    def system(self, text: str) -> str:
        r"""Return the block that may come before the first turn; empty for empty text.

        >>> WORLD.system("Answer in rhyme.")
        'System: Answer in rhyme.\n\n'
        """
        return f"System: {clean(text)}\n\n" if clean(text) else ""

    def turn(self, text: str) -> str:
        """Return the user's turn and the beginning of the model's."""
        return f"{self.user}: {clean(text)}\n\n{self.assistant}:{self.opening}"


WORLD = ChatForm("world")
RAVEN = ChatForm("raven", user="Bob", assistant="Alice")
# The reasoning models put blank lines into their answers, so only the next speaker's name ends a turn.
G1 = ChatForm("g1", " <think", "\n\nUser:")
G1_FAST = ChatForm("g1-fast", " <think>\n</think", "\n\nUser:")
G1_NO_THINK = ChatForm("g1-no-think", " <think></think", "\n\nUser:")

FORMS: dict[str, ChatForm] = {form.name: form for form in (WORLD, RAVEN, G1, G1_FAST, G1_NO_THINK)}
