"""A layer's files become those of a prefix: by hard links, which cost a system call each and no space."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

from likewise.errors import NodeError
from likewise.model.layer import FileEntry
from likewise.model.manifest import prefix_path
from likewise.node.disk import NO_LINK, READ, Tree, copy, disk_error
from likewise.node.generated import Place
from likewise.node.layers import LayerShelf
from likewise.node.parts import Part
from likewise.node.unpack import file_digest

_T = TypeVar("_T")
_KIND = 0o170000  # the bits of a mode that say what it is (inode(7))


Otherwise = Callable[[FileEntry, str, int, str, OSError], None]
"""What to do with a file that can't be linked: the file, its path in the prefix, the open folder, the name, why."""


def link_layer(
    entries: Sequence[FileEntry], folder: str, building: str, place: Place, instead: Collection[str], name: str
) -> None:
    """Link the files of a layer into the directory `building`, which nobody uses yet; copy what can't be linked.

    Parameters
    ----------
    entries : sequence of FileEntry
    folder : str
        Where the files lie.
    building : str
    place : Place
        Where the content of `building` will be.
    instead : collection of str
        Paths, relative to it, for which something else is made.
    name : str
        The layer's, for errors.

    Raises
    ------
    FileNotFoundError
        When a file is not there, or not all of it.
    NodeError
        When another layer has something else in its place.
    OSError
        When the disk can't take it.
    """

    def otherwise(entry: FileEntry, path: str, into: int, new: str, error: OSError) -> None:
        if isinstance(error, FileExistsError):
            if not same_content(entry, source, into, new):
                raise contradiction(name, path, "holds something else") from error
        elif entry.link or error.errno not in NO_LINK:
            raise error
        else:
            at, old = source.enter(entry.path)
            copy(at, old, into, new, executable=entry.executable)

    with Tree(folder, make=False) as source, Tree(building) as target:
        link_files(entries, source, target, place, instead, name, otherwise)


def link_files(
    entries: Iterable[FileEntry],
    source: Tree,
    target: Tree,
    place: Place,
    instead: Collection[str],
    name: str,
    otherwise: Otherwise,
) -> None:
    """Link the files of a layer from `source` to where they belong beneath `target`, folder by folder.

    Raises
    ------
    FileNotFoundError, NodeError, OSError
        As `link_layer`, and what `otherwise` raises.
    """
    for folder, group in sorted(_by_folder(entries).items()):
        beginning = prefix_path(f"{folder}/", place.python)
        try:
            into, _ = target.enter(beginning)
        except NotADirectoryError as error:
            raise contradiction(name, beginning.rstrip("/"), "has a file where a folder is needed") from error
        at = _source_folder(source, folder) if any(not entry.link for _, entry in group) else -1
        for new, entry in group:
            if instead and beginning + new in instead:
                continue
            try:
                if entry.link:
                    os.symlink(entry.link, new, dir_fd=into)
                else:
                    check_file(entry, at, new)
                    os.link(new, new, src_dir_fd=at, dst_dir_fd=into, follow_symlinks=False)
            except FileNotFoundError:
                raise
            except OSError as error:
                otherwise(entry, beginning + new, into, new, error)


def _by_folder(entries: Iterable[FileEntry]) -> dict[str, list[tuple[str, FileEntry]]]:
    """Each folder's files with their names."""
    folders: dict[str, list[tuple[str, FileEntry]]] = {}
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        group = folders.get(folder)
        if group is None:
            group = folders[folder] = []
        group.append((name, entry))
    return folders


def _source_folder(source: Tree, folder: str) -> int:
    try:
        return source.enter(f"{folder}/")[0]
    except NotADirectoryError as error:
        raise FileNotFoundError(f"{folder} is not a folder") from error


def check_file(entry: FileEntry, folder: int, name: str) -> int:
    """Look whether a file was written to its end, as a disk that lost power leaves empty ones; its permissions.

    Raises
    ------
    FileNotFoundError
        When it was not, or is not there.
    """
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if found.st_size != entry.size or found.st_mode & _KIND != stat.S_IFREG:
        raise FileNotFoundError(f"{entry.path} has {found.st_size} bytes of {entry.size}")
    return stat.S_IMODE(found.st_mode)


def contradiction(name: str, path: str, reason: str) -> NodeError:
    """The refusal of the layer `name`: another one has something else at `path`."""
    return NodeError(
        f"Two layers claim {path}, and the other one {reason}.",
        where=name,
        todo="This is a fault in likewise, please report it.",
        details={"layer": name, "path": path},
    )


def same_content(entry: FileEntry, source: Tree, into: int, name: str) -> bool:
    """Whether the file that is there already is what `entry` wants there (two distributions may own one path)."""
    found = os.lstat(name, dir_fd=into)
    if entry.link:
        return stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=into) == entry.link
    if (
        not stat.S_ISREG(found.st_mode)
        or bool(found.st_mode & 0o100) != entry.executable
        or found.st_size != entry.size
    ):
        return False
    at, ours = source.enter(entry.path)
    if os.path.samestat(found, os.lstat(ours, dir_fd=at)):
        return True
    with open(os.open(name, READ, dir_fd=into), "rb") as there:
        return file_digest(there.fileno()) == entry.sha256


@contextlib.contextmanager
def failures_named(part: Part, shelf: LayerShelf, place: Place) -> Iterator[None]:
    """What goes wrong while a layer is laid out, as an error that names it; what is incomplete will be fetched anew.

    Raises
    ------
    NodeError
    """
    try:
        yield
    except FileNotFoundError as error:
        shelf.forget(part.digest)
        raise NodeError(
            f"The layer in the node's cache is incomplete ({error}).",
            where=part.ref.name,
            todo="It will be fetched anew at the next try: start the cluster again.",
            details={"incomplete": part.digest},
        ) from error
    except OSError as error:
        raise disk_error(error, f"{part.ref.name}, in {place.prefix}") from error


def twice(work: Callable[[], _T]) -> _T:
    """The result of `work`, which is done again when a layer turned out to be incomplete: another source may have it.

    Raises
    ------
    NodeError
        As `work` the second time.
    """
    try:
        return work()
    except NodeError as error:
        if not error.details.get("incomplete"):
            raise
    return work()
