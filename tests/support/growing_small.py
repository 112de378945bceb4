"""A small environment with everything that makes imports hard, and a prefix that grows into it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.growing import Growing
from support.prefixes import UV, make_venv, run
from support.wheels import write_wheel

Grow = Callable[..., Growing]


def small_wheels(folder: Path) -> list[Path]:
    """Distributions: two that import each other, one that is a module, two that share a namespace, and so on."""
    return [
        write_wheel(
            folder,
            {
                "alpha/__init__.py": b"import beta\nfrom alpha.core import VALUE\nSUM = VALUE + beta.VALUE\n",
                "alpha/core.py": b"VALUE = 1\n",
                "alpha/__main__.py": b"import alpha\nprint('main', alpha.SUM)\n",
                "alpha/data.txt": b"alpha's data",
            },
            name="alpha",
            requires=("beta",),
        ),
        write_wheel(
            folder,
            {
                "beta/__init__.py": b"VALUE = 2\nimport alpha\ndef total():\n    return alpha.SUM\n",
                "beta.libs/libbeta.txt": b"",
            },
            name="beta",
            requires=("alpha",),
        ),
        write_wheel(folder, {"gamma.py": b"import delta\nVALUE = 3\ndef work():\n    return VALUE\n"}, name="gamma"),
        write_wheel(
            folder,
            {
                "delta/__init__.py": b"VALUE = 4\ndef main():\n    print('delta')\n",
                "delta/deep/__init__.py": b"",
                "delta-1.0.dist-info/entry_points.txt": b"[console_scripts]\ndelta-run = delta:main\n",
            },
            name="delta",
        ),
        write_wheel(folder, {"shared/one.py": b"VALUE = 5\n"}, name="ns-one"),
        write_wheel(folder, {"shared/two.py": b"VALUE = 6\n"}, name="ns-two"),
        write_wheel(
            folder,
            {
                "tool_lib.py": b"VALUE = 7\n",
                "tool-1.0.data/scripts/tool": b"#!python\nimport sys, tool_lib\nprint(tool_lib.VALUE, *sys.argv[1:])\n",
            },
            name="tool",
        ),
    ]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with `small_wheels`. ``LIKEWISE_TEST_PYTHON`` may name another Python for it than that of the tests."""
    folder = tmp_path_factory.mktemp("small")
    wheels = small_wheels(folder / "wheels")
    python = make_venv(folder / "venv", python=os.environ.get("LIKEWISE_TEST_PYTHON", sys.executable))
    run(UV, "pip", "install", "-q", "--no-deps", "--no-index", "--python", python, *wheels)
    return folder / "venv"


@pytest.fixture
def grow(small: Path, tmp_path: Path) -> Iterator[Grow]:
    """Makes a prefix that grows into `small`; some distributions are held back, and the filler runs."""
    with ExitStack() as stack:

        def make(*held: str, fill: bool = True, **options: Any) -> Growing:
            growing = stack.enter_context(Growing(small, tmp_path / "prefix", **options))
            growing.hold(*held)
            if fill:
                growing.fill()
            return growing

        yield make
