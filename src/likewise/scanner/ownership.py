"""Which files a system package manager owns: its own lists, for distributions that have no `RECORD`."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from likewise.model.snapshot import Origin, OriginKind

DPKG_INFO = Path("/var/lib/dpkg/info")
METADATA = (".dist-info", ".egg-info")
SYSTEM_INSTALLERS = frozenset({"debian", "dpkg", "rpm", "apk", "pacman"})


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """What a package manager says about one distribution: its origin, and its files (absolute)."""

    origin: Origin
    files: tuple[str, ...]


def dpkg_owned(folders: Collection[str], info: Path = DPKG_INFO) -> dict[str, Owned]:
    """Those of the metadata folders that Debian packages own.

    Parameters
    ----------
    folders : collection of str
        Absolute paths of dist-info and egg-info. Only those in Debian's own ``dist-packages`` are looked up.
    info : Path
        Where dpkg keeps ``<package>.list``, the file list of each installed package.

    Returns
    -------
    dict of str to Owned
        By metadata folder, with the files in ``dist-packages`` and the Python scripts in ``bin``: what else the
        package has is for the system. Where it owns several metadata folders, its modules go to the first; the others
        own their metadata alone. Metadata folders that are not asked for belong to nobody.
    """
    wanted = {folder for folder in folders if os.path.basename(os.path.dirname(folder)) == "dist-packages"}
    found: dict[str, Owned] = {}
    if not wanted:
        return found
    for path in sorted(info.glob("*.list")):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if b"/dist-packages/" in data:
            package = path.name.removesuffix(".list").partition(":")[0]
            found.update(_package(package, data.decode("utf-8", "surrogateescape").splitlines(), wanted))
    return found


def _package(package: str, paths: list[str], wanted: Collection[str]) -> dict[str, Owned]:
    metadata: dict[str, list[str]] = {}
    modules: list[str] = []
    for path in paths:
        folder = next((part for part in (path, os.path.dirname(path)) if part.endswith(METADATA)), "")
        if folder:
            metadata.setdefault(folder, []).append(path)
        elif "/dist-packages/" in path or _is_python_script(path):
            modules.append(path)
    origin = Origin(kind=OriginKind.SYSTEM, path=package)
    found = {}
    for folder in (f for f in metadata if f in wanted):
        found[folder] = Owned(origin=origin, files=(*metadata[folder], *modules))
        modules = []
    return found


def _is_python_script(path: str) -> bool:
    if os.path.basename(os.path.dirname(path)) != "bin":
        return False
    try:
        with open(path, "rb") as file:
            first = file.readline(200)
    except OSError:
        return False
    return first.startswith(b"#!") and b"python" in first
