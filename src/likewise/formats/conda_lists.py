"""What ``conda list`` writes, as text, as JSON, as ``name=version=build`` and as an explicit list of URLs.

mamba, micromamba and pixi write the same with small differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec
from packaging.utils import canonicalize_name

from likewise.errors import UsageError
from likewise.formats.conda_values import (
    PIP_CHANNELS,
    CondaListing,
    Contents,
    archive_of,
    clean_channel,
    hexadecimal,
    is_virtual,
    secret_channels,
)
from likewise.formats.links import locked_file, named_file
from likewise.formats.listing import Pin
from likewise.model.conda import CondaPackage
from likewise.model.origins import redact_requirement
from likewise.model.snapshot import Origin, OriginKind, Problem
from likewise.model.subdirs import NOARCH

EXPLICIT = "explicit list of conda packages"
LIST = "conda list"

_PLATFORM = re.compile(r"^#\s*platform:\s*([a-z]+-[a-z0-9]+)\s*$", re.MULTILINE)
_PIP_BUILD = "pypi_0"
"""What conda writes in place of a build for what pip installed: in an export that is all there is to tell by."""

_PIP_LINE = re.compile(
    r"#\s*pip\s+(?P<name>[A-Za-z0-9._-]+)\s*@\s*(?P<url>\S+)(?:\s+--hash=sha256:(?P<sha256>\w{64}))?"
)


class _Row(msgspec.Struct):
    """An entry of ``conda list --json``, ``micromamba list --json`` or ``pixi list --json``."""

    name: str
    version: str | None = None
    build_string: str | None = None
    build: str | None = None
    build_number: int | str | None = None
    channel: str | None = None
    base_url: str | None = None
    platform: str | None = None
    subdir: str | None = None
    url: str | None = None
    sha256: str | None = None
    md5: str | None = None
    kind: str | None = None
    source: str | None = None
    is_explicit: bool = False


def read_explicit(text: str) -> CondaListing:
    """Read an explicit list (``@EXPLICIT``, one URL a line).

    Raises
    ------
    UsageError
        It names no package, or one twice.
    """
    found: list[CondaPackage] = []
    problems: list[Problem] = []
    lines = [line.strip() for line in text.splitlines()]
    for number, line in enumerate(lines, 1):
        if not line or line.startswith(("#", "@")):
            continue
        package = archive_of(line)
        if package is None:
            problems.append(not_understood(number, "is no URL of a conda package"))
        else:
            found.append(package)
    subdir = _said_platform(text) or _most(found)
    secrets = secret_channels(tuple(line.rsplit("/", 2)[0] for line in lines if "://" in line and line[0] not in "#@"))
    pins = tuple(pin for line in lines if (pin := _pip_pin(line)))
    return _listing(EXPLICIT, found, pins, subdir, problems, secrets)


def read_list(text: str) -> CondaListing:
    """Read the table of ``conda list``, or its ``--export``: ``name=version=build``.

    Raises
    ------
    UsageError
        It names no package, or one twice.
    """
    found: list[CondaPackage] = []
    pins: list[Pin] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = _cells(line)
        if not cells:
            continue
        if len(cells) < 2 or not re.match(r"[0-9a-zA-Z]", cells[1]):
            problems.append(not_understood(number, "names no version"))
            continue
        name, version, build, channel = (*cells, "", "")[:4]
        if channel in PIP_CHANNELS or build in (*PIP_CHANNELS, _PIP_BUILD):
            pins.append(pip_pin(name, version))
        else:
            found.append(CondaPackage(name=name.lower(), version=version, build=build, channel=clean_channel(channel)))
    return _listing(LIST, found, tuple(pins), _said_platform(text), problems, {})


def read_json(text: str) -> CondaListing:
    """Read ``conda list --json`` and its like.

    Raises
    ------
    UsageError
        It is damaged, names no package, or one twice.
    """
    try:
        rows = msgspec.json.decode(text, type=list[_Row])
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"This `conda list --json` is damaged: {error}.", todo="Write it again.") from None
    conda = [row for row in rows if row.version and not _is_pip(row)]
    pins = tuple(pip_pin(row.name, row.version) for row in rows if row.version and _is_pip(row))
    problems = [
        Problem(code="nameless", subject=row.name or "?", message="It has no version, so it is left out.")
        for row in rows
        if not row.version
    ]
    found = [_package(row) for row in conda]
    secrets = secret_channels(tuple(filter(None, (row.base_url for row in conda))))
    return _listing(f"{LIST} --json", found, pins, _most(found), problems, secrets)


def pip_pin(name: str, version: str, *, url: str = "", sha256: str = "", requires: tuple[str, ...] = ()) -> Pin:
    """What pip installed, by its version, and its file where that is known; requirements lose their credentials."""
    sha256 = hexadecimal(sha256, 64)
    file = locked_file(url=url, filename="", sha256=sha256, size=None) if sha256 and "://" in url else None
    return Pin(
        name=str(canonicalize_name(name)),
        version=version,
        origin=Origin(kind=OriginKind.INDEX),
        requires=tuple(map(redact_requirement, requires)),
        installer="pip",
        wheels=(file,) if file and file.filename.endswith(".whl") else (),
        hashes=frozenset([sha256] if sha256 else ()),
    )


def not_understood(number: int, why: str) -> Problem:
    """A line that is passed over; not repeated, since it may hold a credential."""
    return Problem(code="not-understood", subject=f"line {number}", message=f"It {why}; it is passed over.")


def one_each(packages: Iterable[CondaPackage]) -> tuple[CondaPackage, ...]:
    """`packages` by name.

    Raises
    ------
    UsageError
        Two versions or builds of one.
    """
    found: dict[str, CondaPackage] = {}
    for package in packages:
        other = found.setdefault(package.name, package)
        if (other.version, other.build) != (package.version, package.build):
            raise UsageError(
                f"It has two of {package.name}: {other.version} {other.build} and {package.version} {package.build}.",
                todo="Take one of them out.",
                details={"name": package.name},
            )
    return tuple(found[name] for name in sorted(found))


def _listing(
    form: str,
    found: Iterable[CondaPackage],
    pins: tuple[Pin, ...],
    subdir: str,
    problems: list[Problem],
    secrets: dict[str, str],
) -> CondaListing:
    packages = one_each(package for package in found if not is_virtual(package.name))
    if not packages:
        raise UsageError(f"There is no conda package in this {form}.", todo="Write it again.")
    contents = Contents(packages=packages, pins=pins)
    return CondaListing(form=form, contents={("", subdir): contents}, problems=tuple(problems), secrets=secrets)


def _cells(line: str) -> list[str]:
    """Name, version, build and channel; nothing for a heading, a rule or a comment."""
    line = line.strip()
    cells = line.split("=") if "=" in line and " " not in line else line.split()
    if not cells or line.startswith(("#", "List of packages", "─", "-")) or cells[:2] == ["Name", "Version"]:
        return []
    return cells


def _is_pip(row: _Row) -> bool:
    return row.channel in PIP_CHANNELS or row.build_string in PIP_CHANNELS or row.kind == "pypi"


def _package(row: _Row) -> CondaPackage:
    known = archive_of(row.url or "")
    channel = row.base_url or row.channel or (row.source if row.kind == "conda" else "") or ""
    number = str(row.build_number or 0)
    return CondaPackage(
        name=row.name.lower(),
        version=row.version or "",
        build=row.build_string or row.build or "",
        build_number=int(number) if number.isdecimal() else 0,
        channel=(known.channel if known else "") or clean_channel(channel),
        subdir=row.subdir or row.platform or (known.subdir if known else ""),
        url=known.url if known else "",
        sha256=hexadecimal(row.sha256 or "", 64),
        md5=hexadecimal(row.md5 or "", 32),
        requested=(row.name,) if row.is_explicit else (),
    )


def _pip_pin(line: str) -> Pin | None:
    """conda-lock writes what pip has to install as comments into an explicit list."""
    match = _PIP_LINE.match(line)
    if match is None:
        return None
    version = named_file(match["url"])[1]
    return pip_pin(match["name"], version, url=match["url"], sha256=match["sha256"] or "") if version else None


def _said_platform(text: str) -> str:
    match = _PLATFORM.search(text)
    return match[1] if match else ""


def _most(packages: Iterable[CondaPackage]) -> str:
    """The subdir that most packages are for, "" where all are noarch."""
    counts: dict[str, int] = {}
    for subdir in _subdirs(packages):
        counts[subdir] = counts.get(subdir, 0) + 1
    return max(counts, key=lambda subdir: counts[subdir], default="")


def _subdirs(packages: Iterable[CondaPackage]) -> Iterator[str]:
    return (package.subdir for package in packages if package.subdir not in ("", NOARCH))
