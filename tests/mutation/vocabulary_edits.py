"""Changes of World vocabularies: lines, their three fields, and bytes."""

from __future__ import annotations

import random

from . import byte_edits

_LITERALS = (
    "''",
    "'a'",
    "b'a'",
    "b'\\xff'",
    "'\\xff'",
    "'\\ud800'",
    "'\\U00110000'",
    "'\\N{DIGIT ONE}'",
    "'\\",
    '"\\""',
    "b'é'",
)
_LITERALS += (
    "f'{1}'",
    "u'a'",
    "'a' 'b'",
    "'" + "a" * 5000 + "'",
    "__import__('os')",
    "'\ufeff'",
    "'\r'",
    "'\\x'",
    "b'\\u0041'",
)
_NUMBERS = ("0", "1", "256", "-1", "1" * 30, "1e3", "0x1", "", " 1", "٣")


def edited(data: bytes, rng: random.Random) -> bytes:
    """Return a changed file."""
    if rng.random() < 0.3:
        return byte_edits.edited(data, rng)
    lines = data.decode().split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        choice = rng.randrange(8)
        id, _, rest = lines[at].partition(" ")
        literal, _, length = rest.rpartition(" ")
        if choice == 0 and len(lines) > 1:
            del lines[at]
        elif choice == 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif choice == 2:
            lines[at] = f"{rng.choice(_NUMBERS)} {literal} {length}"
        elif choice == 3:
            lines[at] = f"{id} {rng.choice(_LITERALS)} {length}"
        elif choice == 4:
            lines[at] = f"{id} {literal} {rng.choice(_NUMBERS)}"
        elif choice == 5:
            word = "".join(rng.choices("ab\u00e9\u65e5 \u2028\x85\U0001f600", k=rng.choice((1, 2, 3, 200))))
            lines[at] = f"{id} {word!r} {len(word.encode())}"
        elif choice == 6:
            lines[at] = rng.choice(
                ("", " ", "\r", "\ufeff" + lines[at], lines[at] + "\r", lines[at] + " ", "\t" + lines[at])
            )
        else:
            word = rng.randbytes(rng.choice((1, 2, 3, 40)))
            lines[at] = f"{id} {word!r} {len(word)}"
    if rng.random() < 0.5:  # the ids count up again, or the first of them would always be the fault
        lines = [f"{n} {line.partition(' ')[2]}" if line else line for n, line in enumerate(lines, 1)]
    return rng.choice(("\n", "\n", "\n", "\n", "\r\n")).join(lines).encode("utf-8", "surrogatepass")
