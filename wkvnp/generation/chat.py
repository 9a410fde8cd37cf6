"""A conversation: turns in a prompt form, and the state between them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._arguments import check_roles, generator_of
from ..errors import ArgumentError
from ..tokenizers.plain_text import plain_encoder
from .prompts import FORMS, ChatForm
from .stream import Piece, generate
from .transcript import Transcript

if TYPE_CHECKING:
    from ..models.language_model import Model
    from ..models.state import State
    from ..tokenizers import Tokenizer


class Chat:
    """A conversation with a model; only the state is kept, never the text.

    Parameters
    ----------
    model : Model
        From `wkvnp.load`.
    tokenizer : Tokenizer
        From `wkvnp.load_tokenizer`.
    form : str or ChatForm
        ``"world"``, ``"raven"``, ``"g1"`` (thinks first), ``"g1-fast"``, ``"g1-no-think"``, or your own.
    system : str
        Stands before the first turn; may be empty.
    rng : int, Generator or None
        Where the draws come from, for the whole conversation.
    **options
        Passed to `generate`: `max_tokens`, `temperature`, `top_p`, penalties, ...

    Examples
    --------
    >>> import wkvnp
    >>> model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    >>> chat = Chat(model, wkvnp.load_tokenizer("bytes"), max_tokens=4, rng=1)
    >>> len(list(chat.say("Hello!")))
    4
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        form: str | ChatForm = "world",
        system: str = "",
        rng: int | np.random.Generator | None = None,
        **options: Any,
    ) -> None:
        check_roles("Chat", model, tokenizer, "")
        if isinstance(form, str) and form not in FORMS:
            raise ArgumentError(f"Chat: form must be one of {', '.join(FORMS)}; got {form!r}")
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.form = FORMS[form] if isinstance(form, str) else form
        self.system = system
        self.rng = generator_of("Chat", rng)
        self.reset()

    def reset(self) -> None:
        """Forget everything that was said."""
        self._state: State | None = None
        self._last: Transcript | None = None

    def say(self, text: str) -> Generator[Piece, None, None]:
        """Take in the user's turn and yield the pieces of the model's, up to (and without) what ends it.

        The model's turn counts as said as far as it was iterated. What is written in the user's turn stays text, also
        where it spells a control token (``tokenizer.encode(..., special=False)``).
        """
        turn = self.form.turn(text)
        if self._last is not None:
            prompt = self._unfed(turn)
        else:
            opening = turn if self._state else self.form.system(self.system) + turn
            prompt = np.asarray(plain_encoder(self.tokenizer, begins=not self._state)(opening))
        transcript = Transcript()
        for piece in generate(
            self.model, self.tokenizer, prompt, state=self._state, stop=self.form.stop, rng=self.rng, **self.options
        ):
            transcript.add(piece)
            self._last = transcript
            yield piece

    @property
    def state(self) -> State | None:
        """The state after the last turn and its blank line; None before the first. Assigning continues from it."""
        if self._last is not None:
            # Encoded together with what will follow: some vocabularies write a final blank line differently.
            user = plain_encoder(self.tokenizer)(self.form.user)
            prompt = self._unfed(self.form.user)
            natural = np.array_equal(prompt[len(prompt) - len(user) :], user)
            prompt = prompt[: len(prompt) - len(user)] if natural else self._unfed("")
            self._state, self._last = self.model(prompt[None], self._state)[1], None
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state, self._last = state, None

    def _unfed(self, following: str) -> npt.NDArray[np.int64]:
        """Return what is still to be fed: the end of the model's turn, a blank line, and what follows."""
        assert self._last is not None
        self._state, ids = self._last.rest(self.tokenizer, "\n\n" + following)
        return ids
