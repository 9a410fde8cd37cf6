"""One token of every sequence at the speed of memory: a model as a list of steps, done in one launch.

`program` makes the list, `run` goes through it, `product`, `dots` and `many_dots` read the matrices, `rows` holds the
small steps that every worker does for itself, and the files named after mechanisms what stands between the large
products.
"""

from .attention import attention_groups
from .gated_linear import gated_linear_heads
from .mamba1 import selective_blocks
from .mamba2 import state_space_heads
from .places import Pair, Place, Unsuitable
from .program import Program
from .rwkv4 import wkv
from .rwkv7 import rwkv7_heads, rwkv7_tokens

__all__ = [
    "Pair",
    "Place",
    "Program",
    "Unsuitable",
    "attention_groups",
    "gated_linear_heads",
    "rwkv7_heads",
    "rwkv7_tokens",
    "selective_blocks",
    "state_space_heads",
    "wkv",
]
