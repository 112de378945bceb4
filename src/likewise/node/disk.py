"""Files made beneath one directory without ever following a link, and what the operating system says about it."""

from __future__ import annotations

import contextlib
import errno
import os
from types import TracebackType

from likewise.errors import NodeError

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

_FULL = {errno.ENOSPC, errno.EDQUOT}
# The file system has no hard links, has no more for this file, or the two places are on different ones.
NO_LINK = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP}


class Tree:
    """A directory to make files in. One directory beneath it is open at a time, since files come sorted.

    Every component is opened by itself, relative to the one before and without following links: nothing that a layer
    contains can lead outside.
    """

    def __init__(self, root: str, *, make: bool = True) -> None:
        self._make = make
        self._folder = ""
        self._names: list[str] = []
        self._fds = [os.open(root, DIRECTORY)]

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def enter(self, path: str) -> tuple[int, str]:
        """Open the directory of `path`, made when missing; its descriptor (borrowed), and the file's own name."""
        folder, _, name = path.rpartition("/")
        if folder != self._folder:
            self._change_to(folder)
        return self._fds[-1], name

    def _change_to(self, folder: str) -> None:
        parts = folder.split("/") if folder else []
        common = 0
        for ours, wanted in zip(self._names, parts, strict=False):
            if ours != wanted:
                break
            common += 1
        self._folder = "/".join(parts[:common])
        while len(self._names) > common:
            self._names.pop()
            os.close(self._fds.pop())
        for part in parts[common:]:
            self._fds.append(self._open(part))
            self._names.append(part)
        self._folder = folder

    def _open(self, part: str) -> int:
        if self._make:  # at once: it is missing more often than not
            with contextlib.suppress(FileExistsError):  # another layer has it, too, or another process was quicker
                os.mkdir(part, 0o755, dir_fd=self._fds[-1])
        return os.open(part, DIRECTORY, dir_fd=self._fds[-1])  # NotADirectoryError when it is a link

    def write(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Make a file; it must not exist."""
        folder, name = self.enter(path)
        create(folder, name, data, executable=executable)

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link; it must not exist."""
        folder, name = self.enter(path)
        os.symlink(target, name, dir_fd=folder)


def create(folder: int, name: str, data: bytes | memoryview, *, executable: bool) -> None:
    """Make a file with this content in the open directory `folder`; it must not exist."""
    fd = os.open(name, CREATE, mode(executable), dir_fd=folder)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def link_or_copy(source_dir: int, source: str, target_dir: int, target: str, *, executable: bool) -> None:
    """Hard-link a file; copy it where that can't be done."""
    try:
        os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        copy(source_dir, source, target_dir, target, executable=executable)


def copy(source_dir: int, source: str, target_dir: int, target: str, *, executable: bool) -> None:
    """Copy a file's content (the kernel does it)."""
    reading = os.open(source, READ, dir_fd=source_dir)
    try:
        writing = os.open(target, CREATE, mode(executable), dir_fd=target_dir)
        try:
            while os.sendfile(writing, reading, None, 1 << 30):
                pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`: one call may write less, on a disk that is nearly full for example."""
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)
        while written < len(rest):
            written += os.write(fd, rest[written:])


def mode(executable: bool) -> int:
    """Nobody writes to a file that several prefixes share."""
    return 0o555 if executable else 0o444


def remove_tree(path: str) -> None:
    """Remove a directory that may be incomplete, or a file; it may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError:  # a directory: EISDIR, elsewhere EPERM
        import shutil  # imports compression modules; only whoever cleans up pays for them

        shutil.rmtree(path, ignore_errors=True)


def disk_error(error: OSError, where: str) -> NodeError:
    """What an OSError while writing to the node's cache at `where` means to a person."""
    details = {"errno": error.errno, "path": os.fsdecode(error.filename) if error.filename else ""}
    if error.errno in _FULL:
        return NodeError(
            f"The node's disk is full ({os.strerror(error.errno or 0)}).",
            where=where,
            todo="Free some space or inodes there, or give the node's cache another folder.",
            details=details,
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return NodeError(
            f"The node's cache can't be written ({error}).",
            where=where,
            todo="Give the node's cache a folder that you may write to.",
            details=details,
        )
    return NodeError(f"The node's cache can't be used ({error}).", where=where, details=details)


def check_space(folder: str, *, size: int, files: int) -> None:
    """Refuse what is sure not to fit, before anything is written.

    Parameters
    ----------
    folder : str
    size, files : int
        Bytes of content and number of files that will be made at least.

    Raises
    ------
    NodeError
    """
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < size:
        raise NodeError(
            f"The node's disk is too small: {size / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free.",
            where=folder,
            todo="Free some space there, or give the node's cache another folder.",
            details={"needed": size, "free": free},
        )
    if found.f_files and found.f_favail < files:  # some file systems have no fixed number: f_files is 0
        raise NodeError(
            f"The node's disk has too few inodes: {files:,} files are needed and {found.f_favail:,} can be made.",
            where=folder,
            todo="Remove files there, or give the node's cache another folder.",
            details={"needed": files, "free": found.f_favail},
        )


def check_executable(folder: str) -> None:
    """Refuse a file system from which no library can be loaded.

    Raises
    ------
    NodeError
    """
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise NodeError(
            "The node's cache is on a file system mounted with noexec, so no library can be loaded from it.",
            where=folder,
            todo="Give the node's cache another folder.",
        )
