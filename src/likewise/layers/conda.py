"""The layer of a conda package, taken from the package's archive (``.conda`` or ``.tar.bz2``).

It is the very layer that a prefix has, into which the package was installed and where nothing of it was changed: see
`likewise.model.conda_identity` for the rules. Nothing of conda's is needed to read it.
"""

from __future__ import annotations

import contextlib
import email.parser
import hashlib
import io
import itertools
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, cast

import msgspec
from packaging.utils import canonicalize_name

from likewise.errors import LayerError
from likewise.model.conda import LAYER_PREFIX
from likewise.model.conda_identity import PYTHON, archive_path, belongs, entry_script
from likewise.model.digest import EMPTY, Digest, digest_bytes
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source, path_problem
from likewise.model.zstd import ZstdError, ZstdFile

OLD_FORM = ".tar.bz2"
"""How the names of old archives end; all others are ``.conda``."""

MOST_SAID = 64 << 20
"""Bytes that each file may have in which a package says something of itself."""

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    tarfile.TarError,
    ZstdError,
    msgspec.MsgspecError,
    EOFError,
    OSError,
    ImportError,  # not every Python has bz2
    ValueError,
    RuntimeError,  # an encrypted zip file, a compression that nobody knows
)
_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
"""What packages of the first years name, whose list of such files says nothing else (conda documentation)."""

_CHUNK = 1 << 20


class _Index(msgspec.Struct):
    name: str
    version: str
    noarch: str | bool | None = None


class _Path(msgspec.Struct):
    path: str = msgspec.field(name="_path")
    prefix_placeholder: str | None = None
    file_mode: str | None = None


class _Paths(msgspec.Struct):
    paths: list[_Path]


class _Noarch(msgspec.Struct):
    entry_points: list[str] = []


class _Link(msgspec.Struct):
    noarch: _Noarch | None = None


class _Info(msgspec.Struct):
    """What an archive says of itself."""

    index: _Index
    listed: frozenset[str] | None  # paths in the archive of all that is installed, where it says so
    placeholders: dict[str, tuple[str, bool]]  # path in the archive -> placeholder, and whether the file is binary
    entry_points: list[str]


class _Member(msgspec.Struct, frozen=True):
    """A file or link of an archive; `path` is where its content was put."""

    path: str = ""
    digest: Digest = EMPTY
    size: int = 0
    executable: bool = False
    link: str = ""


def layer_of_archive(archive: Path, into: Path | None = None, *, most: int | None = None) -> LayerSource:
    """The layer of a conda package.

    Parameters
    ----------
    archive : Path
        A ``.conda`` or ``.tar.bz2`` file; its name says which.
    into : Path, optional
        Folder for the contents of the files, made when missing. Without it the layer can be compared and not be packed.
    most : int, optional
        Bytes that it may unpack to, where that is known. Default: no limit.

    Raises
    ------
    LayerError
        When it is no conda package, is damaged, unpacks to more, or has files that may not be shipped.
    """
    try:
        with contextlib.ExitStack() as stack:
            if into is None:
                into = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="likewise-conda-")))
            into.mkdir(parents=True, exist_ok=True)
            said, members = _unpack(archive, into, most)
            info = _info(said, archive)
            return _layer(info, list(_files(info, members, archive)), archive)
    except LayerError:
        raise
    except _BROKEN as error:
        raise LayerError(
            f"The conda package can't be read ({error}).", where=str(archive), todo="Download it again."
        ) from error


def _layer(info: _Info, files: list[SourceFile], archive: Path) -> LayerSource:
    index = info.index
    paths = {file.entry.path for file in files}
    kept = [file for file in files if belongs(file.entry.path, paths.__contains__)]
    by_path = {file.entry.path: file for file in files}
    metadata = sorted(path for path in by_path if _is_metadata(path))
    if index.name == PYTHON:
        return layer_source(LayerKind.INTERPRETER, "cpython", index.version, kept)
    kind, name, version = LayerKind.CONDA, LAYER_PREFIX + index.name, index.version
    if metadata:
        said = email.parser.HeaderParser().parsestr(_text(by_path[metadata[0]]))
        if not said["Name"] or not said["Version"]:
            raise LayerError(f"{metadata[0]} has no name and version.", where=str(archive))
        kind, name, version = LayerKind.DISTRIBUTION, canonicalize_name(said["Name"]), said["Version"]
    return layer_source(kind, name, version, [*kept, *_scripts(info)])


