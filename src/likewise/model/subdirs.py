"""Platforms as conda's subdirs: ``linux-64``, ``osx-arm64``. Pure."""

from __future__ import annotations

from likewise.model.target import Platform

NOARCH = "noarch"

_SYSTEMS = {"linux": "linux", "osx": "macos", "win": "windows"}
_NAMES = {system: name for name, system in _SYSTEMS.items()}
_ARCHES = {"64": "x86_64", "32": "i686", "arm64": "aarch64"}


def platform_of(subdir: str) -> Platform | None:
    """The platform of a subdir, None for ``noarch``, ``""`` and what is no subdir."""
    system, dash, arch = subdir.partition("-")
    if not (dash and arch and system in _SYSTEMS):
        return None
    return Platform(os=_SYSTEMS[system], arch=_ARCHES.get(arch, arch))


def without_subdir(channel: str) -> str:
    """A channel's name or URL without a subdir behind it: ``…/conda-forge/linux-64`` → ``…/conda-forge``."""
    place, _, last = channel.rstrip("/").rpartition("/")
    return place if place and (last == NOARCH or platform_of(last)) else channel


def subdir_of(platform: Platform) -> str:
    """The subdir that conda packages for `platform` are in."""
    arch = {"x86_64": "64", "i686": "32"}.get(platform.arch, platform.arch)
    if arch == "aarch64" and platform.os != "linux":
        arch = "arm64"
    return f"{_NAMES.get(platform.os, platform.os)}-{arch}"
