"""From a prompt to text: sampling, the stream of pieces, prompt forms and conversations."""

from __future__ import annotations

from .chat import Chat
from .prompts import FORMS, ChatForm, clean
from .sampling import distribution, draw, keep_top_k, keep_top_p, log_probability, sample, sharpen, softmax
from .stops import StopWatch
from .stream import Piece, generate
from .transcript import Transcript

__all__ = [
    "FORMS",
    "Chat",
    "ChatForm",
    "Piece",
    "StopWatch",
    "Transcript",
    "clean",
    "distribution",
    "draw",
    "generate",
    "keep_top_k",
    "keep_top_p",
    "log_probability",
    "sample",
    "sharpen",
    "softmax",
]
