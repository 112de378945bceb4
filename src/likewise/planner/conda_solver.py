"""What a plan asks of whoever knows a conda channel, as values; `likewise.resolution.rattler` answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

import msgspec


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A package that a channel offers.

    Attributes
    ----------
    name, version, build : str
    build_number : int
    channel : str
        URL without credentials.
    subdir : str
        ``linux-64``, ``noarch``.
    url : str
        Without credentials.
    filename : str
    sha256, md5 : str
        Of the archive; "" where the channel does not say it.
    size : int or None
        In bytes.
    noarch : str
        "", ``python`` or ``generic``.
    requires, constrains : tuple of str
        Match specs.
    """

    name: str
    version: str
    build: str
    build_number: int = 0
    channel: str = ""
    subdir: str = ""
    url: str = ""
    filename: str = ""
    sha256: str = ""
    md5: str = ""
    size: int | None = None
    noarch: str = ""
    requires: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()


class CondaQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which packages make an environment?

    Attributes
    ----------
    specs : tuple of str
        Match specs of what has to be in it.
    constraints : tuple of str
        Match specs that hold for what comes along.
    favored : tuple of Candidate
        Taken rather than others of their names, where that is possible.
    fixed : tuple of Candidate
        The only ones of their names, whether a channel has them or not; what they require is what they say here.
    """

    specs: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    favored: tuple[Candidate, ...] = ()
    fixed: tuple[Candidate, ...] = ()


class NoSolution(Exception):
    """The question has no answer; its text is the solver's explanation, a tree of many lines perhaps."""


class CondaSolver(Protocol):
    """Knows the channels of one plan, for its target."""

    def candidates(self, names: Collection[str]) -> Mapping[str, tuple[Candidate, ...]]:
        """What the channels offer for the target, by name, the lowest version first; no entry where that is nothing."""

    def described(self, names: Collection[str], subdir: str) -> Mapping[str, tuple[Candidate, ...]]:
        """What the channels offer for another subdir: what a client's own packages depend on is said there."""

    def namesakes(self, name: str) -> tuple[str, ...]:
        """URLs of channels that have something called `name` for the target, which is not taken from them: `candidates`
        does not have it.
        """

    def solve(self, question: CondaQuestion) -> tuple[Candidate, ...]:
        """The packages, sorted by name.

        Raises
        ------
        NoSolution
        """

    def ordered(self, versions: Iterable[str]) -> list[str]:
        """`versions`, the lowest first, as conda orders them."""

    def matches(self, spec: str, candidate: Candidate) -> bool:
        """Whether a match spec is met."""
