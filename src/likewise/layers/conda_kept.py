"""Layers made from the archives of conda packages: each is fetched once and kept, unpacked, by the archive's sha256.

A package is built for one platform, so its layer says nothing of the machine that unpacked it. Nothing of it is run.
Its files have numbers for names where they are kept: some packages have names that differ in case only, which not every
client's file system can tell apart.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from likewise.errors import LayerError, LikewiseError
from likewise.layers.conda import layer_of_archive
from likewise.layers.fetched import TOGETHER, Fetch, Progress
from likewise.model.digest import is_digest
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.plan import LockedFile

KEEP_SECONDS = 7 * 86400
"""Packages that nobody asked for in this time are removed."""

_FOLDER = "conda-layers-1"
"""Where they are kept; the number is that of the rules by which layers are made."""

_MAKING = "making-"
_ABANDONED = 24 * 3600.0  # seconds


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a layer: its entries, and what each one's file is called, "" for a link."""

    kind: LayerKind
    name: str
    version: str
    files: tuple[tuple[FileEntry, str], ...]


def package_layers(
    files: Iterable[LockedFile], *, fetch: Fetch, work: Path, progress: Progress | None = None, jobs: int = TOGETHER
) -> dict[str, LayerSource]:
    """The layers of these packages, by the archive's sha256.

    Parameters
    ----------
    files : iterable of LockedFile
    fetch : callable
        Brings those that are not kept from former calls.
    work : Path
        They are kept in a folder beneath it, for a week after their last use.
    progress : callable, optional
    jobs : int
        Packages at a time.

    Raises
    ------
    LayerError
        When a file is no conda package, has no sha256 to be checked by, or can't be kept; when several files can't be
        had, all are named in one error.
    LikewiseError
        What `fetch` raises, for a single file.
    """
    wanted = {file.sha256: file for file in files}
    root = work / _FOLDER

    def one(file: LockedFile) -> LayerSource | LikewiseError:
        try:
            layer = _load(root / _key(file))
            fresh = layer is None
            layer = layer or _make(file, fetch, root)
        except LikewiseError as error:
            return error
        if progress is not None:
            progress(file, fresh)
        return layer

    with ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="likewise-conda") as pool:
        try:
            found = dict(zip(wanted, pool.map(one, wanted.values()), strict=True))
        except BaseException:  # Ctrl-C: no other one is begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _sweep(root)
    failures = {sha256: error for sha256, error in found.items() if isinstance(error, LikewiseError)}
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        listed = "".join(f"\n  {error}" for error in failures.values())
        raise LayerError(
            f"{len(failures)} conda packages can't be had:{listed}",
            todo="See each one's own advice.",
            details={"failures": {wanted[sha256].filename: str(error) for sha256, error in failures.items()}},
        )
    return {sha256: layer for sha256, layer in found.items() if isinstance(layer, LayerSource)}


def _key(file: LockedFile) -> str:
    if not is_digest(file.sha256):
        raise LayerError(
            f"{file.filename} has no sha256 by which it could be checked.",
            where=file.url,
            todo="Use a channel whose repodata.json has one, as conda index writes it.",
        )
    return file.sha256


def _load(folder: Path) -> LayerSource | None:
    """The layer that is kept there, None when there is none or any of its files vanished."""
    try:
        record = msgspec.msgpack.decode((folder / "record").read_bytes(), type=_Record)
        source = _source(record, folder)
        whole = all(os.lstat(f.path).st_size == f.entry.size for f in source.files if not f.entry.link)
        os.utime(folder / "record")
    except (OSError, msgspec.MsgspecError):
        return None
    return source if whole else None


def _source(record: _Record, folder: Path) -> LayerSource:
    files = [SourceFile(entry=entry, path=str(folder / place) if place else "") for entry, place in record.files]
    return layer_source(record.kind, record.name, record.version, files)


def _make(file: LockedFile, fetch: Fetch, root: Path) -> LayerSource:
    """Fetch and unpack a package."""
    try:
        with _folder(root) as folder:
            (folder / "archive").mkdir()
            archive = fetch(file, folder / "archive")
            try:
                layer = layer_of_archive(archive, folder / "files")
            except LayerError as error:  # the place is one that nobody knows
                raise LayerError(f"{file.filename}: {error.what}", where=file.url, todo=error.todo) from error
            return _keep(layer, folder / "files", root / file.sha256)
    except OSError as error:
        raise LayerError(
            f"{file.filename} can't be kept ({error.strerror or error}).",
            where=str(error.filename or root),
            todo="See that there is space, and that the folder is writable.",
        ) from error


def _keep(layer: LayerSource, staged: Path, place: Path) -> LayerSource:
    """Move the folder `staged`, which has its files and perhaps others, to `place`; the layer as it lies there."""
    files = tuple((file.entry, _place(file, staged, number)) for number, file in enumerate(layer.files))
    needed = {name for _, name in files}
    for other in list(os.scandir(staged)):
        if other.name not in needed:
            os.unlink(other.path)
    record = _Record(kind=layer.kind, name=layer.name, version=layer.version, files=files)
    (staged / "record").write_bytes(msgspec.msgpack.encode(record))
    with suppress(OSError):
        os.rename(staged, place)
        return _source(record, place)
    if (known := _load(place)) is not None:
        return known  # another process was quicker
    with suppress(FileNotFoundError):  # damaged: out of the way
        os.rename(place, staged.with_name("replaced"))
    os.rename(staged, place)
    return _source(record, place)


def _place(file: SourceFile, staged: Path, number: int) -> str:
    """What the file is called in `staged`; content that was made in memory is written there."""
    if file.data is not None:
        name = f"made-{number}"
        (staged / name).write_bytes(file.data)
        return name
    return "" if file.entry.link else Path(file.path).name


@contextmanager
def _folder(root: Path) -> Iterator[Path]:
    """A folder for one package."""
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_MAKING, dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove what was not used for `KEEP_SECONDS`, and what killed clients left behind."""
    with suppress(OSError):
        for place in list(root.iterdir()):
            with suppress(OSError):
                making = place.name.startswith(_MAKING)
                age = time.time() - (place if making else place / "record").stat().st_mtime
                if age > (_ABANDONED if making else KEEP_SECONDS):
                    shutil.rmtree(place, ignore_errors=True)
