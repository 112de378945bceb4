"""What ``pip freeze`` writes, and requirements files that pin every version, with or without hashes.

The grammar is that of pip's "Requirements File Format". Where the versions of an environment are asked for, a line
without one is an error, and a line that is no requirement at all is told and passed over: people write notes there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from likewise.errors import UsageError
from likewise.formats.links import link_origin, named_file
from likewise.formats.listing import UNKNOWN_VERSION, Listing, Pin, Select, applies
from likewise.model.origins import redact
from likewise.model.snapshot import Origin, OriginKind, Problem, Severity
from likewise.model.target import Platform

FORM = "requirements"

_COMMENT = re.compile(r"(^|\s+)#.*$")
_HASH = re.compile(r"\s--hash[=\s]\s*sha256:([0-9a-fA-F]{64})(?=\s|$)")
_OPTIONS = re.compile(r"\s--?[a-z].*$")
_EDITABLE = re.compile(r"(?:-e|--editable)[=\s]\s*(.+)")
_OTHER_FILE = re.compile(r"(?:-r|--requirement|-c|--constraint)[=\s]?\s*(\S+)")
_NAMED = re.compile(r"# Editable .*\(([A-Za-z0-9._-]+)==([^)\s]+)\)")  # pip writes it above an editable
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")

_PYTHON = re.compile(r"(?:with Python |--python-version[= ]|\s-p )(3\.\d+(?:\.\d+)?)\b")
_PLATFORM = re.compile(r"--python-platform[= ](\S+)")
_PLATFORMS = {
    "windows": ("windows", "x86_64"),
    "macos": ("macos", "aarch64"),
    "linux": ("linux", "x86_64"),
}


@dataclass
class _Found:
    """What is gathered while lines are read; a pin goes with its marker."""

    pins: list[tuple[str, Pin]] = field(default_factory=list)
    unpinned: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def note(self, code: str, subject: str, message: str, severity: Severity = Severity.WARNING) -> None:
        """Add a problem."""
        self.problems.append(Problem(code=code, subject=subject, message=message, severity=severity))


def read_requirements(text: str) -> Listing:
    """Read it.

    Raises
    ------
    UsageError
        It names another file, has a line without a version, or no requirement at all.
    """
    found = _Found()
    named = ""
    for number, line in _lines(text):
        if line.startswith("#"):
            named = line if _NAMED.match(line) else ""
            continue
        _read_line(_COMMENT.sub("", line).strip(), number, named, found)
        named = ""
    if found.unpinned:
        raise UsageError(
            f"No exact version is given for {_some(found.unpinned)}.",
            todo="Give what `pip freeze` or `pip inspect` writes, or lock it first: uv pip compile FILE",
            details={"unpinned": found.unpinned},
        )
    if not found.pins:
        raise UsageError("There is no requirement in it.", todo="Give what `pip freeze` or `pip inspect` writes.")
    select = _selection(found.pins)
    python, platform = _compiled_for(text)
    return Listing(
        form=FORM,
        select=select,
        offered=select,
        python=python,
        platform=platform,
        problems=tuple(found.problems),
    )


def _selection(pins: list[tuple[str, Pin]]) -> Select:
    def select(environment: Mapping[str, str]) -> tuple[Pin, ...]:
        return tuple(pin for marker, pin in pins if applies(marker, environment))

    return select


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines and where they end: a backslash continues one; comments come alone and whole."""
    kept, number = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            kept += line[:-1] + " "
            continue
        whole, kept = (kept + line).strip(), ""
        if whole:
            yield number, whole
    if kept.strip():
        yield number, kept.strip()


def _read_line(line: str, number: int, named: str, found: _Found) -> None:
    if other := _OTHER_FILE.fullmatch(line):
        raise UsageError(
            f"It refers to another file, {redact(other[1]) if '://' in other[1] else other[1]}, which is not read.",
            todo="Put all of it into one file: uv pip compile FILE",
        )
    if editable := _EDITABLE.fullmatch(line):
        found.pins.append(("", _editable(editable[1], named)))
    elif line and not line.startswith("-"):
        hashes = frozenset(digest.lower() for digest in _HASH.findall(line))
        if not hashes and "--hash" in line:
            message = "It has no sha256, and files are compared by nothing else: they are not held to its hashes."
            found.note("hash-unknown", f"line {number}", message)
        _read_requirement(_OPTIONS.sub("", line).strip(), number, hashes, found)


