"""Layers made from the wheels that an index offers: each is fetched once and kept, unpacked, by the wheel's sha256.

A wheel is compiled and tagged for one platform, so its layer says nothing of the machine that unpacked it: a client of
any system makes layers for nodes of any other. Nothing of the wheel is run.

Where nodes fetch a wheel by themselves, the client only has to know its layer (`claim_layers`), not to have it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import msgspec
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from likewise.errors import LayerError, LikewiseError
from likewise.layers.built_wheels import KEEP_SECONDS, BuiltWheels, Record, unpack
from likewise.layers.claimed import claimed_source
from likewise.layers.metadata import without_credentials
from likewise.model.digest import Digest, is_digest
from likewise.model.layer import LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.plan import LockedFile

Fetch = Callable[[LockedFile, Path], Path]
"""Brings a file into a folder: its path there. Raises LikewiseError; its sha256 was checked."""

Progress = Callable[[LockedFile, bool], None]
"""Called from any thread with each file whose layer is there, and whether it had to be fetched."""

TOGETHER = 8
"""Files that are fetched at a time: what takes long is the network."""

Open = Callable[[LockedFile], BinaryIO]
"""Opens a file where it is, for reading parts of it. Raises LikewiseError when that can't be done."""

_CLAIMS = "claims-1"
"""Where claims are kept; the number is that of the rules by which they are made."""

_T = TypeVar("_T")

_FOLDER = "fetch-"
_ABANDONED = 24 * 3600.0  # seconds


class Fetched(NamedTuple):
    """What `fetch_layers` gives.

    Attributes
    ----------
    layers : dict of str to LayerSource
        By the wheel's sha256.
    fetched : int
        Wheels that had to be fetched now.
    size : int
        Their bytes.
    """

    layers: dict[str, LayerSource]
    fetched: int
    size: int


def fetch_layers(
    files: Iterable[LockedFile], *, fetch: Fetch, work: Path, progress: Progress | None = None, jobs: int = TOGETHER
) -> Fetched:
    """The layers of these wheels.

    Parameters
    ----------
    files : iterable of LockedFile
    fetch : callable
        Brings those that are not kept from former calls.
    work : Path
        They are kept in ``wheels`` beneath it, for a week after their last use.
    progress : callable, optional
    jobs : int
        Wheels at a time.

    Raises
    ------
    LayerError
        When a file is no wheel, is another than its name says, or can't be unpacked; when several files can't be had,
        all are named in one error, with each file's own in ``details["failures"]``.
    LikewiseError
        What `fetch` raises, for a single file.
    """
    wanted = {file.sha256: file for file in files}
    kept = BuiltWheels(work)
    fetched: list[int] = []

    def one(file: LockedFile) -> LayerSource:
        known = kept.load(_key(file))
        if known is None:
            layer, size = _fetch_one(file, fetch, kept, work)
            fetched.append(size)
        if progress is not None:
            progress(file, known is None)
        return layer if known is None else known[0]

    futures = _together(one, wanted, jobs)
    kept.sweep()
    return Fetched(_collect(futures, wanted), len(fetched), sum(fetched))


def _together(work: Callable[[LockedFile], _T], files: dict[str, LockedFile], jobs: int) -> dict[str, Future[_T]]:
    """`work` for each of `files`, done or failed, by sha256."""
    with ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="likewise-fetch") as pool:
        futures = {sha256: pool.submit(work, file) for sha256, file in files.items()}
        try:
            wait(futures.values())
        except BaseException:  # Ctrl-C: no other one is begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return futures


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the layer of a wheel that is not here. `files` have no content, but for a few."""

    name: str
    version: str
    files: tuple[SourceFile, ...]


class Claimed(NamedTuple):
    """What `claim_layers` gives.

    Attributes
    ----------
    layers : dict of str to LayerSource
        By the wheel's sha256: those that could be claimed.
    asked : int
        Wheels that an index had to be asked about.
    """

    layers: dict[str, LayerSource]
    asked: int


def kept_layers(files: Iterable[LockedFile], *, work: Path) -> dict[str, LayerSource]:
    """The layers of those of these wheels that are here from former calls of `fetch_layers`, by the wheel's sha256."""
    kept = BuiltWheels(work)
    found = {file.sha256: kept.load(Digest(file.sha256)) for file in files if is_digest(file.sha256)}
    return {sha256: known[0] for sha256, known in found.items() if known is not None}


def claim_layers(files: Iterable[LockedFile], *, open_file: Open, work: Path, jobs: int = TOGETHER) -> Claimed:
    """The layers of these wheels as the wheels claim them (`likewise.layers.claimed`), without their content.

    Not claimed is what does not say enough, what is no wheel or that of another distribution than its name says, what
    has a credential in its metadata, and what has a ``.pth`` file at its top: Python runs that when it starts, so it
    counts only when the whole wheel was checked.

    Parameters
    ----------
    files : iterable of LockedFile
    open_file : callable
        For those that are not known from former calls.
    work : Path
        What was claimed is kept in a folder beneath it, for a week after its last use.
    jobs : int
        Wheels at a time.
    """
    wanted = {file.sha256: file for file in files if is_digest(file.sha256)}
    folder = work / _CLAIMS
    asked: list[str] = []

    def one(file: LockedFile) -> LayerSource | None:
        layer = _load_claim(folder / file.sha256)
        if layer is None:
            asked.append(file.sha256)
            with suppress(LikewiseError):
                layer = _claim(file, open_file)
                _keep_claim(layer, folder / file.sha256)
        return layer if layer is not None and _is_harmless(layer) else None

    futures = _together(one, wanted, jobs)
    _sweep(folder)
    layers = {sha256: layer for sha256, future in futures.items() if (layer := future.result()) is not None}
    return Claimed(layers, len(asked))


