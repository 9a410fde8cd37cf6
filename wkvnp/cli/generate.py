"""``wkvnp generate``: write on from a prompt."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .interrupt import Deferred
from .json_text import json_text
from .options import (
    add_model_options,
    add_sampling_options,
    add_text_input,
    load_model,
    read_text,
    sampling_options,
    unescape,
    writable,
)
from .screen import write

if TYPE_CHECKING:
    from ..generation import Piece

HELP = "write on from a prompt"
EXAMPLES = r"""examples:
  wkvnp generate "The for statement"
  wkvnp generate --model rwkv7.pth "The Eiffel tower is in"
  wkvnp generate --model rwkv7.pth --escape "User: Hello!\n\nAssistant:" --stop "\n\n"
  echo "Once upon a time" | wkvnp generate --model rwkv7.pth --temperature 0.8 --seed 1
  wkvnp generate --model rwkv7.pth --file long.txt --max-tokens 0 --save-state long.state
  wkvnp generate --model rwkv7.pth --state long.state " In short," --json

One newline at the end of a file or a pipe is not part of the prompt.
--json writes one object per token: token, text, logprob (nats, of the model itself), finish.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_text_input(parser, "PROMPT")
    parser.add_argument("--max-tokens", "-n", type=int, default=256, metavar="N", help="default 256")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this; repeatable")
    parser.add_argument("--escape", "-e", action="store_true", help=r"read \n, \t, \r and \\ in PROMPT and --stop")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--echo", action="store_true", help="write the prompt first")
    output.add_argument("--json", action="store_true", help="write one JSON object per token")
    parser.add_argument("--state", metavar="FILE", help="continue from a saved state")
    parser.add_argument("--save-state", metavar="FILE", help="save the state after the written text")
    add_sampling_options(parser)
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load, feed, and write piece by piece."""
    options = sampling_options(arguments)
    target = None if arguments.save_state is None else writable(arguments.save_state)
    prompt, from_stream = read_text(arguments, "PROMPT")
    if from_stream:
        prompt = prompt.removesuffix("\n").removesuffix("\r")
    stops = arguments.stop
    if arguments.escape:
        prompt, stops = unescape(prompt), [unescape(stop) for stop in stops]
    model, tokenizer = load_model(arguments)

    from ..generation import Transcript, generate
    from .progress import Bar

    state = None
    if arguments.state is not None:
        from ..models.state import State

        state = State.load(arguments.state, model)
    transcript = Transcript()
    pieces = generate(model, tokenizer, prompt, stop=stops, state=state, progress=Bar("prompt"), **options)
    if arguments.echo:
        write(prompt)
    for piece in pieces:
        transcript.add(piece)
        write(_as_json(piece) if arguments.json else piece.text)
    if sys.stdout.isatty() and not arguments.json and not transcript.text.endswith("\n"):
        write("\n")
    if target is not None:
        state = transcript.state(model, tokenizer)
        with Deferred() as interrupt:
            state.save(target)
        interrupt.check()
    return 0


def _as_json(piece: Piece) -> str:
    facts = {"token": piece.token, "text": piece.text, "logprob": piece.logprob, "finish": piece.finish}
    return json_text(facts) + "\n"
