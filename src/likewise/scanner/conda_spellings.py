"""The paths by which a prefix is called: where a folder on the way to it is a link, it has several.

What conda has written into files is the path that it was given; Python's own is the one that it was started by.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_PATHS = re.compile(rb"/[^\0-\x20\x7f\"'`:;,=<>|&()$#!*?]+")

MOST_PATHS = 100_000
"""Paths that are looked at in one file; binary files have many things that look like one."""

MOST_LOOKS = 10_000
"""Folders that the disk is asked for."""


class Spellings:
    """The paths of `prefix`: its own, that with all links resolved, and those that files are found to have.

    Attributes
    ----------
    known : list of str
    """

    def __init__(self, prefix: str) -> None:
        real = os.path.realpath(prefix)
        self.known = [prefix] if real == prefix or not _is_text(real) else [prefix, real]
        self._asked: dict[str, bool] = {}  # places that are not the prefix: whether they are there
        try:
            self._identity = _identity(prefix)
        except OSError:
            self._identity = None

    def of(self, data: bytes) -> Iterator[str]:
        """Those that are known, then those that `data` names and that were not, which are known from then on."""
        yield from tuple(self.known)
        for number, match in enumerate(_PATHS.finditer(data)):
            if number == MOST_PATHS:
                return
            path = os.fsdecode(match.group())
            if _is_text(path) and self.beginning(path) is None and (found := self._beginning(path)):
                self.known.append(found)
                yield found

    def beginning(self, path: str) -> str | None:
        """That of the known ones that `path` lies in; None when it lies in none."""
        return next((one for one in self.known if path == one or path.startswith(one + "/")), None)

    def _beginning(self, path: str) -> str:
        """What of `path` is the prefix by another path; "" when nothing is."""
        place = ""
        for part in path.split("/")[1:]:
            place += f"/{part}"
            if part in ("", ".", "..") or place in self.known:
                return ""
            if place not in self._asked and self._is_prefix(place):
                return place
            if not self._asked.get(place):
                return ""
        return ""

    def _is_prefix(self, place: str) -> bool:
        """Whether it is the prefix; it is noted if it is another."""
        if len(self._asked) >= MOST_LOOKS:
            return False
        try:
            found = _identity(place)
        except (OSError, ValueError):
            found = None
        self._asked[place] = found is not None
        return found is not None and found == self._identity


def _is_text(path: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in path)


def _identity(path: str) -> tuple[int, int] | None:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino
