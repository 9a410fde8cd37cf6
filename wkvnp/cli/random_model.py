"""``wkvnp random-model``: write a checkpoint with random weights."""

from __future__ import annotations

import argparse
import os

from . import UsageError
from .interrupt import Deferred
from .options import DTYPES, writable
from .streams import remark

HELP = "write a small checkpoint with random weights, to try out the machinery"
EXAMPLES = """examples:
  wkvnp random-model tiny.safetensors
  wkvnp random-model v4.safetensors --architecture rwkv4 --layers 2 --width 64
  wkvnp random-model world.safetensors --layers 12 --width 768 --vocab 65536 --dtype bfloat16
  wkvnp random-model mixed.safetensors --architecture hybrid --pattern arrr --layers 8
"""
ARCHITECTURES = (
    *("rwkv4", "rwkv5.0", "rwkv5.1", "rwkv5.2", "rwkv5", "rwkv6", "rwkv7"),
    *("transformer", "mamba1", "mamba2", "hybrid", "qwen3_next"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", metavar="OUT", help="the safetensors file to write")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="rwkv7", help="default rwkv7")
    parser.add_argument("--layers", type=int, default=4, metavar="L", help="default 4")
    parser.add_argument("--width", type=int, default=128, metavar="C", help="default 128")
    parser.add_argument("--head-size", type=int, default=64, metavar="N", help="divides the width; default 64")
    parser.add_argument(
        "--pattern",
        metavar="LETTERS",
        help="of a hybrid: a letter a layer, repeated: a attention, 4 to 7 RWKV, r RWKV-7, m Mamba-1, s Mamba-2",
    )
    parser.add_argument("--window", type=int, metavar="T", help="tokens that attention sees; default all")
    parser.add_argument("--vocab", type=int, default=256, metavar="V", help="default 256: one token per byte")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(arguments: argparse.Namespace) -> int:
    """Draw the weights and write them."""
    target = writable(arguments.path)
    if os.path.exists(target) and not arguments.force:
        raise UsageError(f"{arguments.path} exists; --force replaces it")
    if arguments.seed < 0:
        raise UsageError(f"--seed must be at least 0; got {arguments.seed}")

    from ..models.random_model import random_model

    stated = {name: getattr(arguments, name) for name in ("pattern", "window")}
    model = random_model(
        arguments.architecture,
        n_layer=arguments.layers,
        n_embd=arguments.width,
        vocab_size=arguments.vocab,
        head_size=arguments.head_size,
        rng=arguments.seed,
        dtype=arguments.dtype,
        **{name: value for name, value in stated.items() if value is not None},
    )
    with Deferred() as interrupt:
        model.save(target)
    interrupt.check()
    config = model.config
    remark(
        f"{arguments.path}: {config.architecture} with {config.n_layer} layers of {config.n_embd} and "
        f"{model.n_parameters:,} parameters; the weights are random and write noise: for trying out the machinery only"
    )
    return 0
