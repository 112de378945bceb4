"""What one tool's configuration says about indexes, before it is joined with what others say. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from likewise.indexes.secret import Secret
from likewise.model.snapshot import Problem, Severity

MOST = 2**20
"""No configuration file has more bytes."""


@dataclass(frozen=True)
class Stated:
    """One index as somebody wrote it down.

    Attributes
    ----------
    url : Secret
        As written, or of a path as a ``file:`` URL: with whatever credential is in it.
    where : str
        The file or variable.
    name : str
        As the configuration calls it, "" when it doesn't.
    default : bool
        It takes the place of PyPI.
    explicit : bool
        It is asked only about distributions that `Configuration.sources` assigns to it.
    anonymous : bool
        No credential is ever sent to it (uv's ``authenticate = "never"``).
    """

    url: Secret
    where: str
    name: str = ""
    default: bool = False
    explicit: bool = False
    anonymous: bool = False


@dataclass(frozen=True)
class Source:
    """Where a distribution comes from, as uv's ``tool.uv.sources`` says.

    Attributes
    ----------
    index : str
        The name of an index.
    marker : str
        Where that holds (PEP 508), "" for everywhere.
    chosen : bool
        It holds only with an extra or a group of the project, and nobody knows with which it was installed.
    """

    index: str
    marker: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Configuration:
    """All that one tool's configuration says.

    Attributes
    ----------
    indexes : tuple of Stated
        In the order in which the tool asks them.
    find_links : tuple of Secret
        URLs of flat lists of files, or of folders.
    no_index : bool
        No index is asked at all, only `find_links`.
    strategy : str
        uv's ``index-strategy``, "" when not given.
    keyring : bool
        False when keyring is switched off.
    unverified : tuple of str
        Hosts (or ``host:port``) whose TLS certificates aren't checked.
    certificates : str
        A file of certificates to trust instead of the system's, "" when not given.
    proxy : Secret or None
    sources : mapping
        Normalized distribution name → where it comes from, here or there.
    problems : tuple of Problem
    """

    indexes: tuple[Stated, ...] = ()
    find_links: tuple[Secret, ...] = ()
    no_index: bool = False
    strategy: str = ""
    keyring: bool = True
    unverified: tuple[str, ...] = ()
    certificates: str = ""
    proxy: Secret | None = None
    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def unreadable(path: str, why: str) -> Problem:
    """The problem that a configuration file was passed over. `why` must have nothing of its content."""
    return Problem(
        code="index-configuration",
        subject=path,
        message=f"{path} {why}; what it says about indexes is not known.",
        severity=Severity.WARNING,
    )
