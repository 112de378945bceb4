"""Arguments that several calls share, checked where they come in. None stays None: it was not given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from likewise.errors import UsageError
from likewise.model.report import SOURCES


def names(given: Iterable[str] | None, where: str) -> tuple[str, ...] | None:
    """The value of an argument (`where`) that is a list of names.

    Raises
    ------
    UsageError
        For a single name, which would be taken for a list of letters.
    """
    if isinstance(given, str):
        raise UsageError(f"A single name, {given!r}, is no list of names.", where=where, todo=f"Write [{given!r}].")
    return None if given is None else tuple(given)


def levels(given: Mapping[str, str] | None, where: str) -> Mapping[str, str] | None:
    """The value of an argument (`where`) that says how far the versions of some distributions may move.

    Raises
    ------
    UsageError
        For anything but a mapping of texts to texts.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(text, str) for pair in given.items() for text in pair):
        raise UsageError(f"{given!r} is no mapping of names to levels.", where=where, todo='Write {"numpy": "any"}.')
    return dict(given)


def source(given: str | None, where: str) -> str | None:
    """The value of an argument (`where`) that says who gives nodes what an index offers, too.

    Raises
    ------
    UsageError
        For anything but one of `SOURCES`.
    """
    if given is not None and given not in SOURCES:
        raise UsageError(f"{given!r} is no source.", where=where, todo=f"Give one of {', '.join(SOURCES)}.")
    return given
