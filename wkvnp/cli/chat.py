"""``wkvnp chat``: a conversation, line by line."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from .._paths import local_path
from ..errors import WkvnpError
from . import UsageError, describe_error
from .interrupt import Deferred, raise_interrupts
from .options import add_model_options, add_sampling_options, load_model, sampling_options, writable
from .progress import Bar
from .screen import write
from .streams import remark

if TYPE_CHECKING:
    from ..generation import Chat

HELP = "talk with a chat model, line by line"
EXAMPLES = """examples:
  wkvnp chat --model rwkv7-world.pth
  wkvnp chat --model rwkv7-g1.pth --form g1 --system "Answer briefly."
  printf 'Hello!\\nAnd now?\\n' | wkvnp chat --model rwkv7-world.pth --seed 1

Chat templates in the folder of a model are programs and are not run: turns are written in one of these

forms: world (User/Assistant), raven (Bob/Alice), g1 (thinks first), g1-fast, g1-no-think

Within the conversation:
  /reset       forget everything that was said
  /save FILE   save the state of the conversation
  /load FILE   go on from a saved one
  /help        this list
  /quit        end; so does the end of the input
On a terminal Ctrl-C ends the model's turn, and at the prompt the program.
"""
_TEMPLATE = (
    "wkvnp: this model comes with a chat template, which is a program and is not run; turns are written in the form "
    "{form!r} (--form has others, and wkvnp generate takes any text)"
)
FORMS = ("world", "raven", "g1", "g1-fast", "g1-no-think")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--form", choices=FORMS, default="world", help="how turns are written; default world")
    parser.add_argument("--system", default="", metavar="TEXT", help="text before the first turn")
    parser.add_argument("--max-tokens", "-n", type=int, default=1024, metavar="N", help="per turn; default 1024")
    parser.add_argument("--state", metavar="FILE", help="go on from a saved conversation")
    add_sampling_options(parser)
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read a line, answer it, until there are no more."""
    options = sampling_options(arguments)
    model, tokenizer = load_model(arguments)

    from ..generation import Chat
    from ..tokenizers.folder import has_chat_template

    if arguments.model is not None and has_chat_template(local_path(arguments.model)):
        remark(_TEMPLATE.format(form=arguments.form))

    rng = options.pop("rng")
    chat = Chat(model, tokenizer, form=arguments.form, system=arguments.system, rng=rng, **options)
    if arguments.state is not None:
        _load(chat, arguments.state)
    interactive = sys.stdin is not None and sys.stdin.isatty()
    if interactive:
        raise_interrupts()
        remark("End with /quit; /help lists the commands.")
    while (line := _read(interactive)) is not None:
        try:
            if line.strip() == "/quit":
                break
            if line.startswith("/"):
                _command(chat, line)
            elif line.strip():
                _answer(chat, line, interactive)
        except (WkvnpError, OSError, UsageError) as error:
            if not interactive or isinstance(error, BrokenPipeError):
                raise
            print(f"wkvnp: {describe_error(error)}", file=sys.stderr)
    return 0


def _read(interactive: bool) -> str | None:
    """Return the next line, or None at the end."""
    if not interactive:
        return (sys.stdin.readline() if sys.stdin is not None else "").removeprefix("\ufeff") or None
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() its line editing)
    try:
        return input("> ")
    except EOFError:
        print(file=sys.stderr)
        return None


def _answer(chat: Chat, line: str, interactive: bool) -> None:
    """Write the model's turn as it comes, without the blank it begins with; on a terminal Ctrl-C ends it."""
    interrupt, bar = Deferred(), Bar("reading")

    def progress(done: int, total: int) -> None:
        bar(done, total)
        interrupt.check()

    chat.options["progress"] = progress
    with interrupt if interactive else contextlib.nullcontext():
        try:
            opening = chat.form.opening.lstrip()
            write(opening)
            begun = bool(opening)
            for piece in chat.say(line):
                text = piece.text if begun else piece.text.lstrip()
                write(text)
                begun = begun or bool(text)
                interrupt.check()
        except KeyboardInterrupt:
            bar.clear()
            if not interactive:
                raise
    write("\n")


def _command(chat: Chat, line: str) -> None:
    name, _, rest = line.strip().partition(" ")
    path = rest.strip()
    if name == "/help":
        print(EXAMPLES[EXAMPLES.index("Within") :], end="", file=sys.stderr)
    elif name == "/reset":
        chat.reset()
    elif name == "/save" and path:
        state = chat.state
        if state is None:
            raise UsageError("/save: nothing was said yet")
        target = writable(path)
        with Deferred() as interrupt:
            state.save(target)
        interrupt.check()
    elif name == "/load" and path:
        _load(chat, path)
    elif name in ("/save", "/load"):
        raise UsageError(f"{name} needs the name of a file")
    else:
        raise UsageError(f"unknown command {name}; /help lists the commands")


def _load(chat: Chat, path: str) -> None:
    from ..models.state import State

    chat.state = State.load(path, chat.model)
