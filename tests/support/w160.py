"""W160, the benchmark's 160 distributions, installed once for a whole test run."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from support.prefixes import make_venv

REQUIREMENTS = Path(__file__).parents[2] / "bench" / "w160.txt"


@pytest.fixture(scope="session")
def w160_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a venv with W160, shared by all test processes: look at it, don't change it.

    ``LIKEWISE_TEST_W160`` may name the python of one that exists already.
    """
    existing = os.environ.get("LIKEWISE_TEST_W160")
    if existing:
        return Path(existing)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    venv = shared / "w160"
    with open(shared / "w160.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (venv / "complete").exists():
            make_venv(venv, "-r", REQUIREMENTS, pip_args=("--no-deps",))
            (venv / "complete").touch()
    return venv / "bin" / "python"
