"""Content laid out in a folder that others read: a shared disk, a web server's root, an image, a volume.

Unlike a store of its own, such a folder has no leases and no expiry, and whoever reads it holds no lock. So everything
in it appears by a rename and is replaced, never changed; what a reader has opened stays what it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from likewise.errors import StoreError, UsageError
from likewise.model.bundle import BootstrapFile, Written

_KINDS = ("kits", "layers", "manifests")  # what pruning may remove
_TEMPORARY = ".likewise-"  # how the name of a file begins that is being written
_ABANDONED = 24 * 3600.0  # seconds after which a temporary file is nobody's any more


def write_folder(
    folder: Path, files: Mapping[str, BootstrapFile], *, last: Sequence[str] = (), shared: bool, prune: bool
) -> Written:
    """Make `folder` hold `files`.

    Parameters
    ----------
    folder : Path
    files : mapping of str to BootstrapFile
    last : sequence of str
        Names of the files that appear after all others, because they lead to them.
    shared : bool
        Whether everybody may read what is written (0755, 0644) or its owner alone (0700, 0600).
    prune : bool
        Whether to remove other kits, layers and manifests.

    Raises
    ------
    UsageError
        When everybody may write there, or it is no folder.
    StoreError
        When it can't be written.
    """
    check_folder(folder)
    folder = folder.expanduser().absolute()
    written: list[BootstrapFile] = []
    try:
        _open_folder(folder, shared)
        _sweep(folder)
        for name in [*(name for name in sorted(files) if name not in last), *last]:
            if _publish(files[name], folder, shared):
                written.append(files[name])
        removed = _prune(folder, files) if prune else 0
    except OSError as error:
        raise StoreError(
            f"The bundle can't be written ({error}).",
            where=str(folder),
            todo="Look at the folder's permissions and the space on its disk, or choose another one.",
            details={"errno": errno.errorcode.get(error.errno or 0, str(error.errno))},
        ) from error
    return Written(
        folder=str(folder),
        written=len(written),
        unchanged=len(files) - len(written),
        removed=removed,
        bytes=sum(file.size for file in written),
    )


def check_folder(folder: Path) -> None:
    """Refuse, before anything is prepared for it, a place where no folder can be.

    Raises
    ------
    UsageError
    """
    folder = folder.expanduser().absolute()
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise UsageError(f"{nearest} is no folder.", where=str(folder), todo="Choose another place for the bundle.")


def _open_folder(folder: Path, shared: bool) -> None:
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _make_folder(folder, 0o755 if shared else 0o700)
    found = folder.stat()
    if found.st_mode & stat.S_IWOTH:
        raise UsageError(
            "Everybody can write to this folder, and whoever can decides what runs on the nodes.",
            where=str(folder),
            todo="Give a folder beneath it: it is made with the right permissions.",
        )
    if shared and found.st_mode & 0o055 != 0o055:
        os.chmod(folder, stat.S_IMODE(found.st_mode) | 0o055)


def _make_folder(folder: Path, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    if stat.S_IMODE(folder.stat().st_mode) != mode:
        os.chmod(folder, mode)


def _publish(file: BootstrapFile, folder: Path, shared: bool) -> bool:
    """Make one file appear unless it is there; whether it had to be written."""
    path, mode = folder / file.name, 0o644 if shared else 0o600
    for parent in reversed(path.relative_to(folder).parents[:-1]):
        _make_folder(folder / parent, 0o755 if shared else 0o700)
    if _is_there(file, path):
        if stat.S_IMODE(path.stat().st_mode) != mode:
            os.chmod(path, mode)
        return False
    fd, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    try:
        with open(fd, "wb") as out:
            if file.path is None:
                out.write(file.data)
            else:
                with file.path.open("rb") as source:
                    shutil.copyfileobj(source, out, 1 << 20)
            os.fchmod(fd, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return True


def _is_there(file: BootstrapFile, path: Path) -> bool:
    """Whether the very content is there; a copy that was cut short or damaged is written again."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
            return False
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as there:
            while piece := there.read(1 << 20):
                digest.update(piece)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == file.sha256


def _sweep(folder: Path) -> None:
    """Remove what killed writers have left."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_mtime < time.time() - _ABANDONED:
                path.unlink()


def _prune(folder: Path, files: Iterable[str]) -> int:
    kept, removed = set(files), 0
    for kind in _KINDS:
        for path in (folder / kind).rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in kept:
                path.unlink()
                removed += 1
    return removed
