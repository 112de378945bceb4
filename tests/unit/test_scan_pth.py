"""``.pth`` files and import hooks, read and never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.scanner.editables import parse_hook
from likewise.scanner.pth import parse_pth, read_pth


def test_lines_of_a_pth() -> None:
    """Paths are joined to the site directory, imports are code, comments and empty lines are nothing."""
    data = (
        b"\xef\xbb\xbf# note\n\n/abs/dir\nrelative \nimport os; os\nimport\ttabbed\n  \nimportant\n/abs/dir\nnul\0nul\n"
    )
    pth = parse_pth(data, "/site/mine.pth")
    assert pth.folders == ("/abs/dir", "/site/relative", "/site/important")
    assert pth.code == ("import os; os", "import\ttabbed")
    assert pth.imported == ("os", "tabbed")
    assert pth.name == "mine.pth"


def test_only_folders_that_exist_count(tmp_path: Path) -> None:
    """As in `site`: a path that is not there is passed over."""
    (tmp_path / "there").mkdir()
    (tmp_path / "a.pth").write_text("there\nnot-there\n")
    assert read_pth(str(tmp_path / "a.pth")).folders == (str(tmp_path / "there"),)


@pytest.mark.parametrize(
    ("source", "mapping", "names"),
    [
        ("MAPPING: dict[str, str] = {'a': '/t/a', 'b.c': '/t/x'}\nNAMESPACES = {'b': ['/t/b', '/u/b']}",
         {"a": "/t/a", "b.c": "/t/x", "b": "/t/b"}, set()),
        ("from editables.redirector import RedirectingFinder as F\nF.install()\n"
         "F.map_module('m', '/t/m/__init__.py')\nF.map_module('single', '/t/single.py')",
         {"m": "/t/m", "single": "/t/single.py"}, set()),
        ("install({'sk': '/t/sk/__init__.py', 'sk.mod': '/t/sk/mod.py'}, {'sk._ext': 'sk/_ext.so'}, None, False)",
         {"sk": "/t/sk", "sk.mod": "/t/sk/mod.py"}, set()),
        ("install('meson-pkg', {'pkg', 'other'}, ['/usr/bin/ninja'], '/t/build/cp311', False)",
         {}, {"pkg", "other"}),
        ("MAPPING = compute()\nraise SystemExit", {}, set()),
        ("MAPPING = {'relative': 'lib/x', 3: '/t', 'list': []}", {}, set()),
        ("this is no Python", {}, set()),
        ("", {}, set()),
    ],
)  # fmt: skip
def test_hooks(source: str, mapping: dict[str, str], names: set[str]) -> None:
    """setuptools', editables', scikit-build-core's and meson-python's hooks tell where things are; others nothing."""
    assert parse_hook(source) == (mapping, names)
