"""The oldest Dask that the project says it supports, beside the newest that all other tests run with."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.prefixes import clean_environ
from support.users import ROOT, make_user_venv

pytestmark = pytest.mark.registry

CORE = (
    "computes or configuration or plain_connection or scaling_down_keeps or losing_the_scheduler or test_asynchronous"
)


def floor() -> list[str]:
    """``dask==…`` and ``distributed==…`` at the lower bounds of pyproject.toml."""
    found = re.findall(r'"(dask|distributed)>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    return [f"{name}=={version}" for name, version in found]


def test_the_core_with_the_oldest_dask(tmp_path: Path) -> None:
    """The core of the cluster tests passes in a prefix with the lowest versions that pyproject.toml allows."""
    assert len(floor()) == 2
    python = make_user_venv(tmp_path / "venv", *floor(), "pytest", "pytest-timeout", "hypothesis")
    argv = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CORE, "tests/cluster/test_local_cluster.py"]
    done = subprocess.run(argv, cwd=ROOT, env=clean_environ(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"(\d+) passed", done.stdout)
