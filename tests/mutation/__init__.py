"""Mutation campaigns: damaged files of every format, and what the readers make of them.

A small valid file is changed (`seeds_*`, `*_edits`), written to a folder and given to its reader (`readers`) in a
process of its own (`worker`). What the reader may do is raise a `WkvnpError`, or accept the file. Any other exception,
a crash, a hang, growth of the process, or numbers from outside the file is a failure (`campaign`). An input is known by
format, seed and number, and made again from these::

    python -m tests.mutation --format gguf --inputs 200000
    python -m tests.mutation --format gguf --seed 0 --only 1234 --keep FOLDER

`formats` lists the formats. The suite runs 2,000 inputs of each (`tests/test_mutation.py`).
"""

import sys
from pathlib import Path

_WRITERS = str(Path(__file__).resolve().parents[1])  # seeds come from the writers of the tests beside this folder
if _WRITERS not in sys.path:
    sys.path.insert(0, _WRITERS)
