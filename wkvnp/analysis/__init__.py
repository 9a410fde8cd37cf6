"""Questions about a model and a text, one file each."""

from __future__ import annotations

from .perplexity import Score, score

__all__ = ["Score", "score"]
