"""Compiled functions and kernels: what the decorators promise, whatever is compiled."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable
from subprocess import CompletedProcess

import numpy as np
import pytest
from numba import prange

from wkvnp import _fingerprint
from wkvnp._jit import Kernel, jit, kernel

Program = Callable[..., CompletedProcess[str]]


@jit
def largest(row):
    best = -np.float32(np.inf)
    for x in row:
        best = x if x > best else best
    return best


@kernel
def largest_of_rows(x, y):
    for m in prange(x.shape[0]):
        y[m] = largest(x[m])


@kernel
def oddities(x, y):
    for m in prange(x.size):
        y[m] = 1 if np.isnan(x[m]) else 2 if np.isinf(x[m]) else 0


@kernel
def quotients(x, y):
    for m in prange(x.size):
        y[m] = x[m] / (x[m] - x[m])


@pytest.mark.interpreted
def test_both_ways_of_running_a_kernel_agree() -> None:
    x = np.random.default_rng(0).standard_normal((5, 7), dtype=np.float32)
    shared, alone = np.full((2, 5), np.nan, np.float32)
    assert largest_of_rows(x, shared) is None
    assert largest_of_rows.serial(x, alone) is None
    np.testing.assert_array_equal(shared, x.max(axis=1))
    np.testing.assert_array_equal(alone, shared)


def test_infinity_and_nan_survive_fast_arithmetic() -> None:
    x = np.array([[-np.inf, -np.inf], [np.inf, 0]], np.float32)
    y = np.zeros(2, np.float32)
    largest_of_rows.serial(x, y)
    np.testing.assert_array_equal(y, [-np.inf, np.inf])
    x, y = np.array([np.nan, np.inf, 1], np.float32), np.zeros(3, np.float32)
    oddities.serial(x, y)
    np.testing.assert_array_equal(y, [1, 2, 0])


def test_division_by_zero_is_not_an_exception() -> None:
    y = np.ones(2)
    quotients.serial(np.array([0.0, 1.0]), y)
    assert np.isnan(y[0])
    assert not np.isfinite(y[1])


def test_a_kernel_is_named_after_its_function() -> None:
    assert repr(largest_of_rows) == f"<kernel {__name__}.largest_of_rows>"
    assert isinstance(largest_of_rows, Kernel)
    assert largest_of_rows.function.__name__ == "largest_of_rows"


def test_a_kernel_from_a_factory_says_which_it_is() -> None:
    def make() -> Kernel:
        def loop(x):
            x[0] = 1

        return kernel(loop, name="silu")

    assert repr(make()).endswith("loop[silu]>")


def test_every_kernel_of_the_package_can_be_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fingerprint.Text, "edited", lambda *_: False)  # somebody may be at work
    found = []
    for folder in _fingerprint._FOLDERS:
        package = importlib.import_module(f"wkvnp.{folder}")
        for module in pkgutil.walk_packages(package.__path__, f"wkvnp.{folder}."):
            if not module.name.endswith(".cuda"):
                found += [
                    thing for thing in vars(importlib.import_module(module.name)).values() if type(thing) is Kernel
                ]
    assert len(found) > 5
    assert [thing for thing in found if _fingerprint.fingerprint(thing.function) is None] == []


def test_nothing_is_taken_for_granted_of_another_processor(program: Program) -> None:
    text = """
import numpy as np
import wkvnp
from wkvnp import _matrix_unit
from wkvnp.primitives.linear_map import linear_map
x = np.arange(40 * 16, dtype=np.float32).reshape(40, 16)
halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, 1)
found = linear_map(np.ones((1, 1), np.float32), halves)[0]
print(_matrix_unit.available(), np.array_equal(linear_map(x, x[:3]), x @ x[:3].T))
print(np.array_equal(found, halves[:, 0].astype(np.float32), equal_nan=True))
sizes = {"n_layer": 1, "n_embd": 64, "vocab_size": 16, "rng": 0}
for dtype in ("float16", "int8", "int4"):
    model = wkvnp.random_model("rwkv4", dtype=dtype, **sizes)
    print(np.isfinite(model([1], model([2])[1])[0]).all())
"""
    done = program(text, NUMBA_CPU_NAME="generic")  # instructions that it does not know would end the process
    assert done.stdout.split() == ["False", "True", "True", "True", "True", "True"], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_do_not_count_alike(program: Program) -> None:
    done = program(
        """
        import os
        import wkvnp._jit as _jit
        from numba.core.bytecode import FunctionIdentity

        _jit.jit(lambda: 0)
        for _ in range(2):
            child = os.fork()
            if child == 0:
                print(next(FunctionIdentity._unique_ids), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        print(next(FunctionIdentity._unique_ids))
        """
    )
    assert len(set(done.stdout.split())) == 3, done.stderr


def test_importing_the_floor_does_not_import_numba(program: Program) -> None:
    done = program("import sys, wkvnp._jit; print('numba' in sys.modules)")
    assert done.stdout.split() == ["False"], done.stderr


def test_kernels_run_without_the_compiler(program: Program) -> None:
    done = program(
        """
        import numpy as np
        from numba import prange
        from wkvnp._jit import jit, kernel, threads

        @jit
        def square(x):
            return x * x

        @kernel
        def squares(x, y):
            for i in prange(x.size):
                y[i] = square(x[i])

        y = np.zeros((2, 3))
        squares(np.arange(3.0), y[0])
        squares.serial(np.arange(3.0), y[1])
        print(*y.astype(int).ravel(), type(square).__name__)
        """,
        NUMBA_DISABLE_JIT="1",
    )
    assert done.stdout.split() == ["0", "1", "4", "0", "1", "4", "function"], done.stderr


def test_a_kernel_is_assembled_once_with_all_that_it_calls(program: Program) -> None:
    done = program(
        """
        import numpy as np
        from numba import prange
        from numba.core import codegen
        from wkvnp._jit import inlined, jit, kernel, set_num_threads

        assembled, assemble = [], codegen.JITCodeLibrary._finalize_specific

        def counted(library):
            if library.name != "nrt":  # Numba's own, once a process
                assembled.append(library.name)
            assemble(library)

        codegen.JITCodeLibrary._finalize_specific = counted

        @jit
        def square(x):
            return x * x

        @inlined
        def next_square(x):
            return square(x + 1)

        @kernel
        def squares(x, y):
            for i in prange(x.size):
                y[i] = next_square(x[i])

        set_num_threads(2)
        x, y = np.arange(3.0), np.zeros(3)
        squares(x, y)
        print(*y.astype(int), *assembled)
        y[:] = 0
        squares.serial(x, y)
        print(*y.astype(int), *assembled[1:])
        print(square(3), next_square(3))  # Python calls Python
        """,
        WKVNP_CACHE="0",
    )
    assert done.stdout.splitlines() == ["1 4 9 squares", "1 4 9 squares", "9 16"], done.stderr


def test_small_work_stays_on_the_calling_thread() -> None:
    def fill(y):  # type: ignore[no-untyped-def]
        for i in range(y.size):
            y[i] = 1

    made = kernel(fill)
    assert made.sized(10) == made.serial
    assert made.sized(10**9) is made
