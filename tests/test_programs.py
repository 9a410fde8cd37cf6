"""A program is checked before compiled code sees it: a wrong field, index or size is an error that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import wkvnp
from wkvnp._jit import interpreted
from wkvnp.decoding import Program, ProgramError
from wkvnp.decoding.fields import Choice, Kind, Matrix, Number, Rows, Size, Slot, State, Vector
from wkvnp.decoding.memory import Storage
from wkvnp.decoding.rows import COPY, NORM
from wkvnp.decoding.rwkv7 import RWKV7

MODELS: dict[str, dict[str, Any]] = {
    "rwkv4": {},
    "rwkv6": {},
    "rwkv7": {},
    "mamba1": {},
    "mamba2": {"n_group": 2},
    "transformer": {"n_group": 2},
}
compiled = pytest.mark.skipif(interpreted(), reason="programs are compiled")


def program_of(architecture: str, dtype: str = "float32") -> Program:
    sizes = {"n_layer": 2, "n_embd": 64, "vocab_size": 59, "head_size": 16, "rng": 0}
    found = wkvnp.random_model(architecture, dtype=dtype, **sizes | MODELS[architecture]).program
    assert isinstance(found, Program)
    return found


def norm_fields(p: Program) -> dict[str, Any]:
    weight = np.ones(32, np.float32)
    return {
        "x": p.memory.slot("x", 32),
        "y": p.memory.private("y", 32),
        "weight": weight,
        "group": 32,
        "eps": 1e-5,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": None}, "norm: weight is missing"),
        ({"group": None}, "norm: group is missing"),
        ({"wieght": 1}, "norm: has no field wieght; has x, y, weight, bias, C, group, eps"),
        ({"weight": np.ones(33)}, "norm: (weight|y|x) must have C = (32|33) numbers; has (32|33)"),
        ({"bias": np.ones(31)}, "norm: bias must have C = 32 numbers; has 31"),
        ({"C": 16}, "norm: x must have C = 16 numbers; has 32"),
    ],
)
def test_a_field_that_is_missing_unknown_or_of_the_wrong_size_is_named(changes: dict[str, Any], message: str) -> None:
    p = Program(3)
    fields = {name: value for name, value in (norm_fields(p) | changes).items() if value is not None}
    p.after(set(), set())
    with pytest.raises(ProgramError, match=message):
        p.add(NORM, **fields)


def test_a_step_cannot_read_what_its_own_phase_writes() -> None:
    p = Program(3)
    x, y, z = p.memory.slot("x", 32), p.memory.buffer("y", 32), p.memory.buffer("z", 32)
    p.after(set(), {y.home})
    p.add(COPY, x=x, y=y, blocks=1)
    with pytest.raises(ProgramError, match="copy: x is y, which the same phase writes"):
        p.add(COPY, x=y, y=z, blocks=1)
    assert p.after({y.home}, {z.home}) == 1, "a step that reads it begins the next phase"
    p.add(COPY, x=y, y=z, blocks=1)


def test_a_part_must_be_inside() -> None:
    with pytest.raises(ProgramError, match="q: has 32 numbers; 16 to 48 are not all there"):
        Program(1).memory.buffer("q", 32).part(16, 32)


def mutations(kind: Kind, name: str) -> list[tuple[int, int]]:
    """Return which numbers of a field to change, and by how much: each makes it refer to something else."""
    field = kind.declared[name]
    if type(field) is Rows:
        return [(0, 3), (1, 1000), (2, -(1 << 20)), (2, 1 << 30), (3, -4), (3, 4)]
    if isinstance(field, Matrix):
        return [(0, 8), (1, 7), (2, 64), (2, -64)]
    if type(field) is State:
        return [(0, 1000), (1, 1000), (0, -1000)]
    changes: dict[type, list[tuple[int, int]]] = {
        Vector: [(0, 4), (0, -4)],
        Slot: [(0, 1000), (0, -1000)],
        Choice: [(0, 100), (0, -100)],
        Size: [(0, 1), (0, -1), (0, 1 << 40)],
        Number: [],
    }
    return changes[type(field)]


@compiled
@pytest.mark.parametrize("architecture", MODELS)
def test_a_changed_number_of_a_packed_program_is_an_error_that_names_the_field(architecture: str) -> None:
    p, seen = program_of(architecture), set()
    p.check()
    found = 0
    for number, row in enumerate(p.packed):
        kind = Kind.known[row[0]]
        if kind in seen:
            continue
        seen.add(kind)
        for name in kind.declared:
            at = getattr(kind.fields, name)
            for position, change in mutations(kind, name):
                if type(kind.declared[name]) is Rows and row[at] == Storage.NONE:
                    continue
                optional = type(kind.declared[name]) is Size and kind.declared[name].optional and not row[at]
                if name in ("units", "window") or optional or (isinstance(kind.declared[name], Matrix) and not row[at]):
                    continue  # any size of a block or a window is one
                before = row[at + position]
                row[at + position] += change
                with pytest.raises(ProgramError, match=rf"^step {number} \({kind.name}\): \w+ "):
                    p.check()
                row[at + position] = before
                found += 1
        before, row[0] = row[0], row[0] + 1
        with pytest.raises(ProgramError, match=f"step {number}: has no known kind"):
            p.check()
        row[0] = before
    p.check()
    assert found > 100
    p.table[0, 3] += 1
    with pytest.raises(ProgramError, match="phases: the steps have"):
        p.check()


@compiled
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_every_kind_of_step_has_code(dtype: str) -> None:
    kinds = {
        step.kind for a in MODELS for phase in program_of(a, dtype).phases for step in phase.private + phase.shared
    }
    assert all(callable(kind.run) for kind in kinds)
    assert RWKV7 in kinds and NORM in kinds
    assert len({kind.opcode for kind in Kind.known.values()}) == len(Kind.known)
