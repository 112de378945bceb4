"""``pylock.toml`` (PEP 751)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from packaging.utils import canonicalize_name

from likewise.errors import UsageError
from likewise.formats.links import filename_of, link_origin, locked_file, vcs_origin
from likewise.formats.listing import UNKNOWN_VERSION, Listing, Pin, applies
from likewise.formats.toml import read_toml
from likewise.model.snapshot import Origin, OriginKind

VERSION = "1"
"""The major part of the ``lock-version`` that is understood."""


class _File(msgspec.Struct):
    name: str = ""
    url: str = ""
    path: str = ""
    size: int | None = None
    hashes: dict[str, str] = {}


class _Vcs(msgspec.Struct, rename={"kind": "type", "commit": "commit-id", "revision": "requested-revision"}):
    kind: str
    commit: str
    url: str = ""
    path: str = ""
    revision: str = ""
    subdirectory: str = ""


class _Directory(msgspec.Struct):
    path: str
    editable: bool = False


class _Dependency(msgspec.Struct):
    name: str = ""


class _Package(msgspec.Struct):
    name: str
    version: str = UNKNOWN_VERSION
    marker: str = ""
    dependencies: list[_Dependency] = []
    vcs: _Vcs | None = None
    directory: _Directory | None = None
    archive: _File | None = None
    sdist: _File | None = None
    wheels: list[_File] = []


class _Lock(
    msgspec.Struct,
    rename={"lock_version": "lock-version", "requires_python": "requires-python", "default_groups": "default-groups"},
):
    lock_version: str
    packages: list[_Package]
    requires_python: str = ""
    environments: list[str] = []
    default_groups: list[str] = []


class _Head(msgspec.Struct, rename={"lock_version": "lock-version"}):
    lock_version: str


def read_pylock(text: str) -> Listing:
    """Read it; what is installed is what PEP 751 ("Installation") installs without extras and with default groups.

    Raises
    ------
    UsageError
        It is damaged, or of a version that is not known here.
    """
    head = read_toml(text, _Head, form="pylock.toml")
    if head.lock_version.partition(".")[0] != VERSION:
        raise UsageError(
            f"This pylock.toml has lock-version {head.lock_version}; known here is {VERSION}.0.",
            todo="Update likewise.",
        )
    lock = read_toml(text, _Lock, form="pylock.toml")
    pins = [(package.marker, _pin(package)) for package in lock.packages]
    groups = frozenset(lock.default_groups)

    def select(environment: Mapping[str, str]) -> tuple[Pin, ...]:
        return tuple(pin for marker, pin in pins if applies(marker, environment, groups=groups))

    return Listing(
        form="pylock.toml",
        select=select,
        offered=select,
        requires_python=lock.requires_python,
        environments=tuple(lock.environments),
    )


def _pin(package: _Package) -> Pin:
    files = [*package.wheels, *(one for one in (package.sdist, package.archive) if one is not None)]
    wheels = [*package.wheels, *([package.archive] if package.archive else [])]
    locked = [
        locked_file(
            url=file.url,
            filename=file.name or filename_of(file.url),
            sha256=file.hashes.get("sha256", ""),
            size=file.size,
        )
        for file in wheels
        if filename_of(file.name or file.url).endswith(".whl")
    ]
    return Pin(
        name=canonicalize_name(package.name),
        version=package.version,
        origin=_origin(package),
        requires=tuple(dependency.name for dependency in package.dependencies if dependency.name),
        wheels=tuple(file for file in locked if file is not None),
        hashes=frozenset(digest.lower() for file in files if (digest := file.hashes.get("sha256", ""))),
    )


def _origin(package: _Package) -> Origin:
    if package.vcs is not None:
        return vcs_origin(
            package.vcs.url,
            vcs=package.vcs.kind,
            commit=package.vcs.commit,
            revision=package.vcs.revision,
            subdirectory=package.vcs.subdirectory,
        )
    if package.directory is not None:
        kind = OriginKind.EDITABLE if package.directory.editable else OriginKind.DIRECTORY
        return Origin(kind=kind, path=package.directory.path)
    if package.archive is not None:
        link = package.archive.url
        return link_origin(link) if link else Origin(kind=OriginKind.ARCHIVE, path=package.archive.path)
    return Origin(kind=OriginKind.INDEX)
