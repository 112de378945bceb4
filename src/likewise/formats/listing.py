"""What a file says about distributions, whatever its format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from likewise.errors import UsageError
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Origin, Problem
from likewise.model.target import Platform

_MEMBER = re.compile(r"""(["'])([A-Za-z0-9._-]+)\1\s+(not\s+)?in\s+(extras|dependency_groups)\b""")

UNKNOWN_VERSION = "0+unknown"
"""The version (PEP 440) of what a file names without one: an editable, a commit, a folder."""


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one distribution.

    Attributes
    ----------
    name : str
        Normalized (PEP 503).
    version : str
    origin : Origin
    requires : tuple of str
        Requirements (PEP 508), as far as the file says them.
    provides_extras : tuple of str
    requested : bool
        Whether the user asked for it.
    installer, metadata_path : str
        As in `likewise.model.snapshot.Distribution`.
    wheels : tuple of LockedFile
        All wheels that the file pins, for any platform.
    hashes : frozenset of str
        sha256 (hexadecimal) of all files that may be used, wheels and sdists; empty where the file has no hashes.
    """

    name: str
    version: str
    origin: Origin
    requires: tuple[str, ...] = ()
    provides_extras: tuple[str, ...] = ()
    requested: bool = False
    installer: str = ""
    metadata_path: str = ""
    wheels: tuple[LockedFile, ...] = ()
    hashes: frozenset[str] = frozenset()


Select = Callable[[Mapping[str, str]], tuple[Pin, ...]]
"""From marker variables (PEP 508) to what applies there."""


@dataclass(frozen=True)
class Listing:
    """What a file says.

    Attributes
    ----------
    form : str
        What the file is, for people: ``uv.lock``.
    select : callable
        What is installed where the markers are so.
    offered : callable
        All that the file pins for such a place, also what is only installed when asked for.
    python : str
        Full version of the client's Python, "" where the file does not say it.
    implementation : str
        Of the client's Python, as in `likewise.model.snapshot.Interpreter`.
    platform : Platform or None
        The client's, None where the file does not say it.
    requires_python : str
        Specifiers (PEP 440) of the Pythons that the file is for, "" for any.
    environments : tuple of str
        Markers, one of which has to hold where the file is used; none for no limit.
    problems : tuple of Problem
    """

    form: str
    select: Select
    offered: Select
    python: str = ""
    implementation: str = "cpython"
    platform: Platform | None = None
    requires_python: str = ""
    environments: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def is_for(self, environment: Mapping[str, str]) -> str:
        """Why the file is not meant for a place with these marker variables, "" when it is.

        Raises
        ------
        UsageError
            A specifier or marker of the file can't be understood.
        """
        python = environment["python_full_version"]
        try:
            allowed = SpecifierSet(self.requires_python).contains(python, prereleases=True)
        except InvalidSpecifier:
            raise UsageError(
                f"requires-python = {self.requires_python!r} is no specifier (PEP 440).", todo="Write the file again."
            ) from None
        if not allowed:
            return f"it is for Python {self.requires_python}, and this is {python}"
        if self.environments and not any(applies(marker, environment) for marker in self.environments):
            return f"it is for {' or '.join(self.environments)} only"
        return ""


def fixed(pins: tuple[Pin, ...]) -> Select:
    """For a file that says the same for all places."""
    return lambda environment: pins


def applies(marker: str, environment: Mapping[str, str], *, groups: frozenset[str] = frozenset()) -> bool:
    """Whether `marker` (PEP 508, and PEP 751 with ``extras`` and ``dependency_groups``) holds; "" always does.

    Parameters
    ----------
    marker : str
    environment : mapping
        All variables of PEP 508: `packaging` would take others from the running interpreter.
    groups : frozenset of str
        The dependency groups that are installed; no extra is.

    Raises
    ------
    UsageError
        It can't be understood.
    """
    if not marker:
        return True
    try:
        return Marker(_MEMBER.sub(lambda found: _membership(found, groups), marker)).evaluate(dict(environment))
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName) as error:
        raise UsageError(
            f"The marker {marker!r} can't be understood.", todo="A newer `packaging` may: pip install -U packaging"
        ) from error


def _membership(found: re.Match[str], groups: frozenset[str]) -> str:
    """A marker as true as ``'x' in extras``, in words that every `packaging` knows."""
    is_member = found[4] == "dependency_groups" and canonicalize_name(found[2]) in map(canonicalize_name, groups)
    return "os_name != ''" if is_member != bool(found[3]) else "os_name == ''"


def wheel_tags(filename: str) -> tuple[str, ...]:
    """The tags (PEP 425) in a wheel's name, sorted; none when it has no wheel's name."""
    try:
        return tuple(sorted(map(str, parse_wheel_filename(filename)[3])))
    except InvalidWheelFilename:
        return ()
