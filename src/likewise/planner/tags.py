"""Which wheels fit a target (PEP 425, 600, 656). Nothing here asks the running interpreter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from likewise.model.plan import LockedFile
from likewise.model.target import Platform, Target

_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""Minor version of glibc 2 -> what such wheels were called before PEP 600."""

_OLD_ARCHITECTURES = ("x86_64", "i686")
"""PEP 513 and 571 know these alone; wheels for any other are for glibc 2.17 or later (PEP 599)."""

_MACOS = (14, 0)
"""The macOS that wheels for a Mac may need: the oldest one that Apple looked after in 2026."""

_WINDOWS = {"x86_64": "win_amd64", "aarch64": "win_arm64", "i686": "win32"}


@lru_cache(maxsize=8)
def target_tags(target: Target) -> tuple[str, ...]:
    """Every wheel tag (PEP 425) that CPython on `target` can use, the best first."""
    version = Version(target.python).release[:2]
    interpreter = f"cp{version[0]}{version[1]}"
    platforms = list(_platforms(target.platform))
    tags = [
        *cpython_tags(version, [interpreter], platforms),
        *compatible_tags(version, interpreter, platforms),
    ]
    return tuple(dict.fromkeys(map(str, tags)))


def fits(tags: Iterable[str], target: Target) -> bool:
    """Whether a wheel with these `tags` (compressed sets or not) can be used on `target`."""
    usable = _usable(target)
    return any(tag in usable for tag in expanded(tags))


def best_file(files: Iterable[LockedFile], target: Target) -> LockedFile:
    """Of the files of one version the one that fits `target` best, an sdist where there is no wheel."""
    order = {tag: place for place, tag in enumerate(target_tags(target))}
    return min(files, key=lambda file: min((order.get(tag, len(order)) for tag in _tags_of(file)), default=0))


def is_pure(tags: Iterable[str]) -> bool:
    """Whether every one of `tags` ends in ``none-any``: no compiled code, any platform. False when there are none."""
    found = tuple(expanded(tags))
    return bool(found) and all(tag.endswith("-none-any") for tag in found)


def expanded(tags: Iterable[str]) -> Iterator[str]:
    """`tags` one by one: ``py2.py3-none-any`` is two (PEP 425, compressed tag sets). What is no tag is left out."""
    for tag in tags:
        parts = tag.lower().split("-")
        if len(parts) == 3:
            interpreters, abis, platforms = (part.split(".") for part in parts)
            yield from (f"{i}-{abi}-{platform}" for i in interpreters for abi in abis for platform in platforms)


def _tags_of(file: LockedFile) -> Iterable[str]:
    try:
        return map(str, parse_wheel_filename(file.filename)[3])
    except InvalidWheelFilename:
        return ()


@lru_cache(maxsize=8)
def _usable(target: Target) -> frozenset[str]:
    return frozenset(target_tags(target))


def _platforms(platform: Platform) -> Iterator[str]:
    """Platform tags, the best first."""
    if platform.os == "windows":
        yield _WINDOWS.get(platform.arch, f"win_{platform.arch}")
    elif platform.os == "macos":
        yield from mac_platforms(_MACOS, "arm64" if platform.arch == "aarch64" else platform.arch)
    else:
        yield f"linux_{platform.arch}"  # first, as pip and uv have it: somebody made it for such machines
        yield from _musl(platform) if platform.libc == "musl" else _glibc(platform)


def _glibc(platform: Platform) -> Iterator[str]:
    """From the target's glibc down to the oldest that wheels were ever made for (PEP 600)."""
    major, minor = _release(platform)
    if major != 2:
        return
    for older in range(minor, 4 if platform.arch in _OLD_ARCHITECTURES else 16, -1):
        yield f"manylinux_2_{older}_{platform.arch}"
        if older in _LEGACY:
            yield f"{_LEGACY[older]}_{platform.arch}"


def _musl(platform: Platform) -> Iterator[str]:
    """PEP 656: every minor version up to the target's."""
    major, minor = _release(platform)
    yield from (f"musllinux_{major}_{older}_{platform.arch}" for older in range(minor, -1, -1))


def _release(platform: Platform) -> tuple[int, int]:
    release = Version(platform.libc_version or "0.0").release
    return release[0], release[1] if len(release) > 1 else 0
