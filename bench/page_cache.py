"""What a run is going to read, in the kernel's page cache: it is dropped when what ran before needed the memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SHARE = 4
"""What is larger than this part of the memory is not read: it would displace itself."""

_BLOCK = 1 << 20


def read_through(places: Iterable[Path], most: int | None = None) -> int:
    """Read all files beneath `places`, each once, unless they are too large altogether.

    Parameters
    ----------
    places : iterable of Path
        Folders and files; those that are not there are passed over.
    most : int, optional
        Bytes that are read at most. Default: a quarter of the memory.

    Returns
    -------
    int
        Bytes read; 0 when they are too many.
    """
    found = {(status.st_dev, status.st_ino): (path, status.st_size) for path, status in _files(places)}
    size = sum(each for _, each in found.values())
    if size > (_memory() // SHARE if most is None else most):
        return 0
    for path, _ in found.values():
        with open(path, "rb", buffering=0) as file:
            while file.read(_BLOCK):
                pass
    return size


def _files(places: Iterable[Path]) -> Iterator[tuple[str, os.stat_result]]:
    pending = [str(place) for place in places]
    while pending:
        place = pending.pop()
        if os.path.isdir(place):
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path, entry.stat(follow_symlinks=False)
        elif os.path.isfile(place):
            yield place, os.stat(place)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
