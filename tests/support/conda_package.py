"""Conda packages and channels made by hand: both archive forms, `info/`, placeholders, `repodata.json`."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import os
import platform
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from likewise.model.zstd import ZstdCompressor

PLACEHOLDER = "/opt/testbed_build_prefix" + "_placehold" * 23
"""What stands in a package for the prefix that it is installed into; 255 characters, as conda-build has it."""

SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}.get(platform.machine(), "linux-64")
"""This machine's."""

TIMESTAMP = 1_700_000_000_000  # of packages and of the files in them, in milliseconds


@dataclass(frozen=True)
class Item:
    """A file or link of a package."""

    data: bytes = b""
    link: str = ""
    executable: bool = False

    @property
    def mode(self) -> str:
        """``text`` or ``binary`` where the data has the placeholder, else empty."""
        if PLACEHOLDER.encode() not in self.data:
            return ""
        return "binary" if b"\0" in self.data else "text"


@dataclass(frozen=True)
class Package:
    """What `info/index.json` says of a package, and its files by their paths in a prefix."""

    name: str
    version: str
    files: Mapping[str, Item | str | bytes] = field(default_factory=dict)
    build: str = "h0_0"
    number: int = 0
    subdir: str = SUBDIR
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: str = ""  # "python" or "generic"
    entry_points: tuple[str, ...] = ()  # of noarch Python
    timestamp: int = TIMESTAMP
    sha256: Mapping[str, str] = field(default_factory=dict)  # what paths.json claims, where it is not true

    @property
    def stem(self) -> str:
        """Name, version and build string, as archives and records are called."""
        return f"{self.name}-{self.version}-{self.build}"

    def items(self) -> dict[str, Item]:
        """Its files, in order."""
        return {path: _item(self.files[path]) for path in sorted(self.files)}

    def index(self) -> dict[str, Any]:
        """`info/index.json`."""
        system, _, arch = self.subdir.partition("-")
        known: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": self.number,
            "subdir": self.subdir,
            "platform": None if self.noarch else system,
            "arch": None if self.noarch else {"64": "x86_64"}.get(arch, arch),
            "depends": list(self.depends),
            "constrains": list(self.constrains),
            "timestamp": self.timestamp,
            "license": "Unknown",
        }
        return {**known, "noarch": self.noarch} if self.noarch else known


def _item(value: Item | str | bytes) -> Item:
    if isinstance(value, Item):
        return value
    return Item(value.encode() if isinstance(value, str) else value)


def script(text: str) -> Item:
    """A program with a placeholder for its prefix."""
    return Item(text.encode(), executable=True)


def tree_items(folder: Path, *, at: str = "", prefixes: Iterable[str] = ()) -> dict[str, Item]:
    """Everything beneath `folder` as files of a package beneath `at`; in texts `prefixes` become the placeholder."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in [*names, *(each for each in folders if os.path.islink(os.path.join(place, each)))]:
            path = Path(place, name)
            found[f"{at}{path.relative_to(folder)}"] = file_item(path, prefixes=prefixes)
    return found


def file_item(path: Path, *, prefixes: Iterable[str] = ()) -> Item:
    """The file or relative link at `path`."""
    if path.is_symlink():
        return Item(link=os.readlink(path))
    data = path.read_bytes()
    if b"\0" not in data:
        for prefix in prefixes:
            data = data.replace(prefix.encode(), PLACEHOLDER.encode())
    return Item(data, executable=bool(path.stat().st_mode & stat.S_IXUSR))


def _paths(package: Package, items: Mapping[str, Item]) -> dict[str, Any]:
    entries = []
    for path, item in items.items():
        data = _at_the_end(path, items).data
        entry: dict[str, Any] = {
            "_path": path,
            "path_type": "softlink" if item.link else "hardlink",
            "sha256": package.sha256.get(path, hashlib.sha256(data).hexdigest()),
            "size_in_bytes": len(data),
        }
        if item.mode:
            entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": item.mode}
        entries.append(entry)
    return {"paths": entries, "paths_version": 1}


def _at_the_end(path: str, items: Mapping[str, Item]) -> Item:
    """What `path` is when links are followed; an empty file where they lead out of the package."""
    for _ in range(10):
        item = items.get(path, Item())
        if not item.link:
            return item
        path = os.path.normpath(os.path.join(os.path.dirname(path), item.link))
    return Item()


def _info(package: Package, items: Mapping[str, Item]) -> dict[str, Item]:
    info: dict[str, Item] = {
        "info/index.json": _json(package.index()),
        "info/paths.json": _json(_paths(package, items)),
        "info/files": _item("".join(f"{path}\n" for path in items)),
        "info/about.json": _json({"summary": f"{package.name} of the testbed"}),
        "info/has_prefix": _item(
            "".join(f'"{PLACEHOLDER}" {item.mode} "{path}"\n' for path, item in items.items() if item.mode)
        ),
    }
    if package.noarch == "python":
        noarch = {"type": "python", "entry_points": list(package.entry_points)}
        info["info/link.json"] = _json({"noarch": noarch, "package_metadata_version": 1})
    return info


def _json(value: object) -> Item:
    return _item(json.dumps(value, indent=1))


def _tar(items: Mapping[str, Item], timestamp: int) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, item in items.items():
            member = tarfile.TarInfo(path)
            member.mtime = timestamp // 1000
            member.mode = 0o755 if item.executable else 0o644
            if item.link:
                member.type, member.linkname = tarfile.SYMTYPE, item.link
            member.size = len(item.data)
            archive.addfile(member, io.BytesIO(item.data))
    return raw.getvalue()


def write_package(package: Package, folder: Path, *, form: str = ".conda") -> Path:
    """The package as an archive ``.conda`` or ``.tar.bz2`` in `folder`."""
    items = package.items()
    info = _info(package, items)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{package.stem}{form}"
    if form == ".tar.bz2":
        target.write_bytes(bz2.compress(_tar({**info, **items}, package.timestamp), 1))
        return target
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        for part, content in (("pkg", items), ("info", info)):
            packed = ZstdCompressor(level=1).compress(_tar(content, package.timestamp), mode=ZstdCompressor.FLUSH_FRAME)
            archive.writestr(f"{part}-{package.stem}.tar.zst", packed)
    return target


def write_channel(root: Path, packages: Iterable[Package], *, forms: Mapping[str, str] | None = None) -> Path:
    """A channel with `packages`: archives and `repodata.json`, with `noarch` and this machine's subdir in any case.

    Parameters
    ----------
    forms : mapping, optional
        The form of the archive of a package, by its name; by default ``.conda``.
    """

    def write(package: Package) -> tuple[Package, Path]:
        form = (forms or {}).get(package.name, ".conda")
        return package, write_package(package, root / package.subdir, form=form)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = list(pool.map(write, packages))
    for subdir in sorted({"noarch", SUBDIR, *(package.subdir for package, _ in written)}):
        offered = [(package, archive) for package, archive in written if package.subdir == subdir]
        (root / subdir).mkdir(parents=True, exist_ok=True)
        (root / subdir / "repodata.json").write_text(json.dumps(_repodata(subdir, offered)))
    return root


def _repodata(subdir: str, offered: Iterable[tuple[Package, Path]]) -> dict[str, Any]:
    page: dict[str, Any] = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}, "repodata_version": 1}
    for package, archive in offered:
        data = archive.read_bytes()
        page["packages" if archive.suffix == ".bz2" else "packages.conda"][archive.name] = {
            **package.index(),
            "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        }
    return page
