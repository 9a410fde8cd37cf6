"""``wkvnp warmup``: compile what a model needs, before it is needed."""

from __future__ import annotations

import argparse

from .options import add_model_options, load_model

HELP = "compile what a model needs, so that later commands start at once"
EXAMPLES = """examples:
  wkvnp warmup
  wkvnp warmup --model rwkv7.pth
  wkvnp warmup --model rwkv7.pth --dtype bfloat16 --threads 4

Compiled kernels are kept in the user's cache (`wkvnp info --system` says where). They fit a processor, a kind of model
and the dtype of its weights; another model of the same kind finds them there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load, run a few calls, and say what was compiled."""
    from .._compile_cache import directory
    from .._jit import compiling
    from .progress import Bar

    before = compiling.kernels
    compiling.quiet = True
    model, tokenizer = load_model(arguments)

    from ..models.warmup import warmup

    tokenizer.encode("warm")
    bar = Bar("compiling", "steps")
    try:
        done = warmup(model, progress=bar)
    finally:
        bar.clear()
    if compiled := compiling.kernels - before:
        kept = directory()
        where = f"kept in {kept}" if kept else "not kept, since WKVNP_CACHE is 0"
        print(f"compiled {compiled} kernels in {done.seconds:.1f} s; {where}")
    else:
        print(f"nothing to do: all that {model.config.architecture} needs was compiled before")
    return 0
