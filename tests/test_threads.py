"""Threads: how many, and that no threading layer aborts, hangs or fights."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numba
import numpy as np
import pytest

from wkvnp import _threads
from wkvnp._jit import kernel, set_num_threads, threads
from wkvnp._system import system_report
from wkvnp.errors import ArgumentError

Program = Callable[..., CompletedProcess[str]]
MOST = numba.config.NUMBA_NUM_THREADS

# A kernel in a file of its own would have to be in the package; here it is compiled each time, in 0.3 s.
KERNEL = """
import threading, numpy as np
from numba import prange
from wkvnp._jit import kernel, set_num_threads, threads
from wkvnp import _threads

@kernel
def rows(x, y):
    for m in prange(x.shape[0]):
        s = 0.0
        for i in range(x.shape[1]):
            s += x[m, i] * x[m, i]
        y[m] = s

x = np.arange(64.0 * 50).reshape(64, 50)
right = (x * x).sum(1)
def launch():
    y = np.zeros(64)
    rows(x, y)
    return bool(np.allclose(y, right))
"""


@kernel
def count_threads(x, y):
    for i in numba.prange(x.size):
        y[i] = numba.get_num_threads()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    set_num_threads(None)


def used_threads() -> int:
    y = np.zeros(8)
    count_threads(y, y)
    return int(y.max())


@pytest.mark.skipif(MOST < 2, reason="needs two threads")
def test_the_number_of_threads_can_be_set() -> None:
    set_num_threads(2)
    assert threads() == used_threads() == 2
    set_num_threads(np.int64(1))
    assert threads() == 1
    set_num_threads(None)
    assert threads() == _threads.default_threads()


def test_it_is_set_for_every_python_thread(program: Program) -> None:
    done = program(
        KERNEL
        + """
import numba

@kernel
def count_threads(x, y):
    for i in prange(x.size):
        y[i] = numba.get_num_threads()

def used():
    y = np.zeros(8)
    count_threads(y, y)
    print(int(y.max()))

set_num_threads(2)
used()
worker = threading.Thread(target=used)
worker.start()
worker.join()
set_num_threads(3)
used()
""",
        NUMBA_NUM_THREADS="4",
    )
    assert done.stdout.split() == ["2", "2", "3"], done.stderr


@pytest.mark.parametrize("n", [0, -1, MOST + 1, 1.5, "two", True])
def test_impossible_numbers_of_threads_are_refused(n: Any) -> None:
    before = threads()
    with pytest.raises(ArgumentError, match=r"set_num_threads: n must be .*; got "):
        set_num_threads(n)
    assert threads() == before


BAD_SETTINGS = [
    ({"NUMBA_NUM_THREADS": "0"}, "NUMBA_NUM_THREADS must be a whole number from 1; got '0'"),
    ({"NUMBA_NUM_THREADS": "-2"}, "NUMBA_NUM_THREADS must be a whole number from 1; got '-2'"),
    ({"NUMBA_NUM_THREADS": "two"}, "NUMBA_NUM_THREADS must be a whole number from 1; got 'two'"),
    ({"NUMBA_NUM_THREADS": ""}, "NUMBA_NUM_THREADS must be a whole number from 1; got ''"),
    ({"WKVNP_NUM_THREADS": "0"}, "WKVNP_NUM_THREADS must be a whole number from 1; got '0'"),
    ({"NUMBA_THREADING_LAYER": "klingon"}, "NUMBA_THREADING_LAYER must be one of default, safe, .*; got 'klingon'"),
    ({"NUMBA_THREADING_LAYER": "tbb"}, "NUMBA_THREADING_LAYER is 'tbb', which needs .*: pip install tbb"),
    ({"NUMBA_THREADING_LAYER": "safe"}, "NUMBA_THREADING_LAYER is 'safe', which needs .*: pip install tbb"),
    ({"NUMBA_THREADING_LAYER_PRIORITY": "omp"}, "NUMBA_THREADING_LAYER_PRIORITY must name tbb, omp and .*; got 'omp'"),
]


@pytest.mark.parametrize(("variables", "words"), BAD_SETTINGS)
@pytest.mark.parametrize("way", ["python", "command"])
def test_impossible_settings_of_numba_are_refused(
    program: Program, way: str, variables: dict[str, str], words: str
) -> None:
    if "pip install tbb" in words and "tbb" in system_report()["threading layers"]:
        pytest.skip("tbb is installed here")
    call = """
        import numpy as np
        try:
            import wkvnp
            x = np.full((1, 700, 8, 64), 0.1, np.float32)
            wkvnp.rwkv6(x, -x, x, x, x[0, 0])
        except wkvnp.errors.ArgumentError as error:
            print(error)
    """
    command = """
        import sys
        from wkvnp.cli import main
        sys.stderr = sys.stdout
        raise SystemExit(main(["generate", "a" * 600, "-n", "1", "-q"]) - 1)
    """
    variables = {"NUMBA_NUM_THREADS": "2", "WKVNP_NUM_THREADS": "2"} | variables
    done = program(call if way == "python" else command, **variables)
    begins = "" if way == "python" else "wkvnp: error: "
    assert re.fullmatch(f"{begins}{words}.*\n", done.stdout), done
    assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WKVNP_NUM_THREADS", "1")
    assert _threads.default_threads() == 1
    monkeypatch.setenv("WKVNP_NUM_THREADS", "1000")
    assert _threads.default_threads() == MOST
    for bad in ("0", "-1", "two", "1.5", ""):
        monkeypatch.setenv("WKVNP_NUM_THREADS", bad)
        with pytest.raises(ArgumentError, match="WKVNP_NUM_THREADS must be a whole number from 1; got "):
            _threads.default_threads()


def test_a_container_quota_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WKVNP_NUM_THREADS", raising=False)
    monkeypatch.setattr(_threads, "most_threads", lambda: 8)
    monkeypatch.setattr(_threads, "usable_cores", lambda: 6)
    for quota, expected in ((None, 6), (3.5, 3), (0.5, 1), (100.0, 6)):
        monkeypatch.setattr(_threads, "cpu_quota", lambda quota=quota: quota)
        assert _threads.default_threads() == expected


def test_quotas_of_both_kinds_of_control_groups_are_read(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    assert _threads.cpu_quota(tmp_path, groups) is None
    groups.write_text("12:memory:/outer\n3:cpu,cpuacct:/outer/inner\n0::/outer/inner\nnonsense\n")
    assert _threads.cpu_quota(tmp_path, groups) is None
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    assert _threads.cpu_quota(tmp_path, groups) is None
    (tmp_path / "outer" / "cpu.max").write_text("350000 100000\n")
    assert _threads.cpu_quota(tmp_path, groups) == 3.5
    (tmp_path / "cpu.max").write_text("garbage\n")
    assert _threads.cpu_quota(tmp_path, groups) == 3.5
    old = tmp_path / "cpu" / "outer" / "inner"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert _threads.cpu_quota(tmp_path, groups) == 3.5
    (old / "cpu.cfs_quota_us").write_text("150000\n")
    assert _threads.cpu_quota(tmp_path, groups) == 1.5


def test_quotas_of_outer_groups_stop_at_the_root(tmp_path: Path) -> None:
    assert _threads._upwards(tmp_path, "/") == [tmp_path]
    assert _threads._upwards(tmp_path, "/a/b") == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]


@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_python_threads_may_launch_at_once(program: Program, layer: str) -> None:
    done = program(
        KERNEL
        + """
