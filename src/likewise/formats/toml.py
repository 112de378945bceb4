"""TOML into typed values."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from likewise.errors import UsageError

Document = TypeVar("Document", bound=msgspec.Struct)


def read_toml(text: str, kind: type[Document], *, form: str) -> Document:
    """Read `text`, of which `kind` says what it must have.

    Raises
    ------
    UsageError
        It is damaged: no TOML, or something in it is missing or of the wrong type.
    """
    try:
        return msgspec.toml.decode(text, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # the latter: a huge number, deep lists
        raise UsageError(f"This {form} is damaged: {error}.", todo="Write it again, or take it from history.") from None
