"""``wkvnp info``: what a file holds, or what the machine offers."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from ..errors import TokenizerError
from . import UsageError
from .json_text import json_text
from .options import add_ignore_option

if TYPE_CHECKING:
    from .header import Header

HELP = "say what a checkpoint holds, or with --system what the machine offers"
EXAMPLES = """examples:
  wkvnp info rwkv7.pth
  wkvnp info rwkv7.safetensors --json
  wkvnp info rwkv7.pth --program
  wkvnp info --system

Without --program only names, shapes and dtypes are read, so it is quick for a file of any size.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", nargs="?", metavar="FILE", help="a checkpoint, a folder with one, or a saved state")
    parser.add_argument("--system", action="store_true", help="versions, cores, threads, compile cache, GPU")
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.add_argument("--program", action="store_true", help="list the steps that decode a token")
    add_ignore_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Collect the facts and print them."""
    if (arguments.path is None) != arguments.system:
        raise UsageError("info: give either a FILE or --system")
    if arguments.program:
        return _print_program(arguments)
    if arguments.system:
        from .._system import system_report

        facts = system_report()
    else:
        facts = _describe(arguments.path, arguments.ignore)
    if arguments.json:
        print(json_text(facts))
    else:
        _print_table(facts)
    return 0


def _print_program(arguments: argparse.Namespace) -> int:
    """Print the program of a model, or why it has none."""
    if arguments.path is None or arguments.json:
        raise UsageError("info: --program needs a FILE, and writes text")
    from ..models import load

    print(load(arguments.path, ignore=arguments.ignore).program)
    return 0


def _describe(path: str, ignore: list[str]) -> dict[str, Any]:
    """Return the facts about a file, sizes in bytes."""
    from ..checkpoints import open_checkpoint

    container = open_checkpoint(path)
    if container.metadata.get("format", "").startswith("wkvnp state"):
        first = next(iter(container.tensors.values()))
        return {
            "file": str(container.path),
            "format": container.metadata["format"],
            "model": container.metadata.get("model"),
            "sequences": first.shape[0] if first.shape else 0,
            "bytes": sum(tensor.nbytes for tensor in container.tensors.values()),
        }
    from .header import read_header

    header = read_header(path, ignore)
    config = {field.name: getattr(header.config, field.name) for field in dataclasses.fields(header.config)}
    per_token = header.config.state_bytes_per_token
    for described in ("fields", "parts"):  # all that was stated beside the tensors, once more
        config.pop(described, None)
    if (rotary := config.get("rotary")) is not None:
        plain = ("size", "theta") if rotary.scaling == "default" else dataclasses.asdict(rotary)
        config["rotary"] = {name: getattr(rotary, name) for name in plain}
    return {
        "file": str(header.container.path),
        "format": header.container.format,
        "architecture": config.pop("architecture"),
        "parameters": header.n_parameters,
        **config,
        "dtypes": header.dtypes,
        "memory": {"weights": header.nbytes, "state per sequence": header.state_bytes}
        | ({"state per token": per_token} if per_token else {}),
        "tokenizer": _tokenizer_name(header),
        "decoding": header.decoding,
    }


def _tokenizer_name(header: Header) -> str:
    from ..tokenizers import load_tokenizer

    try:
        return load_tokenizer(header).name
    except (TokenizerError, ImportError) as error:
        return f"none at hand ({error})"


def _print_table(facts: dict[str, Any]) -> None:
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        if name == "memory":
            text = ", ".join(f"{_size(amount)} {what}" for what, amount in value.items())
        elif name == "dtypes":
            text = ", ".join(f"{dtype} ({d['tensors']} tensors, {_size(d['bytes'])})" for dtype, d in value.items())
        elif name == "bytes":
            text = _size(value)
        elif isinstance(value, dict):
            text = ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
        elif isinstance(value, (list, tuple)):
            text = ", ".join(map(str, value)) or "none"
        else:
            text = f"{value:,}" if name == "parameters" else str(value)
        print(f"{name:{width}}{text}")


def _size(amount: float) -> str:
    """Return a number of bytes for people.

    >>> _size(2_500_000)
    '2.5 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
