"""One token of every sequence at the speed of memory: a model as a program of steps, run in one launch.

`program` holds the steps and `run` runs them; `memory` says which arrays they work on and `fields` how a kind of step
is declared. `rows`, `product` and the files named after mechanisms declare the kinds of steps, each with its compiled
code.
"""

from .memory import Operand, Pair, ProgramError, Unsuitable
from .program import Program

__all__ = ["Operand", "Pair", "Program", "ProgramError", "Unsuitable"]
