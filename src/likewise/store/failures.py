"""What went wrong with a file of the store, in words that say what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from likewise.errors import StoreError

_ELSEWHERE = "or put the cache elsewhere with LIKEWISE_CACHE"
_FREE = f"Free some space there, run `likewise cache prune`, {_ELSEWHERE}."
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("The disk of the store is full.", _FREE),
    getattr(errno, "EDQUOT", errno.ENOSPC): ("Your disk quota at the store is used up.", _FREE),
    errno.EROFS: ("The store lies on a read-only file system.", f"Mount it writable, {_ELSEWHERE}."),
    errno.EACCES: ("The store may not be written or read.", f"Correct its permissions, {_ELSEWHERE}."),
    errno.EPERM: ("The store may not be written or read.", f"Correct its permissions, {_ELSEWHERE}."),
    errno.ENOTDIR: ("The store's place is taken by a file.", f"Move that file away, {_ELSEWHERE}."),
    errno.EEXIST: ("The store's place is taken by a file.", f"Move that file away, {_ELSEWHERE}."),
    errno.ELOOP: ("A symbolic link lies where the store keeps a file.", f"Remove it, {_ELSEWHERE}."),
}


def store_error(error: OSError, where: Path) -> StoreError:
    """`error` as a `StoreError` about the file or directory `where`; ``details["errno"]`` is the symbolic name."""
    number = error.errno or 0
    what, todo = _REASONS.get(
        number, (f"The store failed: {error.strerror or error}.", f"Check the disk, {_ELSEWHERE}.")
    )
    return StoreError(what, where=str(where), todo=todo, details={"errno": errno.errorcode.get(number, str(number))})


def absent(key: str, root: Path) -> StoreError:
    """The content of `key` is not there."""
    return StoreError(
        f"The store has no {key}.",
        where=str(root),
        todo="Start again; what is missing is made anew.",
        details={"errno": "ENOENT", "key": key},
    )


def foreign(root: Path, why: str) -> StoreError:
    """The store's directory is not the user's own."""
    return StoreError(
        f"The store's directory {why}, so what it holds can't be trusted.",
        where=str(root),
        todo="Remove it, or put the cache elsewhere with LIKEWISE_CACHE.",
    )
