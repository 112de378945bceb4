"""A layer taken from a wheel: from the bytes in the zip file, whatever the wheel's own `RECORD` says of them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

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
MOST_TEXT = 32 << 20
"""Bytes that a wheel's METADATA, entry_points.txt or RECORD may have."""

_REDO = "Build or download it again."
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What reading a member may raise; NotImplementedError, which is a RuntimeError, for a compression nobody knows."""


class Member(NamedTuple):
    """A file of a wheel that belongs to its layer."""

    info: zipfile.ZipInfo
    path: str  # in the layer
    script: bool  # of the scripts scheme


class Names(NamedTuple):
    """What a wheel calls itself."""

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
    with opened(wheel, str(wheel)) as archive:
        names, members = read_directory(archive, str(wheel))
        files = [SourceFile(entry=_entry(archive, member)) for member in members]
    source = layer_source(LayerKind.DISTRIBUTION, names.name, names.version, files)
    return tuple(file.entry for file in source.files)


def wheel_source(wheel: Path, *, unpack_to: Path, most: int | None = None) -> LayerSource:
    """The layer of a wheel, its files unpacked so that they can be packed from there.

    Parameters
    ----------
    wheel : Path
        A ``.whl`` file.
    unpack_to : Path
        An empty directory; made when missing. Files lie in it by their layer paths.
    most : int, optional
        Bytes that its files may have in all, where that is known. Default: no limit.

    Raises
    ------
    LayerError
        As for `wheel_entries`, and when `unpack_to` can't be written. Paths and sizes are checked before the first file
        is; no file gets more bytes than the wheel's directory says.
    """
    with opened(wheel, str(wheel)) as archive, telling_damage(str(wheel)):
        try:
            names, members = read_directory(archive, str(wheel))
            _check_size(members, most, wheel)
            files = [_unpack(archive, member, unpack_to) for member in members]
        except OSError as error:
            raise LayerError(
                f"The wheel can't be unpacked ({error.strerror or error}).", where=str(error.filename or unpack_to),
                todo="See that there is space, and that the directory is empty and writable.",
            ) from error  # fmt: skip
    return layer_source(LayerKind.DISTRIBUTION, names.name, names.version, files)


def _check_size(members: Iterable[Member], most: int | None, wheel: Path) -> None:
    size = sum(member.info.file_size for member in members)
    if most is not None and size > most:
        raise LayerError(
            f"The wheel would unpack to {size} bytes, and {most} are expected.",
            where=str(wheel),
            todo="Don't trust this wheel; ask whoever offers it.",
        )


def opened(wheel: Path | BinaryIO, where: str) -> zipfile.ZipFile:
    """A wheel for reading; `where` is its name in messages.

    Raises
    ------
    LayerError
        When it is no zip file.
    """
    try:
        return zipfile.ZipFile(wheel)
    except (OSError, zipfile.BadZipFile) as error:
        raise LayerError(f"The wheel can't be read ({error}).", where=where, todo=_REDO) from error


@contextmanager
def telling_damage(where: str) -> Iterator[None]:
    """What reading a damaged wheel raises becomes a LayerError about `where`."""
    try:
        yield
    except _BROKEN as error:
        raise LayerError(f"The wheel is damaged ({error}).", where=where, todo=_REDO) from error


def read_directory(archive: zipfile.ZipFile, where: str) -> tuple[Names, list[Member]]:
    """What a wheel calls itself, and the members that belong to its layer, each path checked.

    Raises
    ------
    LayerError
        When it is no wheel, or has members that may not be shipped.
    """
    infos = [info for info in archive.infolist() if not info.is_dir()]
    names = _names(archive, infos, where)
    scripts = _scripts(archive, names, where)
    members: dict[str, Member] = {}
    problems: dict[str, str] = {}
    for info in infos:
        path = wheel_path(info.filename, data_folder=names.data, headers=names.name)
        if path is None:
            continue
        reason = path_problem(path) or ("is there twice" if path in members else "")
        if reason:
            problems[info.filename] = reason
        members[path] = Member(info, path, info.filename.startswith(f"{names.data}/scripts/"))
    if problems:
        listed = "; ".join(f"{name!r} {reason}" for name, reason in list(problems.items())[:5])
        raise LayerError(
            f"The wheel has members that may not be shipped: {listed}.",
            where=where,
            todo="Don't trust this wheel; ask whoever made it.",
            details={"paths": problems},
        )
    check_entries([FileEntry(path=path, sha256=EMPTY, size=0) for path in members], where=where)
    return names, [m for m in members.values() if is_content(m.path, scripts, members.__contains__)]


def _names(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], where: str) -> Names:
    folders = {info.filename.partition("/")[0] for info in infos if "/" in info.filename}
    found = [folder for folder in folders if folder.endswith(".dist-info")]
    if len(found) != 1:
        raise LayerError(f"Not a wheel: it has {len(found)} dist-info directories.", where=where, todo=_REDO)
    metadata = _metadata(archive, found[0], where)
    name = re.sub(r"[-_.]+", "-", metadata.get("name", "")).lower()
    if not name or "version" not in metadata:
        raise LayerError("Not a wheel: its METADATA has no name and version.", where=where, todo=_REDO)
    stem = found[0].removesuffix(".dist-info")
    return Names(name=name, version=metadata["version"], dist_info=found[0], data=f"{stem}.data")


def read_text(archive: zipfile.ZipFile, name: str, where: str) -> str:
    """The text of the member `name` of a wheel, "" when it has none.

    Raises
    ------
    LayerError
        When it has more than `MOST_TEXT` bytes.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        return ""
    if info.file_size > MOST_TEXT:
        raise LayerError(
            f"The wheel's {name} has {info.file_size} bytes, and more than {MOST_TEXT} are not read.",
            where=where,
            todo="Don't trust this wheel; ask whoever made it.",
        )
    return archive.read(info).decode("utf-8", "surrogateescape")


