"""Laying a layer into a prefix that is in use: whatever appears there is complete, whenever the process is killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial

from likewise.model.layer import FileEntry
from likewise.node.disk import READ, Tree, link_or_copy
from likewise.node.generated import Generated, Place, layer_files, rewritten, stub
from likewise.node.growing import Growing, key
from likewise.node.layers import LayerShelf
from likewise.node.linking import contradiction, failures_named, link_files, same_content, twice
from likewise.node.parts import Part


def infill(parts: Sequence[Part], shelf: LayerShelf, place: Place, *, replace: bool = False) -> None:
    """Lay out a layer and its bytecode, and note that they are there.

    Parameters
    ----------
    parts : sequence of Part
        The layer comes first.
    shelf : LayerShelf
    place : Place
        The prefix.
    replace : bool
        Whether other contents in their places are replaced: the layer belongs to the base, whose files were not checked
        one by one.

    Raises
    ------
    NodeError
        When a part can't be had, another layer has something else in its place, or the disk can't take it.
    """
    for part in parts:
        twice(partial(_lay, part, shelf, place, replace))
    with open(Growing(place.prefix).place(f"there/{key(parts[0].digest)}"), "wb"):
        pass


def _lay(part: Part, shelf: LayerShelf, place: Place, replace: bool) -> None:
    entries = shelf.get(part.digest, part.ref.name)
    with failures_named(part, shelf, place):
        own: list[Generated] = []
        # The base has what is made from an outline: all but what may be rewritten, and what a RECORD says of that.
        other = rewritten(entries)
        if not part.is_bytecode and (replace or other):
            own, _ = layer_files(part.ref, entries, shelf.reader(part.digest, other), place)
        instead = {file.path for file in own}
        with (
            Tree(shelf.folder(part.digest), make=False) as source,
            Tree(place.prefix) as target,
            Tree(Growing(place.prefix).place("tmp"), make=False) as scratch,
        ):
            infill = _Infill(part.ref.name, place, source, target, scratch, replace)
            link_files(entries, source, target, place, instead, part.ref.name, infill.otherwise)
            for file in own:
                infill.write(file)


class _Infill:
    """Where the files of a layer go. What one step can't do is made in `scratch` and renamed."""

    def __init__(self, name: str, place: Place, source: Tree, target: Tree, scratch: Tree, replace: bool) -> None:
        self._name = name
        self._place = place
        self._source = source
        self._target = target
        self._scratch = scratch
        self._replace = replace
        self._temporary = str(os.getpid())

    def otherwise(self, entry: FileEntry, path: str, into: int, new: str, error: OSError) -> None:
        """Have a file of the layer at `path` that can't just be linked, unless it is there."""
        if isinstance(error, FileExistsError):
            if same_content(entry, self._source, into, new):
                return  # another layer has it, too, or a killed process has got this far
            if not self._replace and not _holds(into, new, stub(path, self._place)):
                raise contradiction(self._name, path, "holds something else") from error
        self._bring(entry, into, new)  # whatever else than links is wrong here shows itself again

    def write(self, file: Generated) -> None:
        """Have a generated file, unless it is there; another content is replaced."""
        into, new = self._target.enter(file.path)
        if not _holds(into, new, file):
            with self._exchanged(into, new):
                self._scratch.write(self._temporary, file.data, executable=file.executable)

    def _bring(self, entry: FileEntry, into: int, new: str) -> None:
        with self._exchanged(into, new) as folder:
            if entry.link:
                os.symlink(entry.link, self._temporary, dir_fd=folder)
            else:
                at, old = self._source.enter(entry.path)
                link_or_copy(at, old, folder, self._temporary, executable=entry.executable)

    @contextlib.contextmanager
    def _exchanged(self, into: int, new: str) -> Iterator[int]:
        """The folder to make a file in that then takes the place of another one, or of none."""
        folder, name = self._scratch.enter(self._temporary)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)  # of a killed process that had the same number
        yield folder
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=into)


def _holds(into: int, name: str, file: Generated) -> bool:
    """Whether there is a file with this content."""
    try:
        with open(os.open(name, READ, dir_fd=into), "rb") as found:
            executable = bool(os.fstat(found.fileno()).st_mode & 0o100)
            return executable == file.executable and found.read() == file.data
    except OSError:
        return False
