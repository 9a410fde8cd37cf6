"""The operations that the blocks of all models are written in, and the executors that run them.

A block is one function of an executor and a value. `Prompts` runs every operation at once on the rows of all tokens,
`Tokens` records it as a step of a program for one token of every sequence, `Oracle` runs its meaning in NumPy and
float64.
"""

from .attention_state import AttentionState
from .interface import LowRank, Mixes, Operations, Product, SoftmaxAttention, Value
from .prompts import Prompts

__all__ = ["AttentionState", "LowRank", "Mixes", "Operations", "Product", "Prompts", "SoftmaxAttention", "Value"]
