"""Platforms as explicit values. Nothing here asks the running interpreter."""

from __future__ import annotations

import msgspec


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """An operating system as packaging sees it.

    Attributes
    ----------
    os : str
        ``linux``, ``macos`` or ``windows``.
    arch : str
        ``x86_64``, ``aarch64`` (macOS's ``arm64`` is spelled ``aarch64`` here), …
    libc : str
        ``glibc``, ``musl``, or "" where there is none to speak of.
    libc_version : str
        For example ``2.36``.
    """

    os: str
    arch: str
    libc: str = ""
    libc_version: str = ""

    def __str__(self) -> str:
        return f"{self.os}-{self.arch}" + (f" ({self.libc} {self.libc_version})" if self.libc else "")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes are.

    Attributes
    ----------
    platform : Platform
    python : str
        Full version of their interpreter, PEP 440: ``3.11.7``.
    cuda : str
        Version of CUDA that their driver serves, like ``12.8``; "" where there is no such accelerator.
    """

    platform: Platform
    python: str
    cuda: str = ""
