"""What a user may import from likewise is what it is called, whatever was imported before."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

import likewise


@pytest.mark.parametrize("first", ["Cluster", "SSHCluster", "plan", "scan", "Snapshot"])
def test_functions_are_no_modules(first: str) -> None:
    """`scan` and `plan` are functions, in whatever order names are imported and whichever modules that loads."""
    orders = itertools.permutations(["Cluster", "plan", "scan"])
    lines = [f"from likewise import {first}", *(f"from likewise import {', '.join(names)}" for names in orders)]
    program = "\n".join([*lines, "import likewise", "assert callable(plan) and callable(scan)"])
    check = "assert callable(likewise.plan) and callable(likewise.scan)"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{check}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there() -> None:
    """Each of ``__all__`` can be had, and no part of the package bears the name of one."""
    for name in likewise.__all__:
        assert getattr(likewise, name) is not None
    parts = {path.stem for path in Path(likewise.__file__).parent.iterdir()}
    assert parts.isdisjoint(set(likewise.__all__) - {"__version__"})
