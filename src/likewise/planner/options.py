"""What the user asked of a plan, and what contradicts itself in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import datetime

import msgspec
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from likewise.errors import UsageError
from likewise.model.conda import spec_name
from likewise.model.markers import marker_environment
from likewise.model.origins import redact_spec
from likewise.model.plan import Level
from likewise.model.snapshot import Problem, Severity, Snapshot
from likewise.model.target import Target
from likewise.planner.tables import critical_distributions

FAIL_ON = ("critical-only", "any")
"""What stops a launch: only critical conflicts, or any distribution that can't be replicated as it is."""

LEVELS = (Level.EXACT.value, Level.MINOR.value, Level.ANY.value)
"""How far the version of one distribution may be allowed to move."""

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)?)?")


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for.

    Attributes
    ----------
    strict : bool
        Refuse everything that is not an exact copy; on another platform, everything that has not the exact version.
    ignore : tuple of str
        Distributions and code roots to leave out. What they require stays; one that a shipped distribution
        requires is shipped all the same.
    only : tuple of str
        When not empty: ship these, what they require, and what is critical; nothing else.
    fail_on : str
        One of `FAIL_ON`. A critical conflict always stops the launch.
    levels : tuple of (str, str)
        Distribution and one of `LEVELS`: how far its version may move on the way to another platform. Without one,
        the rules of `likewise.planner.levels` say so.
    extras : tuple of str
        Requirements (PEP 508) for the cluster alone, like ``cupy-cuda12x`` from a laptop that can't install it.
    conda_extras : tuple of str
        Match specs of conda packages for the cluster alone, like ``cudatoolkit>=12``. The client is a conda prefix.
    """

    strict: bool = False
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    fail_on: str = "critical-only"
    levels: tuple[tuple[str, str], ...] = ()
    extras: tuple[str, ...] = ()
    conda_extras: tuple[str, ...] = ()

    @property
    def ignored(self) -> frozenset[str]:
        """`ignore`, normalized (PEP 503)."""
        return normalized(self.ignore)

    @property
    def wanted(self) -> frozenset[str]:
        """`only`, normalized."""
        return normalized(self.only)

    def level_of(self, name: str) -> Level | None:
        """The level asked for the distribution with this normalized name, None when nothing was asked."""
        return next((Level(level) for other, level in self.levels if canonicalize_name(other) == name), None)


def normalized(names: Iterable[str]) -> frozenset[str]:
    """`names` as PEP 503 spells them."""
    return frozenset(str(canonicalize_name(name)) for name in names)


def check_wishes(options: PlanOptions) -> None:
    """Refuse what is wrong whatever is installed.

    Raises
    ------
    UsageError
        For a value that can't be understood, and for two that exclude each other.
    """
    if options.fail_on not in FAIL_ON:
        raise UsageError(
            f"{options.fail_on!r} is not a value of package_sync_fail_on.", todo=f"Use one of {', '.join(FAIL_ON)}."
        )
    both = sorted(options.ignored & options.wanted)
    if both:
        raise UsageError(
            f"{', '.join(both)} can't be both ignored and asked for.",
            todo="Name it in package_sync_ignore or in package_sync_only, not in both.",
        )
    for text in options.conda_extras:
        _check_conda_extra(text, options)
    _check_levels(options)
    for text in options.extras:
        name = str(canonicalize_name(parse_extra(text).name))
        if name in options.ignored:
            raise UsageError(
                f"{name} is ignored and asked for on the cluster.",
                todo="Name it in package_sync_ignore or in package_sync_extras, not in both.",
            )


def _check_conda_extra(text: str, options: PlanOptions) -> None:
    is_url = "://" in text and "::" not in text
    if is_url or not spec_name(text) or redact_spec(text) != text:
        shown = "a URL or a credential" if "/" in text else repr(text)
        raise UsageError(
            f"package_sync_conda_extras has {shown}, which is no match spec of conda's.",
            todo="Write one like cuda-version=12, or CHANNEL::NAME; credentials are put where conda looks for them.",
        )
    if str(canonicalize_name(spec_name(text))) in options.ignored:
        raise UsageError(
            f"{spec_name(text)} is ignored and asked for on the cluster.",
            todo="Name it in package_sync_ignore or in package_sync_conda_extras, not in both.",
        )


def check_moment(text: str) -> None:
    """Make sure that `text` is a date or a time (RFC 3339): what an index had then is the same for ever.

    Raises
    ------
    UsageError
        It is none: a duration, a word, the 30th of February.
    """
    try:
        known = _MOMENT.fullmatch(text) is not None
        datetime.fromisoformat(text.upper().replace("Z", "+00:00") if known else "")
    except ValueError:
        raise UsageError(
            f"{text!r} is no date or time.",
            where="--exclude-newer",
            todo="Write one like 2026-11-20 or 2026-11-20T12:00:00Z.",
        ) from None


def check_options(snapshot: Snapshot, options: PlanOptions) -> tuple[Problem, ...]:
    """Refuse what contradicts itself or what is installed; what merely names something unknown is a note.

    Raises
    ------
    UsageError
        As in `check_wishes`, and for a value that would take from a critical distribution.
    """
    check_wishes(options)
    _check_extras(snapshot, options)
    known = {d.name for d in snapshot.distributions} | {root.name for root in snapshot.code}
    known |= normalized(package.name for package in snapshot.conda)
    unknown = sorted(options.wanted - known)
    if unknown:
        raise UsageError(
            f"package_sync_only names {', '.join(unknown)}, which is not installed here.",
            todo=_meant(unknown[0], known) or "See `likewise scan` for what is.",
        )
    notes = [_unknown("ignore", name, "nothing to ignore") for name in sorted(options.ignored - known)]
    levels = sorted(normalized(name for name, _ in options.levels) - known)
    return (*notes, *(_unknown("level", name, _meant(name, known) or "it changes nothing") for name in levels))


def _check_levels(options: PlanOptions) -> None:
    chosen: dict[str, str] = {}
    for given, level in options.levels:
        name = str(canonicalize_name(given))
        if level not in LEVELS:
            raise UsageError(
                f"package_sync_level has {level!r} for {given}.",
                todo=f"Use package_sync_ignore=[{given!r}] to leave it out."
                if level == Level.IGNORE.value
                else f"Use one of {', '.join(LEVELS)}.",
            )
        if chosen.setdefault(name, level) != level:
            raise UsageError(f"package_sync_level has both {chosen[name]} and {level} for {name}.", todo="Give one.")
        if name in options.ignored:
            raise UsageError(
                f"{name} is ignored and has a level ({level}).",
                todo="Name it in package_sync_ignore or in package_sync_level, not in both.",
            )
        if level != Level.EXACT.value:
            _check_may_move(name, level, options)


def _check_may_move(name: str, level: str, options: PlanOptions) -> None:
    critical = critical_distributions()
    if name in critical:
        raise UsageError(
            f"package_sync_level has {level} for {name}, which is exact everywhere: {critical[name]}.",
            todo="Leave it out of package_sync_level.",
        )
    if options.strict:
        raise UsageError(
            f"package_sync_level has {level} for {name}, and package_sync_strict allows exact versions alone.",
            todo="Give one of them.",
        )


def parse_extra(text: str) -> Requirement:
    """A requirement for the cluster alone.

    Raises
    ------
    UsageError
        When it is none (PEP 508), or has a URL, which may hold a credential and is not repeated here.
    """
    try:
        requirement = Requirement(text)
        if requirement.marker is not None:
            requirement.marker.evaluate()  # says whether it can be; what it says of this machine does not matter
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
        shown = "a text with a URL" if "://" in text else repr(text)
        raise UsageError(
            f"package_sync_extras has {shown}, which is no requirement.", todo='Write "cupy-cuda12x>=13".'
        ) from error
    if requirement.url:
        raise UsageError(
            f"package_sync_extras has a URL for {requirement.name}; what only the cluster has comes from an index.",
            todo=f"Give its name and perhaps a specifier, like {requirement.name!r}.",
        )
    return requirement


def extras_on(target: Target, options: PlanOptions) -> tuple[Requirement, ...]:
    """Those of ``options.extras`` whose markers hold on `target`."""
    environment = marker_environment(target)
    return tuple(
        one for one in map(parse_extra, options.extras) if one.marker is None or one.marker.evaluate(environment)
    )


def _check_extras(snapshot: Snapshot, options: PlanOptions) -> None:
    installed = {d.name: d.version for d in snapshot.distributions}
    for text in options.extras:
        requirement = parse_extra(text)
        name = str(canonicalize_name(requirement.name))
        stays = options.level_of(name) in (None, Level.EXACT)
        if stays and name in installed and not accepts(requirement, installed[name]):
            todo = "What is installed here can't be another version on the cluster because of package_sync_extras."
            if name not in critical_distributions():
                todo += f" Allow it to move with package_sync_level={{{name!r}: 'any'}}, or install the other one here."
            raise UsageError(f"package_sync_extras has {text!r}, and {name} {installed[name]} is installed.", todo=todo)


def accepts(requirement: Requirement, version: str) -> bool:
    """Whether this version is what is required. One that PEP 440 does not know is, if any would do."""
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return not requirement.specifier


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else ""


def _unknown(option: str, name: str, consequence: str) -> Problem:
    return Problem(
        code="ignored-unknown" if option == "ignore" else f"{option}-unknown",
        subject=name,
        message=f"package_sync_{option} names {name}, which is not installed here; {consequence}.".replace("?.", "?"),
        severity=Severity.NOTE,
    )
