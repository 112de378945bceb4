"""``pixi.lock``, versions 4 to 7 (its older versions are what conda-lock writes): environments, platforms, packages.

Which package an environment has is said by URL; what is known of it stands once, in a list of its own. From version 6
on, name, version and build are left out where the URL says them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from likewise.errors import UsageError
from likewise.formats.conda_lists import one_each, pip_pin
from likewise.formats.conda_lock import read_conda_lock
from likewise.formats.conda_values import (
    CondaListing,
    Contents,
    archive_of,
    clean_channel,
    hexadecimal,
    secret_channels,
)
from likewise.formats.documents import convert
from likewise.formats.links import named_file
from likewise.formats.listing import UNKNOWN_VERSION, Pin
from likewise.model.conda import CondaPackage
from likewise.model.origins import redact, redact_spec
from likewise.model.snapshot import Origin, OriginKind, Problem, Severity

FORM = "pixi.lock"
NEWEST = 7


class _Package(msgspec.Struct):
    conda: str = ""
    pypi: str = ""
    kind: str = ""
    url: str = ""
    name: str = ""
    version: str = ""
    build: str = ""
    build_number: int = 0
    subdir: str = ""
    sha256: str = ""
    md5: str = ""
    noarch: str = ""
    depends: list[str] = []
    constrains: list[str] = []
    requires_dist: list[str] = []
    purls: list[str] = []
    editable: str = ""

    @property
    def place(self) -> str:
        """Its URL, or its path."""
        return self.conda or self.pypi or self.url


class _Channel(msgspec.Struct):
    url: str


class _Environment(msgspec.Struct):
    channels: list[_Channel | str] = []
    packages: dict[str, list[dict[str, Any]]] = {}


class _Platform(msgspec.Struct):
    name: str
    subdir: str = ""


class _File(msgspec.Struct):
    version: int
    environments: dict[str, _Environment]
    packages: list[_Package]
    platforms: list[_Platform | str] = []


def read_pixi_lock(document: Any) -> CondaListing:
    """Read it, of all environments and platforms that it locks.

    What is built from sources (``conda_source``) is a problem: it is in no channel.

    Raises
    ------
    UsageError
        It is damaged, or of a version that is not known here.
    """
    version = str(document.get("version", "")) if isinstance(document, dict) else ""
    if version.isdecimal() and int(version) > NEWEST:
        raise UsageError(
            f"This {FORM} has version {version}; known here are those up to {NEWEST}.", todo="Update likewise."
        )
    if isinstance(document, dict) and "environments" not in document:
        return read_conda_lock(document, form=FORM)
    found = convert(document, _File, FORM)
    known = {one.place: one for one in found.packages if one.place}
    subdirs = {one.name: one.subdir or one.name for one in found.platforms if isinstance(one, _Platform)}
    problems: dict[str, Problem] = {}
    contents: dict[tuple[str, str], Contents] = {}
    texts: list[str] = []
    for name, environment in found.environments.items():
        urls = [one if isinstance(one, str) else one.url for one in environment.channels]
        texts += urls
        channels = tuple(filter(None, map(clean_channel, urls)))
        for platform, entries in environment.packages.items():
            packages, pins = _chosen(entries, known, problems)
            contents[name, subdirs.get(platform, platform)] = Contents(
                packages=one_each(packages), pins=tuple(pins), channels=channels
            )
    if not any(one.packages or one.pins for one in contents.values()):
        raise UsageError(f"There is no package in this {FORM}.", todo="Write it again: pixi lock")
    secrets = secret_channels((*texts, *(one.place.rsplit("/", 2)[0] for one in found.packages if not one.pypi)))
    return CondaListing(form=FORM, contents=contents, problems=tuple(problems.values()), secrets=secrets)


def _chosen(
    entries: list[dict[str, Any]], known: Mapping[str, _Package], problems: dict[str, Problem]
) -> tuple[list[CondaPackage], list[Pin]]:
    """The packages and distributions that the entries of one platform name.

    Raises
    ------
    UsageError
        Where one of them is, is no text.
    """
    packages: list[CondaPackage] = []
    pins: list[Pin] = []
    for entry in entries:
        if not all(isinstance(entry.get(key, ""), str) for key in ("conda", "pypi")):
            raise UsageError(f"This {FORM} is damaged: a package's place is no text.", todo="Write it again: pixi lock")
        if "conda" in entry:
            package = _package(known.get(entry["conda"]) or _Package(conda=entry["conda"]))
            if package is not None:
                packages.append(package)
                continue
        elif "pypi" in entry:
            pins.append(_pin(known.get(entry["pypi"]) or _Package(pypi=entry["pypi"])))
            continue
        place = str(next(iter(entry.values()), "?")).partition("[")[0].partition(" ")[0]
        subject = (redact(place) if "://" in place else place).rstrip("/").rpartition("/")[2] or "?"
        problems[subject] = Problem(
            code="from-source",
            subject=subject,
            message="It is built from sources that the lock names, and no channel has it: it is left out.",
            severity=Severity.WARNING,
        )
    return packages, pins


def _package(one: _Package) -> CondaPackage | None:
    """What is said of a package, and where that is nothing, what its URL says."""
    place = archive_of(one.place)
    if place is None:
        return None
    return msgspec.structs.replace(
        place,
        name=(one.name or place.name).lower(),
        version=one.version or place.version,
        build=one.build or place.build,
        build_number=one.build_number,
        subdir=one.subdir or place.subdir,
        sha256=hexadecimal(one.sha256, 64),
        md5=hexadecimal(one.md5, 32),
        noarch=one.noarch,
        requires=tuple(map(redact_spec, one.depends)),
        constrains=tuple(map(redact_spec, one.constrains)),
    )


def _pin(one: _Package) -> Pin:
    name, version = named_file(one.place)
    if "://" not in one.place:  # a folder: what lies there is not in the lock
        origin = Origin(kind=OriginKind.EDITABLE if one.editable == "true" else OriginKind.DIRECTORY, path=one.place)
        return Pin(name=one.name, version=one.version or UNKNOWN_VERSION, origin=origin, installer="pip")
    return pip_pin(
        one.name or name,
        one.version or version or UNKNOWN_VERSION,
        url=one.place,
        sha256=one.sha256,
        requires=tuple(one.requires_dist),
    )
