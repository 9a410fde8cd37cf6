# mypy: allow-untyped-defs
"""The loop that runs a program: workers go through its phases together and claim the blocks of each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange

from .._address import fetch, fetch_add, floats, integers, pause
from .._jit import Kernel, inlined, kernel
from .attention import ATTENTION
from .fields import BLOCKS, OPCODE, ROW_BLOCKS, Kind
from .gated_linear import GATED_LINEAR
from .integer_dots import QUANTISE
from .integer_product import INTEGER_PRODUCT
from .mamba1 import SELECTIVE
from .mamba2 import STATE_SPACE
from .product import PRODUCT
from .rows import CONVOLVE, COPY, EMBED, GATE, MIX, NORM, PUSH
from .rwkv4 import WKV
from .rwkv7 import RWKV7

COUNTERS = 16
"""Numbers from one counter to the next, so that each is on a cache line of its own."""
_EVERYWHERE = (PRODUCT, NORM, MIX, GATE, CONVOLVE, COPY, PUSH, EMBED)
_MIXERS = (RWKV7, ATTENTION, GATED_LINEAR, WKV, SELECTIVE, STATE_SPACE)
"""Recurrences and attention: most models have one of them."""
_QUANTISED = (INTEGER_PRODUCT, QUANTISE)


def runner(kinds: set[Kind]) -> Kernel:
    """Return the loop for programs of these kinds of steps.

    There is one for every mixer, so that no other needs to be compiled, one for programs with several mixers and one
    for those with none; and the same again for programs with quantised matrices.
    """
    mixers = tuple(kind for kind in _MIXERS if kind in kinds)
    return _runner(mixers if len(mixers) < 2 else _MIXERS, QUANTISE in kinds)


def _dispatch(kinds: Sequence[Kind]) -> Any:
    """Return what runs a step of one of these kinds."""
    if not kinds:

        @inlined
        def nothing(step, number, first, stop, rows, private, slots, scratch):
            """Run no step."""

        return nothing
    opcode, do, otherwise = kinds[0].opcode, kinds[0].run, _dispatch(kinds[1:])

    @inlined
    def dispatch(step, number, first, stop, rows, private, slots, scratch):
        """Run a step of the first of the kinds, or try the others."""
        if step[OPCODE] == opcode:
            do(step, number, first, stop, rows, private, slots, scratch)
        else:
            otherwise(step, number, first, stop, rows, private, slots, scratch)

    return dispatch


def _blocks(kinds: Sequence[Kind]) -> Any:
    """Return what runs the blocks from one number to another of steps that follow each other."""
    do = _dispatch(kinds)

    @inlined
    def blocks(step, number, i, block, end, rows, private, slots, scratch):
        """Run blocks, which are counted from the first of step i."""
        past = 0
        while past < end:
            n = step[i, BLOCKS] + step[i, ROW_BLOCKS] * rows
            if block < past + n and block < end:
                first, stop = max(0, block - past), min(n, end - past)
                do(step[i], number[i], first, stop, rows, private, slots, scratch)
            past += n
            i += 1

    return blocks


@functools.cache
def _runner(mixers: tuple[Kind, ...], quantised: bool) -> Kernel:
    """Return the loop for programs with these mixers, without or with quantised matrices."""
    kinds = (*_EVERYWHERE, *(_QUANTISED if quantised else ()), *mixers)
    prepare = _dispatch([kind for kind in kinds if kind.private])
    do = _blocks([kind for kind in kinds if not kind.private])

    def run(
        steps,  # IN  (S, fields) int64
        numbers,  # IN  (S, fields) float32
        phases,  # IN  (P, 5) first step, first shared step, end, blocks of the shared steps, their blocks for each row
        first,  # IN  phase to begin with
        stop,  # IN  phase to end before
        rows,  # IN  tokens, one a sequence
        slots,  # IN  addresses of what differs from call to call
        counters,  # INOUT (P, workers + 1, COUNTERS) zeros: blocks claimed of every worker's share, blocks finished
        private_memory,  # scratch (workers, ...) float32
        scratch_memory,  # scratch (workers, ...) float32
    ):
        """Run some phases of a program.

        Every worker has a share of a phase's blocks, so that it reads memory in order. It claims a third of what is
        left of it at a time, so that all finish together, and then of the shares of others. Each claimed block is done
        by its claimant: a worker that never gets a core costs nothing, and one alone finishes everything.
        """
        workers = private_memory.shape[0]
        for worker in prange(workers):
            private = np.int64(private_memory[worker].ctypes.data)
            scratch = np.int64(scratch_memory[worker].ctypes.data)
            step, number = integers(steps.ctypes.data, steps.shape), floats(numbers.ctypes.data, numbers.shape)
            for p in range(first, stop):
                begin, shared, blocks = phases[p, 0], phases[p, 1], phases[p, 3] + phases[p, 4] * rows
                here = p * (workers + 1) * COUNTERS
                finished = here + workers * COUNTERS
                if fetch(counters, finished) == blocks:
                    continue
                for i in range(begin, shared):
                    prepare(step[i], number[i], 0, 1, rows, private, slots, scratch)
                for turn in range(workers):
                    owner = (worker + turn) % workers
                    low, high = blocks * owner // workers, blocks * (owner + 1) // workers
                    claimed = here + owner * COUNTERS
                    left = high - low - fetch(counters, claimed)
                    while left > 0:
                        several = max(1, left // 3)
                        block = low + fetch_add(counters, claimed, several)
                        end = min(high, block + several)
                        do(step, number, shared, block, end, rows, private, slots, scratch)
                        if block < high:
                            fetch_add(counters, finished, end - block)
                        left = high - low - fetch(counters, claimed)
                while fetch(counters, finished) < blocks:
                    pause()

    name = " ".join(kind.name for kind in mixers) or "products"
    return kernel(run, name=f"{name} quantised" if quantised else name)
