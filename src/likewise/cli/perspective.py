"""Looking at the prefix with the eyes of the user's program rather than of the command ``likewise``.

Loose code is found from ``sys.path[0]`` and ``__main__``. In a console script the one is the scripts folder and the
other the console script itself, neither of which is what the user means.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType


@contextmanager
def as_session() -> Iterator[None]:
    """As a Python prompt started in the working directory would see it."""
    with _as("", ModuleType("__main__")):
        yield


@contextmanager
def as_script(script: Path) -> Iterator[ModuleType]:
    """As ``python script`` would see it: the script's folder comes first, links to the script followed.

    Yields the script's ``__main__``, in which nothing was executed yet.
    """
    main = ModuleType("__main__")
    main.__file__ = str(script.absolute())
    main.__loader__ = SourceFileLoader("__main__", main.__file__)
    with _as(os.path.dirname(os.path.realpath(script)), main):
        yield main


@contextmanager
def _as(first: str, main: ModuleType) -> Iterator[None]:
    path, real_main = list(sys.path), sys.modules["__main__"]
    if not getattr(sys.flags, "safe_path", False):  # with -P Python puts nothing there (new in 3.11)
        sys.path[:1] = [first]
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        sys.path[:] = path
        sys.modules["__main__"] = real_main
