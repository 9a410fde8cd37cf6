"""Where a continuation ends, as a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..tokenizers.plain_text import plain_encoder
from .stream import Piece

if TYPE_CHECKING:
    from ..models.language_model import Model
    from ..models.state import State
    from ..tokenizers import Tokenizer


class Transcript:
    """Follows the pieces of one prompt, so that the state after exactly the written text can be had at any time.

    The last piece's own state is that before its token, and where a stop string ended the text, tokens of the stop
    string were fed already. A transcript remembers the last state before which everything was written out, and
    what was written since.

    Attributes
    ----------
    text : str
        Everything written so far.
    finish : str or None
        How it ended; None while it has not.

    Examples
    --------
    >>> import wkvnp
    >>> plain = wkvnp.load_tokenizer("bytes")
    >>> model = wkvnp.random_model("rwkv7", n_layer=1, n_embd=64, vocab_size=256, rng=0)
    >>> transcript = Transcript()
    >>> for piece in wkvnp.generate(model, plain, "Hi", max_tokens=3, rng=1):
    ...     transcript.add(piece)
    >>> state = transcript.state(model, plain)
    >>> more = wkvnp.generate(model, plain, " and on", state=state)
    """

    def __init__(self) -> None:
        self.text = ""
        self.finish: str | None = None
        self._anchor: State | None = None
        self._ids: list[int] = []
        self._tail = ""
        self._held = False

    def add(self, piece: Piece) -> None:
        """Take in the next piece."""
        if not self._held:
            self._anchor, self._ids, self._tail = piece.state, [], ""
        if piece.token is not None:
            self._ids.append(piece.token)
        self._tail += piece.text
        self.text += piece.text
        self._held, self.finish = piece.held, piece.finish

    def rest(self, tokenizer: Tokenizer, following: str = "") -> tuple[State, npt.NDArray[np.int64]]:
        """Return a state, and the tokens still to feed into it to be after the written text and `following`.

        Both stay text: what is written in them never becomes a control token.
        """
        assert self._anchor is not None, "a transcript without pieces has no state"
        encode = plain_encoder(tokenizer)
        if self.finish == "stop":
            return self._anchor, np.asarray(encode(self._tail + following), np.int64)
        ids = np.array(self._ids, np.int64)
        return self._anchor, np.concatenate([ids, np.asarray(encode(following), np.int64)])

    def state(self, model: Model, tokenizer: Tokenizer) -> State:
        """Return the state after the prompt and the written text, without a stop token or stop string."""
        state, ids = self.rest(tokenizer)
        return model(ids[None], state)[1] if len(ids) else state
