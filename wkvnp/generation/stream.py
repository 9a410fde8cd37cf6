"""The loop that turns a prompt into text: feed, draw, decode, repeat.

Every step is a pure call ``logits, state = model(tokens, state)``, so each piece carries the state it was drawn
from and an iterator that is closed early leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._arguments import check_roles, generator_of, named
from ..errors import ArgumentError, ShapeError
from .arguments import Ids, read_bans, read_integer, read_number, read_prompts, read_stop_tokens, read_stops
from .sampling import Repetition, check_sampling, log_probability, sample
from .stops import StopWatch

if TYPE_CHECKING:
    from ..models.language_model import Model
    from ..models.state import State
    from ..tokenizers import Tokenizer

Prompt = str | Sequence[int] | npt.NDArray[np.integer[Any]]
Progress = Callable[[int, int], None]
TOGETHER = 32  # up to this many rows of a batch have the same bits as a row alone


@dataclass(frozen=True)
class Piece:
    """One step of `generate`: the token that was drawn and the text that became certain with it.

    Attributes
    ----------
    token : int or None
        The token id; None where nothing was written: a stop token was drawn, or ``max_tokens`` is 0.
    text : str
        New text. It may be empty (part of a character, or what could become a stop string, is held back) and it may
        hold text of earlier tokens that was held back.
    logprob : float
        Natural logarithm of the token's probability under the softmax of the model's logits as they were: before
        bans, penalties, temperature, top-p and top-k. Of the stop token where one was drawn.
    prompt_index : int
        Which prompt of the batch it belongs to; 0 for a single one.
    finish : str or None
        None while more follows for this prompt. The last piece has ``"length"`` (`max_tokens` were written),
        ``"stop"`` (a stop string appeared) or ``"stop_token"``.
    held : bool
        Whether text of this or an earlier token is held back after this piece.
    state : State
        The state after everything *before* this token, so that
        ``generate(model, tokenizer, [piece.token], state=piece.state)`` goes on where this piece ends.
    """

    token: int | None
    text: str
    logprob: float
    prompt_index: int
    finish: str | None
    held: bool
    _states: State = field(repr=False, compare=False)
    _row: int = field(repr=False, compare=False)

    @property
    def state(self) -> State:
        """The state before this token. Taken out of the batch only when asked for: that is a copy."""
        return self._states if self._states.batch == 1 else self._states[self._row]


@dataclass(frozen=True)
class _Settings:
    max_tokens: int
    sampling: dict[str, Any]
    stop: tuple[str, ...]
    stop_tokens: frozenset[int]
    penalties: tuple[float, float, float]
    ban: Ids
    chunk: int


@named
def generate(
    model: Model,
    tokenizer: Tokenizer,
    prompt: Prompt | Sequence[Prompt],
    *,
    max_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 0.85,
    top_k: int = 0,
    stop: str | Iterable[str] = (),
    stop_tokens: Iterable[int] | None = None,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    penalty_decay: float = 0.996,
    ban: Iterable[int] = (),
    rng: int | np.random.Generator | None = None,
    state: State | None = None,
    chunk: int = 256,
    progress: Progress | None = None,
) -> Generator[Piece, None, None]:
    """Write on from a prompt, piece by piece.

    Each step bans, penalises, draws (softmax, top-p, top-k, temperature: see `wkvnp.generation.distribution`), then
    checks for a stop token, in the order of the original RWKV code. The whole text of the pieces is the decoded
    text of the tokens, cut off where a stop string begins.

    Parameters
    ----------
    model : Model
        From `wkvnp.load` or `wkvnp.random_model`.
    tokenizer : Tokenizer
        From `wkvnp.load_tokenizer`.
    prompt : str, sequence of int, or list of these
        Text or token ids, not empty. Text without a `state` gets what the vocabulary puts at the beginning of one. A
        list is a batch: its prompts are fed one by one and then decoded together (32 at a time), and the result for
        each is the same, bit for bit, as for this prompt alone with the generator
        ``np.random.default_rng(rng).spawn(len(prompt))[i]``.
    max_tokens : int
        How many tokens to write at most, per prompt.
    temperature : float
        Applied after top-p and top-k. 0 is greedy: the largest logit, among equals the lowest id.
    top_p : float
        Keep the smallest set of tokens with this probability mass; 1 or more keeps all.
    top_k : int
        Keep this number of the most probable tokens; 0 keeps all.
    stop : str or strings
        The text ends before the first of these to appear, also where it spans tokens.
    stop_tokens : ints, optional
        The text ends when one of these is drawn; it is neither written nor fed. By default what the tokenizer's
        folder says, else its end of text, if it has one; pass ``()`` for none.
    presence_penalty, frequency_penalty, penalty_decay : float
        Logit n is lowered by ``presence_penalty + o_n * frequency_penalty`` once token n was written; o_n counts how
        often, decays by `penalty_decay` per token, and does not grow for blanks and digits. The prompt is not counted.
    ban : ints
        Token ids that are never drawn. The model's highest ids are banned too where the tokenizer has no text for them
        (a vocabulary that was padded to a round size).
    rng : int, Generator or None
        Where the draws come from: ``np.random.default_rng(rng)``, one uniform number per token (none if greedy).
    state : State, optional
        Continue from here: a state with as many sequences as there are prompts. By default a fresh one.
    chunk : int
        The prompt is fed in pieces of at most this number of tokens.
    progress : callable, optional
        Called as ``progress(done, total)`` with the number of prompt tokens fed.

    Returns
    -------
    iterator of Piece
        At least one per prompt; exactly one per prompt has `finish` set, its last.

    Raises
    ------
    ArgumentError
        If an argument is out of its range, or a prompt is empty: the first token is drawn from the logits that
        follow the prompt's last token, and a state does not hold them.

    Examples
    --------
    >>> import wkvnp
    >>> model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    >>> pieces = list(wkvnp.generate(model, wkvnp.load_tokenizer("bytes"), "Hi", max_tokens=3, rng=1))
    >>> len(pieces), pieces[-1].finish
    (3, 'length')
    """
    check_roles("generate", model, tokenizer, "prompt")
    check_sampling("generate", temperature=temperature, top_p=top_p, top_k=top_k)
    prompts, is_batch = read_prompts(prompt, tokenizer, state is None)
    settings = _Settings(
        max_tokens=read_integer("max_tokens", max_tokens, 0),
        sampling={"temperature": temperature, "top_p": top_p, "top_k": top_k},
        stop=read_stops(stop),
        stop_tokens=read_stop_tokens(stop_tokens, tokenizer),
        penalties=(
            read_number("presence_penalty", presence_penalty),
            read_number("frequency_penalty", frequency_penalty),
            read_number("penalty_decay", penalty_decay),
        ),
        ban=read_bans(ban, model.config.vocab_size, tokenizer),
        chunk=read_integer("chunk", chunk, 1),
    )
    if state is not None and not hasattr(state, "batch"):
        raise ArgumentError(f"generate: state must be a state, as wkvnp.State.load returns; got {state!r:.100}")
    if state is not None and state.batch != len(prompts):
        raise ShapeError(f"generate: state must hold {len(prompts)} sequences, one per prompt; got {state.batch}")
    source = generator_of("generate", rng)
    rngs = source.spawn(len(prompts)) if is_batch else [source]
    states = [None] * len(prompts) if state is None else [state[i] for i in range(len(prompts))]
    return _run(model, tokenizer, prompts, states, rngs, settings, progress)


def _run(
    model: Model,
    tokenizer: Tokenizer,
    prompts: list[Ids],
    states: Sequence[State | None],
    rngs: Sequence[np.random.Generator],
    settings: _Settings,
    progress: Progress | None,
) -> Generator[Piece, None, None]:
    total = sum(map(len, prompts))
    fed = 0

    def meter(count: int) -> None:
        nonlocal fed
        fed += count
        if progress is not None:
            progress(fed, total)

    for first in range(0, len(prompts), TOGETHER):
        group = range(first, min(first + TOGETHER, len(prompts)))
        rows = [_Row(tokenizer, model.config.vocab_size, settings, rngs[i], i) for i in group]
        starts = [_prefill(model, prompts[i], states[i], settings.chunk, meter) for i in group]
        yield from _decode(model, rows, starts)


def _prefill(
    model: Model, tokens: Ids, state: State | None, chunk: int, meter: Callable[[int], None]
) -> tuple[npt.NDArray[np.float32], State]:
    """Feed a prompt and return the logits after it, shape (1, V), and the state."""
    for begin in range(0, len(tokens), chunk):
        part = tokens[begin : begin + chunk]
        logits, state = model(part[None], state)
        meter(len(part))
    assert state is not None
    return logits, state


def _decode(model: Model, rows: list[_Row], starts: list[tuple[npt.NDArray[np.float32], State]]) -> Iterator[Piece]:
    """Write the rows together; a row that is finished leaves the batch."""
    logits = np.concatenate([start[0] for start in starts])
    states = [start[1] for start in starts]
    state = states[0] if len(states) == 1 else type(states[0]).join(states)
    while True:
        for i, row in enumerate(rows):
            yield row.step(logits[i], state, i)
        alive = [i for i, row in enumerate(rows) if row.finish is None]
        if not alive:
            return
        if len(alive) < len(rows):
            state, rows = state[alive], [rows[i] for i in alive]
        logits, state = model(np.array([[row.token] for row in rows]), state)


class _Row:
    """One prompt's continuation: what has to be remembered between its tokens besides the model's state."""

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, settings: _Settings, rng: np.random.Generator, index: int
    ) -> None:
        self.tokenizer, self.settings, self.rng, self.index = tokenizer, settings, rng, index
        self.decoder = tokenizer.decoder()
        self.watch = StopWatch(settings.stop)
        self.repetition = Repetition(vocab_size, *settings.penalties)
        self.written = 0
        self.finish: str | None = None
        self.token = -1
        self.open_ids: list[int] = []  # since nothing was held back
        self.open_text = ""

    def step(self, logits: npt.NDArray[np.float32], states: State, row: int) -> Piece:
        """Draw the next token and return its piece; this is row `row` of the batch's states."""
        token, text, logprob = self._draw(logits)
        if self.finish is None and token is not None:
            held = self._holds_back(token, text)
        else:
            held, text = False, text + self._rest()
        return Piece(token, text, logprob, self.index, self.finish, held, states, row)

    def _draw(self, logits: npt.NDArray[np.float32]) -> tuple[int | None, str, float]:
        """Return the token (None for a stop token), the text it released, and its log-probability."""
        if self.settings.max_tokens == 0:
            self.finish = "length"
            return None, "", 0.0
        scores = logits.astype(np.float64)
        scores[self.settings.ban] = -np.inf
        token = sample(self.repetition.penalise(scores), self.rng, **self.settings.sampling)
        logprob = log_probability(logits, token)
        if token in self.settings.stop_tokens:
            self.finish = "stop_token"
            return None, "", logprob
        self.token = token
        self.written += 1
        if self.repetition.active:
            self.repetition.note(token, self.tokenizer.decode([token]))
        text = self.watch.feed(self.decoder.feed(token))
        if self.watch.stopped:
            self.finish = "stop"
        elif self.written == self.settings.max_tokens:
            self.finish = "length"
        return token, text, logprob

    def _holds_back(self, token: int, text: str) -> bool:
        self.open_ids.append(token)
        self.open_text += text
        held = self.tokenizer.decode(self.open_ids) != self.open_text
        if not held:
            self.open_ids, self.open_text = [], ""
        return held

    def _rest(self) -> str:
        """Return all the text that was held back: no more will come."""
        return self.watch.feed(self.decoder.flush()) + self.watch.flush()
