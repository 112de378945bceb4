"""The folders of tests go with the fixtures that made them, or stay to be looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.prefixes import clean_environ

TESTS = Path(__file__).parents[1]

MODULE = """
import pytest

@pytest.fixture(scope="session")
def lasting(tmp_path_factory):
    return tmp_path_factory.mktemp("lasting")

@pytest.fixture(scope="module")
def folder(tmp_path_factory, lasting):
    found = tmp_path_factory.mktemp("module")
    yield found
    (found / "when-it-ends").write_text("here")

def test_one(folder, tmp_path):
    (folder / "large").write_text("here")
    (tmp_path / "small").write_text("here")
    assert {holds}
"""

LATER = """
def test_later(lasting, tmp_path_factory):
    print("LEFT", *sorted(path.name for path in tmp_path_factory.getbasetemp().iterdir()))
    assert lasting.is_dir()
"""


@pytest.mark.parametrize("holds", [True, False])
def test_folders_go_with_their_fixtures(tmp_path: Path, holds: bool) -> None:
    """What a module made is gone when the next one begins, that of the session is not; after a failure all stays."""
    fixture, rest = MODULE.split('@pytest.fixture(scope="module")')
    (tmp_path / "conftest.py").write_text(f"{(TESTS / 'conftest.py').read_text()}\n{fixture}")
    (tmp_path / "test_a.py").write_text(f'import pytest\n@pytest.fixture(scope="module"){rest.format(holds=holds)}')
    (tmp_path / "test_b.py").write_text(LATER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-c", TESTS.parent / "pyproject.toml", "--rootdir", tmp_path,
         "-p", "no:cacheprovider", "--basetemp", tmp_path / "base", tmp_path],
        env=clean_environ(PYTHONPATH=str(TESTS)), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == (0 if holds else 1), done.stdout + done.stderr
    (left,) = [line.split()[1:] for line in done.stdout.splitlines() if "LEFT" in line]
    assert "lasting0" in left
    assert ("module0" in left, "test_one0" in left) == (not holds, not holds)
    assert any(name.startswith("likewise-cache") for name in left)  # that of the test that looks