def _claim(file: LockedFile, open_file: Open) -> LayerSource:
    name, version = _said(file)
    with open_file(file) as wheel:
        layer = claimed_source(wheel, where=file.filename)
    _check(layer, name, version, file)
    return layer


def _is_harmless(layer: LayerSource) -> bool:
    runs = any(file.entry.path.endswith(".pth") and file.entry.path.count("/") == 1 for file in layer.files)
    return not runs and without_credentials(layer)[0] is layer


def _load_claim(path: Path) -> LayerSource | None:
    try:
        claim = msgspec.msgpack.decode(path.read_bytes(), type=Claim)
        os.utime(path)
        return layer_source(LayerKind.DISTRIBUTION, claim.name, claim.version, claim.files)
    except (OSError, msgspec.MsgspecError, LikewiseError):
        return None


def _keep_claim(layer: LayerSource, path: Path) -> None:
    claim = Claim(name=layer.name, version=layer.version, files=tuple(layer.files))
    with suppress(OSError):  # then it is asked for again
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as out:
            out.write(msgspec.msgpack.encode(claim))
        os.replace(temporary, path)


def _sweep(folder: Path) -> None:
    with suppress(OSError):
        for path in list(folder.iterdir()):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > KEEP_SECONDS:
                    path.unlink()


def _key(file: LockedFile) -> Digest:
    if not is_digest(file.sha256):
        raise LayerError(
            f"{file.filename} has no sha256 by which it could be checked.",
            where=file.url,
            todo="Use an index that gives one (PEP 503, PEP 691).",
        )
    return Digest(file.sha256)


def _fetch_one(file: LockedFile, fetch: Fetch, kept: BuiltWheels, work: Path) -> tuple[LayerSource, int]:
    """Fetch and unpack a wheel; its layer, and the wheel's bytes."""
    name, version = _said(file)
    try:
        with _folder(work) as folder:
            (folder / "wheel").mkdir()
            wheel = fetch(file, folder / "wheel")
            size = wheel.stat().st_size
            layer = _unpacked(wheel, folder / "staged", file)
            _check(layer, name, version, file)
            (folder / "staged" / wheel.name).unlink()  # its files are there
            entries = tuple(each.entry for each in layer.files)
            record = Record(name=layer.name, version=layer.version, entries=entries)
            return kept.keep(Digest(file.sha256), folder / "staged", record), size
    except OSError as error:
        raise LayerError(
            f"{file.filename} can't be kept ({error.strerror or error}).",
            where=str(error.filename or work),
            todo="See that there is space, and that the folder is writable.",
        ) from error


def _unpacked(wheel: Path, staged: Path, file: LockedFile) -> LayerSource:
    try:
        return unpack(wheel, staged)
    except LayerError as error:  # the place is one that nobody knows
        raise LayerError(f"{file.filename}: {error.what}", where=file.url, todo=error.todo) from error


def _said(file: LockedFile) -> tuple[str, Version]:
    """Name and version in the file's name."""
    try:
        name, version, *_ = parse_wheel_filename(file.filename)
    except ValueError as error:  # InvalidWheelFilename is one
        raise LayerError(
            f"{file.filename} is no wheel, and only wheels are put on the nodes.",
            where=file.url,
            todo="Leave the distribution out with package_sync_ignore, or offer a wheel of it on an index of your own.",
        ) from error
    return name, version


def _check(layer: LayerSource, name: str, version: Version, file: LockedFile) -> None:
    """Refuse a wheel whose metadata is that of another distribution than its name promises."""
    try:
        same = canonicalize_name(layer.name) == name and Version(layer.version) == version
    except InvalidVersion:
        same = False
    if not same:
        raise LayerError(
            f"{file.filename} says of itself that it is {layer.name} {layer.version}.",
            where=file.url,
            todo="Don't trust this wheel; ask whoever offers it.",
        )


@contextmanager
def _folder(work: Path) -> Iterator[Path]:
    """A folder for one wheel; those that killed clients left behind long ago are removed on the way."""
    root = work / "fetching"
    root.mkdir(parents=True, exist_ok=True)
    for old in root.glob(_FOLDER + "*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _collect(futures: dict[str, Future[LayerSource]], files: dict[str, LockedFile]) -> dict[str, LayerSource]:
    """All layers, or all failures as one error."""
    failures = {sha256: error for sha256, future in futures.items() if (error := future.exception()) is not None}
    for error in failures.values():
        if len(failures) == 1 or not isinstance(error, LikewiseError):
            raise error
    if failures:
        listed = "".join(f"\n  {error}" for error in failures.values())
        raise LayerError(
            f"{len(failures)} wheels can't be had:{listed}",
            todo="See each one's own advice.",
            details={"failures": {files[sha256].filename: str(error) for sha256, error in failures.items()}},
        )
    return {sha256: future.result() for sha256, future in futures.items()}
