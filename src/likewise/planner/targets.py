"""Targets and platforms as people write them: ``linux-64``, ``linux-aarch64-cuda12.8``, ``osx-arm64``."""

from __future__ import annotations

import difflib
import re

from likewise.errors import UnsupportedError, UsageError
from likewise.model.snapshot import Interpreter
from likewise.model.target import Platform, Target
from likewise.versions import check_python

DEFAULT_GLIBC = "2.28"
"""Of RHEL 8 and Debian 10: every Linux machine that is still looked after has at least this one."""

DEFAULT_MUSL = "1.2"
"""Of Alpine 3.13 (2021)."""

_SYSTEMS = {"linux": "linux", "osx": "macos", "macos": "macos", "darwin": "macos", "win": "windows"}
_SYSTEMS["windows"] = "windows"
_ARCHITECTURES = {
    **dict.fromkeys(("64", "x86_64", "amd64"), "x86_64"),
    **dict.fromkeys(("aarch64", "arm64"), "aarch64"),
    **{arch: arch for arch in ("ppc64le", "s390x", "riscv64")},
}
_LINUX_ONLY = ("ppc64le", "s390x", "riscv64")
_PART = re.compile(r"(glibc|musl|cuda)(?:([0-9]{1,2}\.[0-9]{1,3}))?")

KNOWN = ("linux-64", "linux-aarch64", "linux-ppc64le", "linux-s390x", "osx-64", "osx-arm64", "win-64", "win-arm64")
"""The usual platforms, as conda's subdirs spell them."""


def parse_target(text: str, *, python: str) -> Target:
    """A target from its name.

    Parameters
    ----------
    text : str
        Operating system and architecture (conda's ``linux-64``, or ``linux-x86_64``), then, in any order, the C
        library (``glibc2.28``, ``musl1.2``; default: glibc `DEFAULT_GLIBC`) and the version of CUDA that the nodes'
        driver serves (``cuda12.8``; default: none).
    python : str
        Version of the nodes' Python, PEP 440, at least major and minor.

    Raises
    ------
    UsageError
        For a name that is not known, which it says, or a version that is none.
    """
    platform, cuda = _parse(text)
    check_python(python)
    return Target(platform=platform, python=python, cuda=cuda)


def parse_platform(text: str) -> Platform:
    """A platform from its name, as in `parse_target`, without an accelerator.

    Raises
    ------
    UsageError
        As in `parse_target`.
    """
    platform, cuda = _parse(text)
    if cuda:
        raise UsageError(f"{text!r} names an accelerator, which makes no difference here.", todo="Leave it out.")
    return platform


def check_client(client: Interpreter, target: Target) -> None:
    """Refuse a client whose Python a target can't name: wheels and a Python for the ordinary one would be chosen.

    Raises
    ------
    UnsupportedError
        The client's Python is free-threaded, or no CPython.
    """
    minor = ".".join(client.version.split(".")[:2])
    if client.implementation != "cpython":
        what, todo = f"{client.implementation} {client.version}", f"Use CPython {minor} on the client."
    elif "t" in client.abiflags:
        what = f"a free-threaded Python {client.version}"
        todo = f"Use the ordinary Python {minor} on the client, or run the client on a machine like the nodes."
    else:
        return
    raise UnsupportedError(
        f"This is {what}, and a plan for nodes of another platform ({target.platform}) can be made for the ordinary "
        "CPython alone.",
        where=client.executable or "python",
        todo=todo,
        details={"implementation": client.implementation, "abiflags": client.abiflags},
    )


def _parse(text: str) -> tuple[Platform, str]:
    system, arch, *rest = (
        text.strip().lower().replace("/", "-").split("-") if "-" in text or "/" in text else (text, "")
    )
    if system not in _SYSTEMS or arch not in _ARCHITECTURES:
        raise _unknown(text)
    os, machine = _SYSTEMS[system], _ARCHITECTURES[arch]
    if os != "linux" and machine in _LINUX_ONLY:
        raise _unknown(text)
    found: dict[str, str] = {}
    for part in rest:
        match = _PART.fullmatch(part)
        if match is None or match[1] in found or not (match[2] or match[1] == "musl"):
            raise UsageError(
                f"{part!r} in {text!r} can't be understood.",
                todo="After the platform may stand a C library, like glibc2.28 or musl1.2, and CUDA, like cuda12.8.",
            )
        found[match[1]] = match[2] or DEFAULT_MUSL
    _check_parts(text, os, found)
    libc, version = "", ""
    if os == "linux":
        libc, version = ("musl", found["musl"]) if "musl" in found else ("glibc", found.get("glibc", DEFAULT_GLIBC))
    return Platform(os=os, arch=machine, libc=libc, libc_version=version), found.get("cuda", "")


def _check_parts(text: str, os: str, found: dict[str, str]) -> None:
    if "glibc" in found and "musl" in found:
        raise UsageError(f"{text!r} names two C libraries.", todo="Name one.")
    if os != "linux" and ("glibc" in found or "musl" in found):
        raise UsageError(f"{text!r} names a C library, which is something of Linux.", todo="Leave it out.")
    if os == "macos" and "cuda" in found:
        raise UsageError(f"{text!r} names CUDA, which macOS does not have.", todo="Leave it out.")


def _unknown(text: str) -> UsageError:
    close = difflib.get_close_matches(text.lower(), KNOWN, n=1)
    return UsageError(
        f"{text!r} is no platform that is known here.",
        todo=(f"Did you mean {close[0]}? " if close else "")
        + f"Known are {', '.join(KNOWN)}; glibc, musl and CUDA may follow, like linux-64-glibc2.28-cuda12.8.",
        details={"known": list(KNOWN)},
    )
