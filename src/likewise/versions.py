"""Versions as texts, which may be none (PEP 440)."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

from likewise.errors import UsageError


def same_version(one: str, other: str) -> bool:
    """Whether two versions are the same release (``1.0`` is ``1.0.0``), or the same text where they are none."""
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def check_python(text: str) -> None:
    """Make sure that `text` is a version of Python, at least major and minor.

    Raises
    ------
    UsageError
        It is none.
    """
    try:
        parts = len(Version(text).release)
    except InvalidVersion:
        parts = 0
    if parts < 2:
        raise UsageError(f"{text!r} is no version of Python.", todo="Give one like 3.11.7.")
