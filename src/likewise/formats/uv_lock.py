"""``uv.lock``: what a project's environment has on every platform, with the files of each distribution.

What ``uv sync`` installs is found as uv does it: from the project (or the members of the workspace) along the
dependencies whose markers hold, with the group ``dev`` and without extras.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from packaging.utils import canonicalize_name

from likewise.errors import UsageError
from likewise.formats.links import filename_of, link_origin, locked_file, vcs_origin
from likewise.formats.listing import UNKNOWN_VERSION, Listing, Pin, applies
from likewise.formats.toml import read_toml
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Origin, OriginKind

VERSION = 1
DEFAULT_GROUP = "dev"


class _Source(msgspec.Struct):
    registry: str = ""
    url: str = ""
    git: str = ""
    path: str = ""
    directory: str = ""
    editable: str = ""
    virtual: str = ""


class _File(msgspec.Struct):
    url: str = ""
    path: str = ""
    filename: str = ""
    hash: str = ""
    size: int | None = None


class _Dependency(msgspec.Struct):
    name: str
    version: str = ""
    extra: list[str] = []
    marker: str = ""


class _Package(msgspec.Struct, rename={"optional": "optional-dependencies", "groups": "dev-dependencies"}):
    name: str
    version: str = UNKNOWN_VERSION
    source: _Source = msgspec.field(default_factory=_Source)
    dependencies: list[_Dependency] = []
    optional: dict[str, list[_Dependency]] = {}
    groups: dict[str, list[_Dependency]] = {}
    wheels: list[_File] = []
    sdist: _File | None = None


class _Manifest(msgspec.Struct):
    members: list[str] = []


class _Lock(msgspec.Struct, rename={"requires_python": "requires-python", "supported": "supported-markers"}):
    version: int
    requires_python: str = ""
    supported: list[str] = []
    manifest: _Manifest = msgspec.field(default_factory=_Manifest)
    package: list[_Package] = []


class _Head(msgspec.Struct):
    version: int


def read_uv_lock(text: str) -> Listing:
    """Read it.

    Raises
    ------
    UsageError
        It is damaged, of a version that is not known here, or has no project.
    """
    head = read_toml(text, _Head, form="uv.lock")
    if head.version > VERSION:
        raise UsageError(
            f"This uv.lock has version {head.version}; known here is {VERSION}.", todo="Update likewise and uv."
        )
    graph = _Graph(read_toml(text, _Lock, form="uv.lock"))
    return Listing(
        form="uv.lock",
        select=lambda environment: graph.installed(environment, everything=False),
        offered=lambda environment: graph.installed(environment, everything=True),
        requires_python=graph.lock.requires_python,
        environments=tuple(graph.lock.supported),
    )


class _Graph:
    """The packages of a lock, and who needs whom."""

    def __init__(self, lock: _Lock) -> None:
        self.lock = lock
        self._by_name: dict[str, list[_Package]] = {}
        for package in lock.package:
            self._by_name.setdefault(package.name, []).append(package)
        members = set(lock.manifest.members)
        self._roots = [p for p in lock.package if p.name in members or (not members and _is_project(p))]
        if lock.package and not self._roots:
            raise UsageError("This uv.lock has no project.", todo="Write it again: uv lock")
        for dependency in self._all_dependencies():
            self._find(dependency)

    def installed(self, environment: Mapping[str, str], *, everything: bool) -> tuple[Pin, ...]:
        """What is there when the project is installed; with all groups and extras of it when `everything`."""
        reached: dict[tuple[str, str], _Package] = {}
        done: set[tuple[str, str, str]] = set()  # name, version, extra
        waiting = [(root, extra) for root in self._roots for extra in ("", *(root.optional if everything else ()))]
        while waiting:
            package, extra = waiting.pop()
            key = (package.name, package.version, extra)
            if key in done:
                continue
            done.add(key)
            reached[key[:2]] = package
            for dependency in self._needs(package, extra, everything=everything):
                if applies(dependency.marker, environment):
                    found = self._find(dependency)
                    waiting += [(found, one) for one in ("", *dependency.extra)]
        return tuple(_pin(package) for package in reached.values() if not package.source.virtual)

    def _needs(self, package: _Package, extra: str, *, everything: bool) -> Iterator[_Dependency]:
        if extra:
            yield from package.optional.get(extra, ())
            return
        yield from package.dependencies
        if package in self._roots:
            for group, members in package.groups.items():
                if everything or group == DEFAULT_GROUP:
                    yield from members

    def _all_dependencies(self) -> Iterator[_Dependency]:
        for package in self.lock.package:
            yield from package.dependencies
            for members in (*package.optional.values(), *package.groups.values()):
                yield from members

    def _find(self, dependency: _Dependency) -> _Package:
        found = [
            package
            for package in self._by_name.get(dependency.name, ())
            if not dependency.version or package.version == dependency.version
        ]
        if not found:
            raise UsageError(
                f"This uv.lock is damaged: {dependency.name} {dependency.version} is needed and not in it.",
                todo="Write it again: uv lock",
            )
        return found[0]


def _is_project(package: _Package) -> bool:
    return "." in (package.source.virtual, package.source.editable, package.source.directory)


def _pin(package: _Package) -> Pin:
    origin = _origin(package.source)
    is_open = origin.kind in (OriginKind.INDEX, OriginKind.ARCHIVE)
    files = [*package.wheels, *([package.sdist] if package.sdist else [])]
    return Pin(
        name=canonicalize_name(package.name),
        version=package.version,
        origin=origin,
        requires=tuple(_requirements(package)),
        provides_extras=tuple(package.optional),
        wheels=tuple(_locked(package.wheels, package.source)) if is_open else (),
        hashes=frozenset(file.hash.removeprefix("sha256:") for file in files if file.hash.startswith("sha256:")),
    )


def _origin(source: _Source) -> Origin:
    if source.git:  # https://host/path?rev=v1&subdirectory=folder#commit
        url, _, commit = source.git.partition("#")
        address, _, query = url.partition("?")
        asked = dict(part.partition("=")[::2] for part in query.split("&"))
        revision = asked.get("rev") or asked.get("tag") or asked.get("branch") or ""
        return vcs_origin(
            address, vcs="git", commit=commit, revision=revision, subdirectory=asked.get("subdirectory", "")
        )
    if source.url:
        return link_origin(source.url)
    if source.path:
        return Origin(kind=OriginKind.ARCHIVE, path=source.path)
    if source.directory:
        return Origin(kind=OriginKind.DIRECTORY, path=source.directory)
    if source.editable:
        return Origin(kind=OriginKind.EDITABLE, path=source.editable)
    return Origin(kind=OriginKind.INDEX)


def _locked(files: Iterable[_File], source: _Source) -> Iterator[LockedFile]:
    """The wheels; a registry that is a folder has paths instead of URLs, and they are of no use elsewhere."""
    for file in files:
        url = file.url or source.url
        name = file.filename or filename_of(url)
        locked = locked_file(url=url, filename=name, sha256=file.hash, size=file.size)
        if locked is not None:
            yield locked


def _requirements(package: _Package) -> Iterator[str]:
    yield from (_requirement(dependency, "") for dependency in package.dependencies)
    for extra, dependencies in package.optional.items():
        yield from (_requirement(dependency, f"extra == '{extra}'") for dependency in dependencies)


def _requirement(dependency: _Dependency, extra: str) -> str:
    """PEP 508. Versions are left out: the lock has chosen them already, for each platform its own."""
    extras = f"[{','.join(dependency.extra)}]" if dependency.extra else ""
    markers = [f"({one})" if extra and one is dependency.marker else one for one in (dependency.marker, extra) if one]
    return f"{dependency.name}{extras}" + (f" ; {' and '.join(markers)}" if markers else "")