def _read_requirement(text: str, number: int, hashes: frozenset[str], found: _Found) -> None:
    requirement = _requirement(text)
    if requirement is None:
        shown = "A line with a URL" if "://" in text else repr(text[:80])  # a URL may hold a credential
        found.note("not-understood", f"line {number}", f"{shown} is no requirement; it is passed over.")
        return
    name, marker = canonicalize_name(requirement.name), str(requirement.marker or "")
    if requirement.url:
        origin, version = link_origin(requirement.url), named_file(requirement.url)[1] or UNKNOWN_VERSION
        if origin.kind is OriginKind.CONDA and version == UNKNOWN_VERSION:
            found.note(
                "no-version",
                name,
                "conda installed it, and `pip freeze` writes the folder of its build in place of its version; it is "
                "left out. Give what `pip inspect` or `pip list --format=freeze` writes.",
                Severity.ERROR,
            )
            return
    else:
        origin, version = Origin(kind=OriginKind.INDEX), _exact(requirement)
        if not version:
            found.unpinned.append(text)
            return
    found.pins.append((marker, Pin(name=name, version=version, origin=origin, hashes=hashes)))


def _requirement(text: str) -> Requirement | None:
    """A requirement, also where only the URL or path of a wheel is given, or of a repository with ``#egg=``."""
    try:
        return Requirement(text)
    except InvalidRequirement:
        pass
    where, _, marker = text.partition(" ;")
    egg = _EGG.search(where)
    name = egg[1] if egg else named_file(where)[0]
    if not name:
        return None
    url = where if "://" in where else f"file:{where}"
    try:
        return Requirement(f"{name} @ {url}" + (f" ; {marker}" if marker else ""))
    except InvalidRequirement:
        return None


def _exact(requirement: Requirement) -> str:
    """The one version that fits, "" when there may be others."""
    if len(requirement.specifier) != 1:
        return ""
    (specifier,) = requirement.specifier
    exact = specifier.operator == "===" or (specifier.operator == "==" and not specifier.version.endswith(".*"))
    return specifier.version if exact else ""


def _editable(text: str, named: str) -> Pin:
    """``-e`` with a folder or a repository; pip says name and version in the comment above where no URL has them."""
    match, egg = _NAMED.match(named), _EGG.search(text)
    url = text.partition(" @ ")[2] or text
    origin = link_origin(url) if "://" in url else Origin(kind=OriginKind.EDITABLE, path=url)
    path = origin.path if origin.kind is not OriginKind.VCS else ""
    place = origin.url if "://" in url else url  # without a credential
    name = match[1] if match else egg[1] if egg else re.split(r"[/\\]", place.rstrip("/\\"))[-1]
    return Pin(
        name=canonicalize_name(name),
        version=match[2] if match else UNKNOWN_VERSION,
        origin=Origin(kind=OriginKind.EDITABLE, url=origin.url, commit=origin.commit, path=path),
        requested=True,
    )


def _compiled_for(text: str) -> tuple[str, Platform | None]:
    """Python and platform of which the head of a compiled file tells: the command that wrote it."""
    head = " ".join(line for line in text.splitlines()[:8] if line.startswith("#"))
    python, platform = _PYTHON.search(head), _PLATFORM.search(head)
    return python[1] if python else "", _platform(platform[1]) if platform else None


def _platform(name: str) -> Platform | None:
    """The platform that uv calls `name`: ``macos``, ``aarch64-apple-darwin``, ``x86_64-manylinux_2_28``, …"""
    if name in _PLATFORMS:
        system, arch = _PLATFORMS[name]
        return Platform(os=system, arch=arch)
    arch, _, rest = name.partition("-")
    system = "macos" if "darwin" in rest else "windows" if "windows" in rest else "linux"
    return Platform(os=system, arch=arch) if rest else None


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