def _is_metadata(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    own = folder.startswith("purelib/") and folder.count("/") == 1 and folder.endswith((".dist-info", ".egg-info"))
    return (own and name in ("METADATA", "PKG-INFO")) or (path.endswith(".egg-info") and path.count("/") == 1)


def _text(file: SourceFile) -> str:
    return Path(file.path).read_text("utf-8", "replace")


def _scripts(info: _Info) -> Iterator[SourceFile]:
    """Those of the entry points in ``link.json``, which installers write."""
    for point in info.entry_points:
        name, _, what = (part.strip() for part in point.partition("="))
        module, _, attribute = (part.strip() for part in what.partition(":"))
        data = entry_script(module, attribute)
        entry = FileEntry(path=f"scripts/{name}", sha256=digest_bytes(data), size=len(data), executable=True)
        yield SourceFile(entry=entry, data=data)


def _files(info: _Info, members: Mapping[str, _Member], archive: Path) -> Iterator[SourceFile]:
    noarch = info.index.noarch == "python"
    for name, member in members.items():
        if info.listed is not None and name not in info.listed:
            continue
        path = archive_path(name, noarch=noarch)
        if path_problem(path):
            raise LayerError(f"{name!r} {path_problem(path)}.", where=str(archive))
        placeholder, binary = info.placeholders.get(name, ("", False))
        entry = FileEntry(
            path=path,
            sha256=member.digest,
            size=member.size,
            executable=member.executable,
            link=member.link,
            placeholder="" if member.link else placeholder,
            binary=binary and not member.link,
        )
        yield SourceFile(entry=entry, path=member.path)


def _unpack(archive: Path, into: Path, most: int | None) -> tuple[dict[str, bytes], dict[str, _Member]]:
    """What a package says of itself, by name in ``info/``, and its files by path, their contents numbered in `into`."""
    said: dict[str, bytes] = {}
    members: dict[str, _Member] = {}
    places = (into / str(number) for number in itertools.count())
    for tar in _tars(archive, most):
        for item in tar:
            name = item.name.removeprefix("./")
            if name.startswith("info/"):
                if item.isfile() and name.count("/") == 1:
                    said[name[5:]] = _small(tar, item, archive)
            elif item.issym():
                members[name] = _Member(link=item.linkname)
            elif item.islnk() and item.linkname.removeprefix("./") in members:
                members[name] = _twin(members[item.linkname.removeprefix("./")], next(places))
            elif item.isfile():
                members[name] = _content(tar, item, next(places))
            elif not item.isdir():
                raise LayerError(f"{name!r} is neither a file nor a link.", where=str(archive))
    return said, members


def _small(tar: tarfile.TarFile, item: tarfile.TarInfo, archive: Path) -> bytes:
    if item.size > MOST_SAID:
        raise LayerError(f"{item.name} has {item.size} bytes, and {MOST_SAID} at most are read.", where=str(archive))
    with _opened(tar, item) as stream:
        return stream.read()


def _content(tar: tarfile.TarFile, item: tarfile.TarInfo, to: Path) -> _Member:
    hashed, size = hashlib.sha256(), 0
    with _opened(tar, item) as stream, to.open("wb") as out:
        while chunk := stream.read(_CHUNK):
            hashed.update(chunk)
            size += len(chunk)
            out.write(chunk)
    return _Member(str(to), Digest(hashed.hexdigest()), size, executable=item.mode & 0o111 != 0)


def _twin(member: _Member, to: Path) -> _Member:
    """Another name of a file or link that is there."""
    if member.link:
        return member
    try:
        os.link(member.path, to)
    except OSError:  # not every file system has links
        shutil.copyfile(member.path, to)
    return msgspec.structs.replace(member, path=str(to))


def _opened(tar: tarfile.TarFile, item: tarfile.TarInfo) -> IO[bytes]:
    return cast("IO[bytes]", tar.extractfile(item))  # None is for what has no content


def _info(said: Mapping[str, bytes], archive: Path) -> _Info:
    if "index.json" not in said:
        raise LayerError("This is no conda package: it has no info/index.json.", where=str(archive))
    link = msgspec.json.decode(said.get("link.json", b"{}"), type=_Link)
    listed = msgspec.json.decode(said["paths.json"], type=_Paths).paths if "paths.json" in said else None
    return _Info(
        index=msgspec.json.decode(said["index.json"], type=_Index),
        listed=None if listed is None else frozenset(one.path for one in listed),
        placeholders=_old_placeholders(said) if listed is None else _placeholders(listed),
        entry_points=link.noarch.entry_points if link.noarch else [],
    )


def _placeholders(listed: Iterable[_Path]) -> dict[str, tuple[str, bool]]:
    return {one.path: (one.prefix_placeholder, one.file_mode == "binary") for one in listed if one.prefix_placeholder}


def _old_placeholders(said: Mapping[str, bytes]) -> dict[str, tuple[str, bool]]:
    """The same of packages without ``paths.json``."""
    found: dict[str, tuple[str, bool]] = {}
    for line in said.get("has_prefix", b"").decode("utf-8").splitlines():
        words = shlex.split(line)
        if len(words) == 3:
            found[words[2]] = (words[0], words[1] == "binary")
        elif words:
            found[words[0]] = (_OLD_PLACEHOLDER, False)
    return found


def _tars(archive: Path, most: int | None) -> Iterator[tarfile.TarFile]:
    """The tar files of a package, one after the other: what it says of itself and its files are two; old ones have one.

    Each can be read once, and no more than `most` bytes of it.
    """
    if archive.name.endswith(OLD_FORM):
        import bz2

        with bz2.BZ2File(archive) as old, _tar(old, most) as tar:
            yield tar
        return
    with zipfile.ZipFile(archive) as parts:
        for part in ("info", "pkg"):
            names = [name for name in parts.namelist() if name.startswith(f"{part}-") and name.endswith(".tar.zst")]
            if len(names) != 1:
                raise LayerError(f"This is no conda package: it has {len(names)} {part}-….tar.zst.", where=str(archive))
            with parts.open(names[0]) as packed, ZstdFile(packed) as plain, _tar(plain, most) as tar:
                yield tar


def _tar(stream: io.BufferedIOBase, most: int | None) -> tarfile.TarFile:
    bounded = _Bounded(stream, sys.maxsize if most is None else most)
    return tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|")


class _Bounded:
    """A stream of which no more than so many bytes are read, whatever it unpacks to."""

    def __init__(self, stream: io.BufferedIOBase, most: int) -> None:
        self._stream, self._most, self._read = stream, most, 0

    def read(self, size: int) -> bytes:
        """The next bytes; LayerError when they are too many."""
        try:
            data = self._stream.read(size)
        except OSError as error:
            if error.errno is None:  # no disk's fault: bz2 says so of damaged data
                raise ValueError(str(error)) from None
            raise
        self._read += len(data)
        if self._read > self._most:
            raise LayerError(f"The conda package unpacks to more than {self._most:,} bytes.")
        return data
