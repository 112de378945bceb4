"""How far each distribution may move on the way to another platform, and what does not exist there at all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from likewise.model.accelerators import build_of, driver_of
from likewise.model.plan import Level
from likewise.model.snapshot import Distribution
from likewise.model.target import Platform, Target
from likewise.planner.options import PlanOptions
from likewise.planner.tables import critical_distributions, rows

_THREE, _FEWER, _NO_VERSION = "(three parts or more)", "(fewer parts)", "(not PEP 440)"
"""Lines of ``fuzz.txt`` that go by the version and not by the name."""


class Rule(msgspec.Struct, frozen=True):
    """How far a version may move, and why so."""

    level: Level
    reason: str


def rule_for(distribution: Distribution, target: Target, options: PlanOptions) -> Rule:
    """How far the version of `distribution` may move on `target`.

    What is critical comes first, then what the user asked for (`PlanOptions.strict`, then ``levels``), then
    ``fuzz.txt`` by name, then by the form of the version. Ignoring is no level: what is ignored and yet required by
    something shipped moves as far as it otherwise would.
    """
    name = str(canonicalize_name(distribution.name))
    critical = critical_distributions()
    if name in critical:
        return Rule(Level.EXACT, f"critical: {critical[name]}")
    if options.strict:
        return Rule(Level.EXACT, "strict allows exact versions alone")
    asked = options.level_of(name)
    if asked is not None:
        return Rule(asked, "as asked")
    rules = _fuzz()
    return rules.get(name) or rules[_form(distribution.version)]


def specifier(level: Level, version: str) -> str:
    """What `level` allows in place of `version`, as PEP 440 spells it; "" for any.

    A local version (``+cu126``) is left out: which one the target wants says `local_for`.

    >>> specifier(Level.MINOR, "1.26.4"), specifier(Level.EXACT, "2.5.1+cu124")
    ('==1.26.*', '==2.5.1')
    """
    if level in (Level.ANY, Level.IGNORE):
        return ""
    try:
        parsed = Version(version)
    except InvalidVersion:
        return f"==={version}"
    if level is Level.EXACT or len(parsed.release) < 2:
        return f"=={parsed.public}"
    epoch = f"{parsed.epoch}!" if parsed.epoch else ""
    return f"=={epoch}{parsed.major}.{parsed.minor}.*"


def allows(level: Level, version: str, other: str) -> bool:
    """Whether `level` allows `other` in place of `version`.

    >>> allows(Level.MINOR, "1.26.4", "1.26.9"), allows(Level.EXACT, "1.26.4", "1.26.9")
    (True, False)
    """
    try:
        return SpecifierSet(specifier(level, version)).contains(other, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return False


def platform_only(name: str, client: Platform, target: Platform) -> str:
    """Why the distribution `name` of `client` does not exist on `target`, "" when nothing says so.

    Something that is said not to exist on the client either, and yet is there, can be had everywhere.
    """
    name = str(canonicalize_name(name))
    return next(
        (
            f"only on {_listed(systems)}: {reason}"
            for pattern, systems, reason in _platform_only()
            if (name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern)
            and _among(client, systems)
            and not _among(target, systems)
        ),
        "",
    )


def local_for(version: str, target: Target) -> str:
    """The local version (PEP 440) that `target` wants in place of the one of `version`, "" for none.

    Only labels of accelerators are translated; any other is part of what is installed and stays. One stays where the
    target runs what it was built for (`Build.runs_on`). Otherwise it becomes the target's own CUDA, or ``cpu``. The
    index may not have that one: then any without a label of its own will do.

    >>> from likewise.model.target import Platform, Target
    >>> local_for("2.5.1+cu124", Target(platform=Platform(os="linux", arch="x86_64"), python="3.11.7"))
    'cpu'
    """
    try:
        local = Version(version).local or ""
    except InvalidVersion:
        return ""
    build = build_of(local)
    if build is None or build.runs_on(target):
        return local
    driver = driver_of(target)
    wanted = f"cu{driver[0]}{driver[1]}" if driver else "cpu"
    return f"{build.before}{wanted}" if build.has_sibling else ""


def _form(version: str) -> str:
    try:
        return _THREE if len(Version(version).release) >= 3 else _FEWER
    except InvalidVersion:
        return _NO_VERSION


@lru_cache(maxsize=1)
def _fuzz() -> Mapping[str, Rule]:
    """Name, or form of the version -> rule, from ``fuzz.txt``."""
    return {name: Rule(Level(level), reason) for names, (level, reason) in rows("fuzz.txt", 3) for name in names}


@lru_cache(maxsize=1)
def _platform_only() -> tuple[tuple[str, tuple[str, ...], str], ...]:
    """Name (with a star at its end perhaps), systems, reason, from ``platform_only.txt``."""
    return tuple(
        (name, tuple(systems.split()), reason)
        for names, (systems, reason) in rows("platform_only.txt", 3)
        for name in names
    )


def _among(platform: Platform, systems: tuple[str, ...]) -> bool:
    return platform.os in systems or f"{platform.os}-{platform.arch}" in systems


def _listed(systems: tuple[str, ...]) -> str:
    spelled = {"macos": "macOS", "windows": "Windows", "linux": "Linux"}
    words = []
    for system in systems:
        os, _, arch = system.partition("-")
        words.append(f"{spelled[os]} {arch}".strip())
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
