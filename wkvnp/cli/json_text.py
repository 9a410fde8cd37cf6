"""JSON as the standard has it: no NaN and no Infinity, which other readers refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any) -> str:
    """Return a value as JSON on one line; numbers that are not finite become null.

    Examples
    --------
    >>> json_text({"perplexity": math.inf, "ranks": [1, math.nan]})
    '{"perplexity": null, "ranks": [1, null]}'
    """
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value
