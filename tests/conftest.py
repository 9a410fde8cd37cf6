"""What all tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import wkvnp

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a script starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of checkpoints, vocabularies and texts that are too large for the repository."""
    stated = os.environ.get("WKVNP_TEST_DATA")
    if not stated:
        pytest.skip("set WKVNP_TEST_DATA to the folder of test checkpoints and vocabularies")
    folder = Path(stated)
    if not folder.is_dir():
        pytest.skip(f"WKVNP_TEST_DATA={stated} is not a folder")
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs Python text in a process of its own, with a cache of kernels of its own.

    Keyword arguments become environment variables; None removes one. Whatever NUMBA and WKVNP variables this process
    has are not inherited.
    """

    def run(text: str, timeout: float = 600, **variables: str | None) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "WKVNP_"))}
        environment["PYTHONPATH"] = str(Path(wkvnp.__file__).parents[1])
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment["PYTHONHASHSEED"] = "0"  # Numba's symbols hold the order of a set: no lucky differences
        environment["WKVNP_CACHE_DIR"] = str(tmp_path / "cache")
        for name, value in variables.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(text)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            cwd=tmp_path,
            check=False,
        )

    return run