def _metadata(archive: zipfile.ZipFile, dist_info: str, where: str) -> dict[str, str]:
    """The header fields of METADATA, lower-case; of a repeated field the last."""
    text = read_text(archive, f"{dist_info}/METADATA", where)
    header = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    lines = (line.partition(":") for line in header.splitlines() if not line.startswith((" ", "\t")))
    return {field.strip().lower(): value.strip() for field, _, value in lines}


def _scripts(archive: zipfile.ZipFile, names: Names, where: str) -> frozenset[str]:
    return entry_points(read_text(archive, f"{names.dist_info}/entry_points.txt", where))


def _entry(archive: zipfile.ZipFile, member: Member) -> FileEntry:
    data = _script(archive, member)
    if data is not None:
        return script_entry(member, data)
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(archive, member):
        digest.update(chunk)
        size += len(chunk)
    return plain_entry(member, Digest(digest.hexdigest()), size)


def _unpack(archive: zipfile.ZipFile, member: Member, root: Path) -> SourceFile:
    target = root / member.path
    target.parent.mkdir(parents=True, exist_ok=True)
    data = _script(archive, member)
    digest, size = hashlib.sha256(), 0
    with open(target, "xb") as out:
        for chunk in [data] if data is not None else _chunks(archive, member):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    entry = script_entry(member, data) if data is not None else plain_entry(member, Digest(digest.hexdigest()), size)
    if entry.executable:
        os.chmod(target, 0o755)
    return SourceFile(entry=entry, path=str(target))


def _script(archive: zipfile.ZipFile, member: Member) -> bytes | None:
    return script_from_wheel(archive.read(member.info)) if member.script else None


def script_entry(member: Member, data: bytes) -> FileEntry:
    """A Python script of a wheel, with `data` as `script_from_wheel` has it."""
    return FileEntry(path=member.path, sha256=digest_bytes(data), size=len(data), executable=True)


def plain_entry(member: Member, digest: Digest, size: int) -> FileEntry:
    """As pip does, the executable bit is taken from regular files of whatever system made the wheel."""
    mode = member.info.external_attr >> 16
    return FileEntry(path=member.path, sha256=digest, size=size, executable=stat.S_ISREG(mode) and bool(mode & 0o111))


def _chunks(archive: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    try:
        with archive.open(member.info) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except zipfile.BadZipFile as error:
        raise LayerError(f"The wheel is damaged ({error}).", where=str(archive.filename), todo=_REDO) from error
