"""Credentials as values that can be held and compared, and that show themselves to nobody who doesn't ask by name."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import NoReturn, SupportsIndex


class Secret:
    """A text that `repr`, `str`, formatting, pickling and copying do not give away; `reveal` does."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __format__(self, specification: str) -> str:
        return format(repr(self), specification)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("A secret can't be pickled or copied: it stays in this process.")


@dataclass(frozen=True)
class Credential:
    """A user and a password for basic authentication (RFC 7617). A token may be either, so both are secret.

    `password` is None where only a user is known, which is all that some indexes want. A `bearer` token (RFC 6750) is
    a password without a user.
    """

    user: Secret
    password: Secret | None = None
    bearer: bool = False

    def header(self) -> str:
        """The value of ``Authorization``."""
        password = self.password.reveal() if self.password else ""
        if self.bearer:
            return f"Bearer {password}"
        pair = f"{self.user.reveal()}:{password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def credential(user: str, password: str | None = None) -> Credential:
    """A credential of plain texts."""
    return Credential(Secret(user), None if password is None else Secret(password))


def bearer(token: str) -> Credential:
    """A token that stands for whoever has it (RFC 6750)."""
    return Credential(Secret(""), Secret(token), bearer=True)
