"""A layer taken from a wheel: from the bytes in the zip file, whatever the wheel's own `RECORD` says of them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from likewise.errors import LayerError
from likewise.model.digest import EMPTY, Digest, digest_bytes
from likewise.model.identity import entry_points, is_content, script_from_wheel, wheel_path
from likewise.model.layer import (
    FileEntry,
    LayerKind,
    LayerSource,
    SourceFile,
    check_entries,
    layer_source,
    path_problem,
)

CHUNK = 1 << 20
_REDO = "Build or download it again."


class _Member(NamedTuple):
    info: zipfile.ZipInfo
    path: str  # in the layer
    script: bool  # of the scripts scheme


class _Names(NamedTuple):
    name: str  # normalized, PEP 503
    version: str
    dist_info: str
    data: str


def wheel_entries(wheel: Path) -> tuple[FileEntry, ...]:
    """The files of a wheel as they are in its layer, sorted by path; equal to those of the installed distribution.

    Raises
    ------
    LayerError
        When `wheel` is not a wheel, or has members that may not be shipped.
    """
    with _opened(wheel) as archive:
        names, members = _read_directory(archive, wheel)
        files = [SourceFile(entry=_entry(archive, member)) for member in members]
    source = layer_source(LayerKind.DISTRIBUTION, names.name, names.version, files)
    return tuple(file.entry for file in source.files)


def wheel_source(wheel: Path, *, unpack_to: Path) -> LayerSource:
    """The layer of a wheel, its files unpacked so that they can be packed from there.

    Parameters
    ----------
    wheel : Path
        A ``.whl`` file.
    unpack_to : Path
        An empty directory; made when missing. Files lie in it by their layer paths.

    Raises
    ------
    LayerError
        As for `wheel_entries`, and when `unpack_to` can't be written. Paths are checked before the first file is.
    """
    with _opened(wheel) as archive:
        names, members = _read_directory(archive, wheel)
        try:
            files = [_unpack(archive, member, unpack_to) for member in members]
        except OSError as error:
            raise LayerError(
                f"The wheel can't be unpacked ({error.strerror or error}).", where=str(error.filename or unpack_to),
                todo="See that there is space, and that the directory is empty and writable.",
            ) from error  # fmt: skip
    return layer_source(LayerKind.DISTRIBUTION, names.name, names.version, files)


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (OSError, zipfile.BadZipFile) as error:
        raise LayerError(f"The wheel can't be read ({error}).", where=str(wheel), todo=_REDO) from error


def _read_directory(archive: zipfile.ZipFile, wheel: Path) -> tuple[_Names, list[_Member]]:
    """The members that belong to the layer, each path checked."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    names = _names(archive, infos, wheel)
    scripts = _scripts(archive, names)
    members: dict[str, _Member] = {}
    problems: dict[str, str] = {}
    for info in infos:
        path = wheel_path(info.filename, data_folder=names.data, headers=names.name)
        if path is None:
            continue
        reason = path_problem(path) or ("is there twice" if path in members else "")
        if reason:
            problems[info.filename] = reason
        members[path] = _Member(info, path, info.filename.startswith(f"{names.data}/scripts/"))
    if problems:
        listed = "; ".join(f"{name!r} {reason}" for name, reason in list(problems.items())[:5])
        raise LayerError(
            f"The wheel has members that may not be shipped: {listed}.",
            where=str(wheel),
            todo="Don't trust this wheel; ask whoever made it.",
            details={"paths": problems},
        )
    check_entries([FileEntry(path=path, sha256=EMPTY, size=0) for path in members], where=str(wheel))
    return names, [m for m in members.values() if is_content(m.path, scripts, members.__contains__)]


def _names(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], wheel: Path) -> _Names:
    folders = {info.filename.partition("/")[0] for info in infos if "/" in info.filename}
    found = [folder for folder in folders if folder.endswith(".dist-info")]
    if len(found) != 1:
        raise LayerError(f"Not a wheel: it has {len(found)} dist-info directories.", where=str(wheel), todo=_REDO)
    metadata = _metadata(archive, found[0])
    name = re.sub(r"[-_.]+", "-", metadata.get("name", "")).lower()
    if not name or "version" not in metadata:
        raise LayerError("Not a wheel: its METADATA has no name and version.", where=str(wheel), todo=_REDO)
    stem = found[0].removesuffix(".dist-info")
    return _Names(name=name, version=metadata["version"], dist_info=found[0], data=f"{stem}.data")


def _metadata(archive: zipfile.ZipFile, dist_info: str) -> dict[str, str]:
    """The header fields of METADATA, lower-case; of a repeated field the last."""
    try:
        text = archive.read(f"{dist_info}/METADATA").decode("utf-8", "surrogateescape")
    except KeyError:
        return {}
    header = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    lines = (line.partition(":") for line in header.splitlines() if not line.startswith((" ", "\t")))
    return {field.strip().lower(): value.strip() for field, _, value in lines}


def _scripts(archive: zipfile.ZipFile, names: _Names) -> frozenset[str]:
    try:
        return entry_points(archive.read(f"{names.dist_info}/entry_points.txt").decode("utf-8", "surrogateescape"))
    except KeyError:
        return frozenset()


def _entry(archive: zipfile.ZipFile, member: _Member) -> FileEntry:
    data = _script(archive, member)
    if data is not None:
        return _script_entry(member, data)
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(archive, member):
        digest.update(chunk)
        size += len(chunk)
    return _plain_entry(member, Digest(digest.hexdigest()), size)


def _unpack(archive: zipfile.ZipFile, member: _Member, root: Path) -> SourceFile:
    target = root / member.path
    target.parent.mkdir(parents=True, exist_ok=True)
    data = _script(archive, member)
    digest, size = hashlib.sha256(), 0
    with open(target, "xb") as out:
        for chunk in [data] if data is not None else _chunks(archive, member):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    entry = _script_entry(member, data) if data is not None else _plain_entry(member, Digest(digest.hexdigest()), size)
    if entry.executable:
        os.chmod(target, 0o755)
    return SourceFile(entry=entry, path=str(target))


def _script(archive: zipfile.ZipFile, member: _Member) -> bytes | None:
    return script_from_wheel(archive.read(member.info)) if member.script else None


def _script_entry(member: _Member, data: bytes) -> FileEntry:
    return FileEntry(path=member.path, sha256=digest_bytes(data), size=len(data), executable=True)


def _plain_entry(member: _Member, digest: Digest, size: int) -> FileEntry:
    """As pip does, the executable bit is taken from regular files of whatever system made the wheel."""
    mode = member.info.external_attr >> 16
    return FileEntry(path=member.path, sha256=digest, size=size, executable=stat.S_ISREG(mode) and bool(mode & 0o111))


def _chunks(archive: zipfile.ZipFile, member: _Member) -> Iterator[bytes]:
    try:
        with archive.open(member.info) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except zipfile.BadZipFile as error:
        raise LayerError(f"The wheel is damaged ({error}).", where=str(archive.filename), todo=_REDO) from error
