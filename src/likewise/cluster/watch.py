"""Has anything been touched? A few hundred looks at the file system, where a scan would take a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from likewise.model.snapshot import OriginKind, Snapshot

_NO_SOURCES = frozenset({"__pycache__", "node_modules", "build", "dist"})
_MAX_ENTRIES = 50_000

Stamp = tuple[int, int, int]


class Watch:
    """What files and folders look like now, to be compared with later.

    Parameters
    ----------
    files, folders : iterable of str
        Looked at one by one. A folder's own time changes when something is made or removed directly in it.
    trees : iterable of str
        Looked at with all beneath, but for hidden folders and what no sources are in.
    since : float
        Seconds since the epoch: what was touched after that counts as changed already.
    """

    def __init__(self, files: Iterable[str], folders: Iterable[str], trees: Iterable[str], *, since: float) -> None:
        self._paths = tuple(dict.fromkeys((*files, *folders)))
        self._trees = tuple(dict.fromkeys(trees))
        self._then = self._look()
        newest = max((stamp[0] for stamp in self._then[1]), default=0)
        self._touched = newest >= since * 1e9

    def changed(self) -> bool:
        """Whether anything was touched, ``sys.path`` and the working directory included."""
        return self._touched or self._look() != self._then

    def _look(self) -> tuple[tuple[str, ...], list[Stamp]]:
        stamps = [_stamp(path) for path in self._paths]
        stamps += [stamp for tree in self._trees for stamp in _walk(tree)]
        return (_cwd(), *sys.path), stamps


def watch_quickly(snapshot: Snapshot, loose: Sequence[str], *, since: float) -> Watch:
    """Watch what an installation or an edit of the user's own code touches.

    Parameters
    ----------
    snapshot : Snapshot
    loose : sequence of str
        The files of the loose code.
    since : float
        As in `Watch`.
    """
    sites = (os.path.dirname(d.metadata_path) for d in snapshot.distributions if d.metadata_path)
    folders = (*sites, *(entry for entry in sys.path if entry), *map(os.path.dirname, loose))
    return Watch(loose, folders, _editables(snapshot), since=since)


def watch_all(snapshot: Snapshot, files: Sequence[str], *, since: float) -> Watch:
    """Watch every one of these `files`, and what is beside them; as `watch_quickly` else."""
    folders = {os.path.dirname(path) for path in files}
    return Watch(files, (*folders, *(entry for entry in sys.path if entry)), _editables(snapshot), since=since)


def _editables(snapshot: Snapshot) -> list[str]:
    return [d.origin.path for d in snapshot.distributions if d.origin.kind is OriginKind.EDITABLE and d.origin.path]


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return (0, -1, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _walk(tree: str) -> Iterator[Stamp]:
    left, pending = _MAX_ENTRIES, [tree]
    while pending and left > 0:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    left -= 1
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith(".") and entry.name not in _NO_SOURCES:
                            pending.append(entry.path)
                    else:
                        found = entry.stat()
                        yield (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            continue


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
