# mypy: allow-untyped-defs
# ruff: noqa: SIM102  an `if` on a constant must stand alone to be left out
"""The loop that runs a program: workers go through its phases together and claim the blocks of each."""

from __future__ import annotations

import functools
from typing import Any

from numba import prange

from .._address import fetch, fetch_add, pause
from .._jit import Kernel, inlined, kernel
from .attention import groups as attention_groups
from .gated_linear import heads as gated_linear_heads
from .integer_dots import quantise_rows
from .integer_product import integer_product
from .mamba1 import blocks as mamba1_blocks
from .mamba2 import heads as mamba2_heads
from .opcodes import (
    ATTENTION,
    CONVOLVE,
    COPY,
    EMBED,
    GATE,
    GATED_LINEAR,
    INTEGER_PRODUCT,
    MAMBA1,
    MAMBA2,
    MIX,
    NORM,
    PRODUCT,
    PUSH,
    QUANTISE,
    RWKV4,
    RWKV7,
)
from .product import product
from .rows import convolve, copy, embed, gate, mix, norm, push
from .rwkv4 import blocks as rwkv4_blocks
from .rwkv7 import heads as rwkv7_heads

COUNTERS = 16
"""Numbers from one counter to the next, so that they stand on cache lines of their own."""


_MIDDLES = {RWKV4, GATED_LINEAR, RWKV7, MAMBA1, MAMBA2, ATTENTION}
"""What stands between the large products of a layer."""


def runner(opcodes: set[int]) -> Kernel:
    """Return the loop for programs of these kinds of steps.

    One for every kind of layer, so that no other needs to be compiled, one for programs of several kinds and one for
    those of none; and the same again for programs with quantised matrices.
    """
    middles, quantised = opcodes & _MIDDLES, QUANTISE in opcodes
    return _runner(min(middles, default=PRODUCT) if len(middles) < 2 else -1, quantised)


def _prepare_of(quantised: bool) -> Any:
    """Return what does the steps that every worker does for itself."""

    @inlined
    def prepare(step, number, rows, private, slots):
        """Do one of them."""
        opcode = step[0]
        if opcode == NORM:
            norm(step, number, rows, private, slots)
        elif opcode == MIX:
            mix(step, rows, private, slots)
        elif opcode == GATE:
            gate(step, rows, private, slots)
        elif opcode == CONVOLVE:
            convolve(step, rows, private, slots)
        if quantised:
            if opcode == QUANTISE:
                quantise_rows(step, rows, private, slots)

    return prepare


def _do_of(middle: int, quantised: bool) -> Any:
    """Return what does blocks of a step; Numba leaves out what stands behind a constant False."""
    everything = middle < 0
    has_rwkv4, has_gated_linear = everything or middle == RWKV4, everything or middle == GATED_LINEAR
    has_rwkv7, has_attention = everything or middle == RWKV7, everything or middle == ATTENTION
    has_mamba1, has_mamba2 = everything or middle == MAMBA1, everything or middle == MAMBA2
    of_integers = integer_product()

    @inlined
    def do(step, number, first, stop, rows, private, slots, scratch):
        """Do some blocks of one step."""
        opcode = step[0]
        if opcode == PRODUCT:
            product(step, first, stop, rows, private, slots, scratch)
        elif opcode == COPY:
            copy(step, rows, private, slots)
        elif opcode == PUSH:
            push(step, rows, private, slots)
        elif opcode == EMBED:
            embed(step, number, rows, private, slots)
        if quantised:
            if opcode == INTEGER_PRODUCT:
                of_integers(step, first, stop, rows, private, slots, scratch)
        if has_rwkv4:
            if opcode == RWKV4:
                rwkv4_blocks(step, first, stop, rows, private, slots)
        if has_gated_linear:
            if opcode == GATED_LINEAR:
                gated_linear_heads(step, number, first, stop, rows, private, slots, scratch)
        if has_rwkv7:
            if opcode == RWKV7:
                rwkv7_heads(step, number, first, stop, rows, private, slots, scratch)
        if has_mamba1:
            if opcode == MAMBA1:
                mamba1_blocks(step, first, stop, rows, private, slots, scratch)
        if has_mamba2:
            if opcode == MAMBA2:
                mamba2_heads(step, first, stop, private, slots, scratch)
        if has_attention:
            if opcode == ATTENTION:
                attention_groups(step, number, first, stop, private, slots, scratch)

    return do


@functools.cache
def _runner(middle: int, quantised: bool) -> Kernel:
    """Return the loop for one kind of layer, or for all (-1), without or with quantised matrices."""
    do, prepare = _do_of(middle, quantised), _prepare_of(quantised)

    def run(
        steps,  # IN  (S, fields) opcode, blocks (less than 0: for each row), and what the opcode needs
        numbers,  # IN  (S, 1) float32
        phases,  # IN  (P, 5) first step of a worker's own, first shared one, end, blocks of these, and for each row
        first,  # IN  phase to begin with
        stop,  # IN  phase to end before
        rows,  # IN  tokens, one a sequence
        slots,  # IN  addresses of what differs from call to call
        counters,  # INOUT (P, workers + 1, COUNTERS) zeros: blocks claimed of every worker's run, blocks finished
        own,  # scratch (workers, ...) float32, the places of a worker's own
        scratch,  # scratch (workers, ...) float32
    ):
        """Run some phases of a program.

        Every worker has a run of a phase's blocks, so that it reads memory in order. It claims a third of what is left
        of it at a time, so that all are done together, and then of those of others. Whoever claims a block does it: a
        worker that never gets a core costs nothing, and one alone finishes everything.
        """
        workers = own.shape[0]
        for worker in prange(workers):
            private, room = own[worker].ctypes.data, scratch[worker].ctypes.data
            for p in range(first, stop):
                begin, shared, blocks = phases[p, 0], phases[p, 1], phases[p, 3] + phases[p, 4] * rows
                here = p * (workers + 1) * COUNTERS
                finished = here + workers * COUNTERS
                if fetch(counters, finished) == blocks:
                    continue
                for i in range(begin, shared):
                    prepare(steps[i], numbers[i], rows, private, slots)
                for turn in range(workers):
                    owner = (worker + turn) % workers
                    low, high = blocks * owner // workers, blocks * (owner + 1) // workers
                    claimed = here + owner * COUNTERS
                    left = high - low - fetch(counters, claimed)
                    while left > 0:
                        many = max(1, left // 3)
                        block = low + fetch_add(counters, claimed, many)
                        end = min(high, block + many)
                        i, before = shared, 0
                        while before < end:
                            n = steps[i, 1] if steps[i, 1] >= 0 else -steps[i, 1] * rows
                            if block < before + n and block < end:
                                a, b = max(0, block - before), min(n, end - before)
                                do(steps[i], numbers[i], a, b, rows, private, slots, room)
                            before += n
                            i += 1
                        if block < high:
                            fetch_add(counters, finished, end - block)
                        left = high - low - fetch(counters, claimed)
                while fetch(counters, finished) < blocks:
                    pause()

    return kernel(run, name=f"{middle} quantised" if quantised else str(middle))
