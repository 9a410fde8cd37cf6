"""What a campaign starts from: a small valid input, and how it is changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Seed:
    """A valid input.

    Parameters
    ----------
    files : mapping of str to bytes
        As they lie in a folder.
    opened : str
        Which of them the reader is given; ``""`` for the folder.
    mutate : callable
        Returns changed files; all that it draws comes from its argument.
    complete : bool
        Whether the reader accepts it as it is.
    """

    files: Files
    opened: str
    mutate: Callable[[random.Random], Files]
    complete: bool = True


@dataclass(frozen=True)
class Format:
    """What a campaign is about.

    Parameters
    ----------
    name : str
    seeds : callable
        Returns the seeds, always the same ones.
    read : callable
        Does with a path all that a person may do; returns whether everything was accepted, or raises a `WkvnpError`.
    """

    name: str
    seeds: Callable[[], list[Seed]]
    read: Callable[[Path], bool]


def one_file(name: str, data: bytes, edit: Callable[[bytes, random.Random], bytes], complete: bool = True) -> Seed:
    """Return a seed of a single file whose bytes are edited."""
    return Seed({name: data}, name, lambda rng: {name: edit(data, rng)}, complete)


def made(seeds: list[Seed], format: str, seed: int, number: int) -> tuple[Files, str]:
    """Return input `number` of a campaign: its files, and which of them to open."""
    rng = random.Random(f"{format} {seed} {number}")
    chosen = rng.choice(seeds)
    return chosen.mutate(rng), chosen.opened