launch()
results = []
def repeat():
    results.append(all(launch() for _ in range(300)))
workers = [threading.Thread(target=repeat) for _ in range(4)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
print(_threads.layer(), threads(), *results)
""",
        NUMBA_THREADING_LAYER=layer,
        NUMBA_NUM_THREADS="2",
        WKVNP_NUM_THREADS="2",
    )
    if "pip install tbb" in done.stderr or "cannot be started here" in done.stderr:
        pytest.skip(f"the threading layer {layer} is not installed")
    assert done.stdout.split() == [layer, "2", *["True"] * 4], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_a_forked_child_may_launch(program: Program, layer: str) -> None:
    done = program(
        KERNEL
        + """
import multiprocessing
launch()
def child(_):
    return launch() and launch(), threads()
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*[word for pair in pool.map(child, range(4), chunksize=2) for word in pair], launch())
""",
        timeout=30,
        NUMBA_THREADING_LAYER=layer,
        NUMBA_NUM_THREADS="2",
        WKVNP_NUM_THREADS="2",
    )
    if "pip install tbb" in done.stderr or "cannot be started here" in done.stderr:
        pytest.skip(f"the threading layer {layer} is not installed")
    count = "1" if layer == "omp" else "2"
    assert done.stdout.split() == [*["True", count] * 4, "True"], done.stderr
    warned = done.stderr.count("RuntimeWarning: wkvnp: this process was forked")
    assert warned in ((1, 2) if layer == "omp" else (0,)), done.stderr  # once in each child that ran a task


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_a_process_that_never_launched_has_all_threads(program: Program) -> None:
    done = program(
        KERNEL
        + """
import os, sys
child = os.fork()
if child == 0:
    print(launch(), threads(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
""",
        timeout=30,
        NUMBA_NUM_THREADS="2",
        WKVNP_NUM_THREADS="2",
    )
    assert done.stdout.split() == ["True", "2"], done.stderr


def test_one_thread_starts_no_threading_layer(program: Program) -> None:
    done = program(KERNEL + "print(launch(), _threads.layer())", WKVNP_NUM_THREADS="1")
    assert done.stdout.split() == ["True", "None"], done.stderr


def test_idle_workers_are_told_to_sleep_only_while_openmp_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "WKVNP_OMP_PEACE"):
        monkeypatch.delenv(name, raising=False)
    with _threads.at_peace_with_blas():
        assert os.environ["GOMP_SPINCOUNT"] == "10000"
    assert "GOMP_SPINCOUNT" not in os.environ
    for name, value in (("OMP_WAIT_POLICY", "active"), ("WKVNP_OMP_PEACE", "0")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with _threads.at_peace_with_blas():
                assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    with _threads.at_peace_with_blas():
        assert os.environ["GOMP_SPINCOUNT"] == "7"
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_openmp_hears_it(program: Program) -> None:
    done = program(KERNEL + "launch(); print(_threads.layer())", NUMBA_NUM_THREADS="2", OMP_DISPLAY_ENV="VERBOSE")
    if done.stdout.split() != ["omp"] or "GOMP_" not in done.stderr:
        pytest.skip("the threading layer is not GNU OpenMP")
    assert "GOMP_SPINCOUNT = '10000'" in done.stderr


def test_the_report_answers_every_question() -> None:
    report = system_report()
    assert {"wkvnp", "numba", "threads", "threading layer", "threading layers", "kernel cache", "gpu"} <= set(report)
    assert "workqueue" in report["threading layers"]
    assert report["threads"] == threads()
    assert not any(str(answer).startswith("unknown") for answer in report.values()), report
    json.dumps(report)


def test_the_report_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such luck")

    for name in ("threads", "share"):
        monkeypatch.setattr(_threads, name, fail)
    monkeypatch.setattr("importlib.import_module", fail)
    report = system_report()
    for question in ("threads", "threading layers", "threading layer", "processor", "gpu"):
        assert report[question] == "unknown (RuntimeError: no such luck)"
