"""Prefixes as users have them: their distributions, and likewise installed beside them as anybody would."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from support.prefixes import UV, clean_environ, make_venv, run

ROOT = Path(__file__).parents[2]


@functools.cache
def likewise_wheel() -> Path:
    """This checkout as a wheel, built once for each run of the tests."""
    folder = tempfile.TemporaryDirectory(prefix="likewise-wheel-")
    _KEEP.append(folder)
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder.name, ROOT)
    return next(Path(folder.name).glob("likewise-*.whl"))


_KEEP: list[tempfile.TemporaryDirectory[str]] = []


def common_cache(factory: pytest.TempPathFactory) -> Path:
    """One cache folder for a whole run of the tests: what one of them has packed and compiled, the others find.

    For tests that do not look at the client's cache themselves.
    """
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "common-cache"


def make_user_venv(path: Path, *installs: str | Path, python: str = sys.executable) -> Path:
    """A venv with `installs` and likewise itself (not editable); returns its python executable."""
    return make_venv(path, likewise_wheel(), *installs, python=python)


def run_script(
    python: Path, script: Path, *args: str, cache: Path, timeout: float = 300, **environ: str
) -> dict[str, Any]:
    """Run a script that prints one JSON document as its last line; the document."""
    done = subprocess.run(
        [str(python), str(script), *args],
        cwd=script.parent,
        env=clean_environ(LIKEWISE_CACHE=str(cache), **environ),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document
