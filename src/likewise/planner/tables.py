"""The rules as data: text files beside this module, columns two or more spaces apart, a reason on every line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files

_GAP = re.compile(r" {2,}")


def rows(table: str, columns: int) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Names and the other columns of each line of `table` (a file name); names stand apart by `` / ``.

    Raises
    ------
    ValueError
        For a line with fewer columns, or without a reason.
    """
    for line in files("likewise.planner").joinpath(table).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            names, *others = (cell.strip() for cell in _GAP.split(line, columns - 1))
            if len(others) != columns - 1 or not all(others):
                raise ValueError(f"{table}: {line!r} has not {columns} columns.")
            yield tuple(names.split(" / ")), tuple(others)


@lru_cache(maxsize=1)
def critical_distributions() -> Mapping[str, str]:
    """Critical distribution -> reason, from ``critical.txt``."""
    return {name: reason for names, (reason,) in rows("critical.txt", 2) for name in names}
