"""Text that a model wrote, on its way to standard output."""

from __future__ import annotations

import sys

# A terminal obeys control characters, and a model may write any: there they become the pictures that Unicode has for
# them. Newline and tab stay. In a pipe nothing is changed.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def write(text: str) -> None:
    """Write text to standard output at once, harmless to a terminal."""
    if text:
        sys.stdout.write(text.translate(_PICTURES) if sys.stdout.isatty() else text)
        sys.stdout.flush()
