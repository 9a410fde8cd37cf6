"""``wkvnp convert``: write the weights of any readable checkpoint as safetensors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import UsageError
from .interrupt import Deferred
from .options import DTYPES, add_ignore_option, writable
from .progress import Bar
from .streams import remark

HELP = "write the weights of a checkpoint as safetensors under the original tensor names"
EXAMPLES = """examples:
  wkvnp convert rwkv7.pth rwkv7.safetensors
  wkvnp convert rwkv7-q5_1.bin rwkv7.safetensors --dtype bfloat16
  wkvnp convert folder-from-hugging-face model.safetensors
  wkvnp convert rwkv7.pth small.safetensors --dtype int8

IN is anything that --model takes. One tensor at a time is in memory, so files larger than the memory can be converted.
What others have quantised becomes float32, or what --dtype says; vectors are never narrowed. int8 and int4 round the
large matrices to 8 or 4 bits, with a scale for every 32 weights; embeddings and all that is small stay as they are.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", metavar="IN", help="checkpoint, or a folder with one")
    parser.add_argument("target", metavar="OUT", help="the safetensors file to write")
    parser.add_argument("--dtype", choices=DTYPES, help="default: as in the file")
    add_ignore_option(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(arguments: argparse.Namespace) -> int:
    """Read, convert and write tensor by tensor."""
    target = Path(writable(arguments.target))
    if target.exists() and not arguments.force:
        raise UsageError(f"{arguments.target} exists; --force replaces it")

    from ..models.conversion import convert

    bar = Bar("converting", "MB")
    try:
        with Deferred() as interrupt:

            def progress(done: int, total: int) -> None:
                interrupt.check()
                bar(done // 1_000_000, total // 1_000_000)

            convert(arguments.source, target, dtype=arguments.dtype, ignore=arguments.ignore, progress=progress)
    finally:
        bar.clear()
    if sys.stderr.isatty():
        remark(f"{target}: {target.stat().st_size:,} bytes")
    return 0
