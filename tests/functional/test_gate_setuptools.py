"""setuptools in a prefix that still grows: its hook runs at the start of every Python, and pkg_resources reads all."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.growing import Growing, finish
from support.growing_small import small_wheels
from support.prefixes import make_venv, run

pytestmark = pytest.mark.registry

CODE = """
import sys
import pkg_resources
print(sorted(d.project_name for d in pkg_resources.working_set if d.project_name in ("alpha", "gamma")))
print(sorted(d.key for d in pkg_resources.require("alpha")), pkg_resources.get_distribution("beta").version)
print(pkg_resources.resource_string("alpha", "data.txt"))
print(next(pkg_resources.iter_entry_points("console_scripts", "delta-run")).load().__module__)
print(pkg_resources.working_set.find(pkg_resources.Requirement.parse("delta")).get_entry_map().keys())
import distutils.version
print([type(finder).__name__ for finder in sys.meta_path if "istutils" in type(finder).__name__])
"""


def test_pkg_resources_and_distutils(tmp_path: Path) -> None:
    """Python starts when the hook has come, and what pkg_resources says and loads is the same as in the original."""
    original = tmp_path / "venv"
    python = make_venv(original, "setuptools<81", *small_wheels(tmp_path / "wheels"))
    with Growing(original, tmp_path / "prefix") as growing:
        growing.hold("setuptools")
        growing.fill()
        process = growing.start(f"import warnings; warnings.simplefilter('ignore')\n{CODE}")
        growing.wait_until_wanted("setuptools")
        growing.release()
        assert finish(process) == run(python, "-W", "ignore", "-c", CODE).strip()
