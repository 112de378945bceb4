"""``environment.yml``: what somebody asks for, or what ``conda env export`` says is there.

The keys are those of conda's documentation, "Managing environments": ``name``, ``channels``, ``dependencies`` with a
list of pip's in it, ``prefix``, and ``platforms``, which others write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from likewise.errors import UsageError
from likewise.formats.conda_lists import one_each
from likewise.formats.conda_values import CondaListing, Contents, clean_channel, secret_channels
from likewise.formats.documents import convert, load_yaml
from likewise.formats.listing import Pin
from likewise.formats.requirements import read_requirements
from likewise.model.conda import CondaPackage, spec_channel, spec_name
from likewise.model.origins import redact_spec
from likewise.model.snapshot import Problem, Severity
from likewise.model.subdirs import without_subdir

FORM = "environment.yml"

_NULL = ("", "~", "null", "Null", "NULL")
"""What YAML knows as nothing."""

_INSTALLED = re.compile(r"(?P<name>[\w.-]+)=(?P<version>[^=<>!~,|* ]+)=(?P<build>[^=<>!~,|* ]+)")
_EXACT = re.compile(r"(?P<name>[\w.-]+)(?:==| *== *)(?P<version>[^=<>!~,|* ]+)(?:=(?P<build>[^=<>!~,|* ]+))?")
_PIP_INDEXES = re.compile(r"(--(index-url|pypi-url|extra-index-url|find-links|trusted-host|no-index)(?![\w-])|-[if]).*")
_VERSION = re.compile(r"(?P<name>[\w.-]+)=(?P<version>[^=<>!~,|* ]+)")


class _File(msgspec.Struct):
    dependencies: list[str | dict[str, list[str] | str]]
    channels: list[str] | None = None
    platforms: list[str] | None = None
    prefix: str = ""


def read_env(text: str) -> CondaListing:
    """Read it.

    A line ``name=version=build`` says what is installed; where most lines are such ones, or there is a ``prefix`` and
    every line has a version, ``name=version`` does as well (``conda env export --no-builds``). Any other is a wish
    (``--from-history`` writes a ``prefix``, too).

    Raises
    ------
    UsageError
        It is damaged, names one package twice, or asks for nothing.
    """
    found = convert(load_yaml(text, FORM), _File, FORM)
    specs = [one.strip() for one in found.dependencies if isinstance(one, str) and one.strip()]
    pip = [line for one in found.dependencies if isinstance(one, dict) for line in _lines(one.get("pip"))]
    if not specs and not pip:
        raise UsageError(f"This {FORM} asks for nothing.", todo="Name packages under dependencies.")
    exported = _is_export(specs, of_prefix=bool(found.prefix))
    packages = one_each(_merged(package_of(spec, exported=exported) for spec in specs))
    pins, requirements, problems = read_pip(pip)
    channels = tuple(found.channels or ())
    if any(one.strip() in _NULL for one in channels):
        raise UsageError(f"A channel of this {FORM} has no name.", todo="Write its name, or take the line out.")
    contents = Contents(
        packages=packages,
        pins=pins,
        requirements=requirements,
        channels=tuple(filter(None, (clean_channel(one) for one in channels if one != "nodefaults"))),
    )
    return CondaListing(
        form="conda env export" if exported else FORM,
        contents={("", subdir): contents for subdir in found.platforms or [""]},
        problems=tuple(problems),
        secrets=secret_channels((*channels, *map(without_subdir, map(spec_channel, specs)))),
        options="\n".join(filter(_PIP_INDEXES.fullmatch, map(str.strip, pip))),
    )


def _is_export(specs: Sequence[str], *, of_prefix: bool) -> bool:
    """Whether they say what is installed."""
    bare = [spec.rpartition("::")[2] for spec in specs]
    if of_prefix and all(_INSTALLED.fullmatch(spec) or _VERSION.fullmatch(spec) for spec in bare):
        return True
    return sum(bool(_INSTALLED.fullmatch(spec)) for spec in bare) * 2 > len(bare)


def package_of(spec: str, *, exported: bool) -> CondaPackage:
    """What a match spec says is installed; version "" when it only asks for something.

    Raises
    ------
    UsageError
        It names no package.
    """
    channel, colons, rest = spec.partition("[")[0].rpartition("::")
    rest = redact_spec(spec[len(channel) + len(colons) :])
    match = _INSTALLED.fullmatch(rest) or _EXACT.fullmatch(rest) or (_VERSION.fullmatch(rest) if exported else None)
    said = match.groupdict() if match else {}
    name = spec_name(rest)
    if not re.fullmatch(r"[a-z0-9_.-]+", name):
        shown = "A line with a URL" if "://" in spec else repr(redact_spec(spec)[:80])
        raise UsageError(f"{shown} is no match spec of conda's.", todo="Write one like numpy>=1.26,<3.")
    return CondaPackage(
        name=name,
        version=said.get("version") or "",
        build=said.get("build") or "",
        channel=without_subdir(clean_channel(channel)),
        requested=() if exported else (f"{clean_channel(channel)}::{rest}" if colons else rest,),
    )


def read_pip(lines: Iterable[str]) -> tuple[tuple[Pin, ...], tuple[str, ...], list[Problem]]:
    """What pip installed, by version; what it is asked for in another way; what can't be told from a line.

    Options that say where files are count for all lines, and are not looked at here.
    """
    pins: list[Pin] = []
    wanted: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if _PIP_INDEXES.fullmatch(line.strip()):
            continue
        requirement = _requirement(line)
        if requirement is not None and requirement.url is None and not _is_pinned(requirement):
            wanted.append(str(requirement))
            continue
        try:
            listing = read_requirements(line)
            pins += listing.offered({})
            problems += listing.problems
        except UsageError as error:
            message = f"{error.what} It is passed over."
            subject = f"line {number} for pip"
            problems.append(Problem(code="not-understood", subject=subject, message=message, severity=Severity.WARNING))
    return tuple(pins), tuple(wanted), problems


def _is_pinned(requirement: Requirement) -> bool:
    """``==1.2`` without a marker, which is what an environment that is installed has."""
    operators = [one.operator for one in requirement.specifier]
    version = next(iter(requirement.specifier)).version if operators else ""
    return operators in (["=="], ["==="]) and not version.endswith(".*") and requirement.marker is None


def _requirement(line: str) -> Requirement | None:
    try:
        requirement = Requirement(re.sub(r"(^|\s+)#.*$", "", line).strip())
    except InvalidRequirement:
        return None
    return requirement if canonicalize_name(requirement.name) else None


def _merged(packages: Iterable[CondaPackage]) -> list[CondaPackage]:
    """Several wishes about one package are one package with several wishes."""
    found: dict[str, CondaPackage] = {}
    for package in packages:
        known = found.get(package.name)
        if known is None or (known.version and package.version):
            found[package.name if known is None else f"{package.name} "] = package
            continue
        found[package.name] = msgspec.structs.replace(
            known if known.version else package, requested=tuple(dict.fromkeys((*known.requested, *package.requested)))
        )
    return list(found.values())


def _lines(value: list[str] | str | None) -> list[str]:
    lines = [value] if isinstance(value, str) else list(value or ())
    return [line for line in lines if line.strip()]
