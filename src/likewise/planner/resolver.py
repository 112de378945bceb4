"""What planning asks a resolver, and what it answers. The resolver itself is elsewhere: `likewise.resolution`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from likewise.model.plan import LockedFile
from likewise.model.target import Target


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution that is asked for by name.

    Attributes
    ----------
    name : str
        Normalized (PEP 503).
    specifier : str
        PEP 440: ``==1.2.3``, ``>1.2.3,<1.3``, or "" for any version.
    prefer : str
        The version that is taken if it is within `specifier`, can be had, and conflicts with nothing. Default "":
        the highest one, or the lowest (`Question.lowest`).
    """

    name: str
    specifier: str = ""
    prefer: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution that the nodes get from the client, so that only what it requires is of interest.

    Attributes
    ----------
    name, version : str
    requires : tuple of str
        Valid requirements (PEP 508) without URLs; those that must not count are left out.
    extras : tuple of str
        The extras, normalized, that somebody may ask for.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which files make these distributions, with all that they require, on the target?

    Attributes
    ----------
    target : Target
    wanted : tuple of Wanted
        Each name at most once.
    standing : tuple of Standing
        No file is looked for.
    further : tuple of str
        Requirements (PEP 508) that have to be met besides; the highest version that fits is taken.
    overridden : tuple of str
        Names in `wanted` or `standing`: what others say about their versions does not count.
    excluded : tuple of str
        Names that do not come in, whoever requires them.
    lowest : bool
        Of what is wanted without a preference, the lowest version is taken. Default: the highest.
    alone : bool
        Only what is wanted, not what it requires.
    prereleases : bool
        Whether those count even where nobody names one.
    sdists : bool
        Whether an sdist is an answer, too. It is never built, so nothing is known about what it requires.
    anywhere : bool
        Whether a file counts that is not on the first index that has the name. For finding out what there is, never
        for what is taken: anybody can put a name that is somebody's own on a public index.
    remembered : bool
        Whether it is good enough what is remembered of the indexes from earlier questions.
    reasons : bool
        Whether the answer has to say who requires whom.
    """

    target: Target
    wanted: tuple[Wanted, ...]
    standing: tuple[Standing, ...] = ()
    further: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    lowest: bool = False
    alone: bool = False
    prereleases: bool = False
    sdists: bool = False
    anywhere: bool = False
    remembered: bool = False
    reasons: bool = False


class Locked(msgspec.Struct, frozen=True, kw_only=True):
    """One distribution of the answer.

    Attributes
    ----------
    name, version : str
        The name is normalized.
    files : tuple of LockedFile
        Those that fit the target, in the index's order.
    yanked : str
        Why its maker asks not to use it (PEP 592), "" when it was not yanked.
    """

    name: str
    version: str
    files: tuple[LockedFile, ...] = ()
    yanked: str = ""


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: everything but what was standing.

    Attributes
    ----------
    packages : tuple of Locked
        Sorted by name.
    required_by : mapping
        Name -> names that require it; empty unless the question asked for reasons.
    """

    packages: tuple[Locked, ...]
    required_by: Mapping[str, tuple[str, ...]] = {}

    def get(self, name: str) -> Locked | None:
        """The package with this normalized name, or None."""
        return next((p for p in self.packages if p.name == name), None)


class Unsolvable(Exception):
    """No versions fulfil the question. The argument is the resolver's own explanation, without credentials."""


class Resolver(Protocol):
    """Answers questions about a target with the help of indexes."""

    def resolve(self, question: Question) -> Lock:
        """Answer, from what the indexes offer for the target.

        Raises
        ------
        Unsolvable
            No versions fulfil the question.
        PlanError
            It could not be tried: an index does not answer, or the resolver itself does not work.
        """
        ...
