"""A store in a local directory: content-addressed, shared by many processes, safe to kill at any moment.

How it stays safe:

* Content is written to a file in ``tmp/`` and appears under its key by a hard link, which fails when the key exists:
  create-if-absent, and never half a file. There is no ``fsync``: after a power cut readers find a wrong digest (or
  nothing: an empty file counts as absent), remove the key and make the content again.
* Temporary files and leases are locked by the process that made them. The kernel frees the locks of a killed process,
  and what nobody holds is swept.
* ``lock`` is a gate: whoever makes a temporary file or a lease, or relies on content being there, holds it *shared*
  for some microseconds; `prune` holds it *exclusively* while it looks again and removes. So content is either used
  first, and then too recent to be removed, or removed first, and then visibly absent.
* Who will need content for longer leases its keys first and looks for it afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

from likewise.errors import StoreError
from likewise.model.keys import LEASES
from likewise.store.failures import absent, store_error
from likewise.store.folder import TEMPORARY, Folder, OutFile, remove
from likewise.store.lease import Lease, read_leases, unpacked_key
from likewise.store.loose import KITS, LAYERS, LooseContent, is_loose
from likewise.store.values import RESERVED, Item, KindInfo, PruneReport, StoreInfo, check_key, choose_expired

MAX_AGE = timedelta(hours=24)
GRACE = timedelta(minutes=10)

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}
_IN_THE_WAY = (FileNotFoundError, PermissionError) if os.name == "nt" else (FileNotFoundError,)  # open on Windows
_BATCH = 16  # removals per hold of the gate, so that nobody waits for long
_BUFFER = 1 << 20


class LocalStore:
    """Content by key, in a directory of the user's own.

    Parameters
    ----------
    root : Path
        Made when missing, with mode 0700. Must be the user's own.
    max_age : timedelta, default 24 h
        How long content stays after its last use.
    max_size : int or None, default None
        Bytes to keep at most; the least recently used content goes first.
    grace : timedelta, default 10 min
        Content used within this time is not removed by age or size: somebody may be about to lease it.
    clock : callable, default time.time
        The present time in seconds since the epoch.

    Raises
    ------
    StoreError
        When the directory can't be made, or is not the user's own.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_age: timedelta = MAX_AGE,
        max_size: int | None = None,
        grace: timedelta = GRACE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = Path(root)
        self.max_age = max_age
        self.max_size = max_size
        self.grace = grace
        self._clock = clock
        self._folder = Folder(self.root)
        self.loose = LooseContent(self._folder, self._stamp)

    # ---- reading

    def path(self, key: str) -> Path:
        """Where the content of `key` lies, whether or not it is there."""
        return self.root / check_key(key)

    def has(self, key: str) -> bool:
        """Whether the content is there. Asking counts as use, so it then stays for at least the grace time."""
        path = self.path(key)
        with self._folder.gate(shared=True):
            return self._use(path)

    def open(self, key: str) -> BinaryIO:
        """The content, for reading.

        Raises
        ------
        StoreError
            When it is not there or can't be read.
        """
        path = self.path(key)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise absent(key, self.root) from None
        except OSError as error:
            raise store_error(error, path) from error
        with contextlib.suppress(OSError):  # a store that can't be written can still be read
            self._stamp(path)
        return file

    def get_bytes(self, key: str) -> bytes | None:
        """The content in one piece, None when it is not there."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error(error, path) from error
        with contextlib.suppress(OSError):
            self._stamp(path)
        return data or None

    def have(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` whose content is there, those of what lies unpacked among them. Asking counts as use."""
        with self._folder.gate(shared=True):
            return {key for key in keys if (self.loose.use(key) if is_loose(key) else self._use(self.path(key)))}

    def touch(self, keys: Iterable[str]) -> None:
        """Note that these were used now, packed or unpacked. Keys that are not there are passed over."""
        paths = {key: self.path(key) for key in keys}
        with self._folder.gate(shared=True):
            for key, path in paths.items():
                self._use(path)
                if unpacked := unpacked_key(key):
                    self.loose.use(unpacked)

    # ---- writing

    @contextlib.contextmanager
    def create(self, key: str, *, replace: bool = False) -> Iterator[BinaryIO]:
        """Write the content of `key`: a context manager that yields a file.

        The content appears when the block ends without an exception, all at once. When somebody else made it in the
        meantime, theirs stays (that is what content-addressed means) unless `replace` is true. After an exception, of
        whatever kind, nothing remains.

        Raises
        ------
        StoreError
            When the disk is full, over quota, read-only, …
        """
        path = self.path(key)
        raw = self._folder.temporary(TEMPORARY)
        try:
            buffered = io.BufferedWriter(raw, _BUFFER)
            yield cast(BinaryIO, buffered)
            if not buffered.closed:  # the body may have closed it, as archive writers like to do
                buffered.flush()
            self._publish(raw, path, replace=replace)
        finally:
            # First the raw file: closing the buffer would write the rest of it. A failure was noticed above.
            with contextlib.suppress(OSError):
                raw.close()
            with contextlib.suppress(OSError):
                os.unlink(str(raw.name))

    def put_bytes(self, key: str, data: bytes, *, replace: bool = False) -> None:
        """Write `data` as the content of `key`, as `create` does."""
        with self.create(key, replace=replace) as out:
            out.write(data)

    def remove(self, key: str) -> bool:
        """Remove content that turned out to be damaged, leased or not. Returns whether there was any."""
        path = self.path(key)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise store_error(error, path) from error
        return True

    # ---- keeping and expiring

    def lease(self, keys: Iterable[str] = ()) -> Lease:
        """Keep the content of `keys` from being removed until the lease is released or this process ends.

        Lease first, look with `has` afterwards: then what is there stays there. The keys need not exist yet.
        """
        return Lease(self._folder, keys, on_release=self._touch_quietly)

    def prune(self, older_than: timedelta | None = None, *, everything: bool = False) -> PruneReport:
        """Remove what has expired, then the least recently used until the size limit is met, and abandoned files.

        Parameters
        ----------
        older_than : timedelta, optional
            Remove what was last used longer ago than this, instead of `max_age`.
        everything : bool, default False
            Remove all content.

        Leased content stays in any case. The grace time is observed too, except when the user asks for a removal in
        so many words (`older_than`, `everything`) and nobody holds a lease, that is, nobody is at work.
        """
        with self._folder.gate(shared=False):
            abandoned = [*self._folder.abandoned(TEMPORARY), *self.loose.halves()]
            for path in self._folder.abandoned(LEASES):
                remove(path)
            leases = self._folder.held(LEASES)
            leased = read_leases(leases)
        swept_bytes = sum(remove(path) for path in abandoned)
        wished = everything or older_than is not None
        age = timedelta(0) if everything else older_than if older_than is not None else self.max_age
        choice = choose_expired(
            self._items(),
            now=self._clock(),
            max_age=age.total_seconds(),
            max_size=self.max_size,
            grace=0.0 if wished and not leases else self.grace.total_seconds(),
            leased=leased,
        )
        removed: list[Item] = []
        for start in range(0, len(choice.remove), _BATCH):
            removed += self._drop(choice.remove[start : start + _BATCH])
        return PruneReport(
            removed=len(removed),
            freed_bytes=sum(item.size for item in removed) + swept_bytes,
            kept_leased=len(choice.leased),
            kept_recent=len(choice.recent),
            swept=len(abandoned),
        )

    def info(self) -> StoreInfo:
        """What is in the store."""
        items = list(self._items())
        leases = self._folder.held(LEASES)
        leased = read_leases(leases)
        sizes: dict[str, list[int]] = {}
        for item in items:
            sizes.setdefault(item.key.partition("/")[0], []).append(item.size)
        return StoreInfo(
            root=str(self.root),
            items=len(items),
            bytes=sum(item.size for item in items),
            by_kind={kind: KindInfo(items=len(some), bytes=sum(some)) for kind, some in sorted(sizes.items())},
            leased=sum(item.key in leased for item in items),
            leases=len(leases),
            oldest_use=min((item.used for item in items), default=None),
        )

    # ---- inside

    def _use(self, path: Path) -> bool:
        """Stamp `path` as used now; False when it is not there (an empty file is what a power cut leaves)."""
        try:
            if path.stat().st_size == 0:
                return False
            self._stamp(path)
        except FileNotFoundError:
            return False
        return True

    def _stamp(self, path: Path) -> None:
        now = self._clock()
        os.utime(path, (now, now))

    def _touch_quietly(self, keys: Iterable[str]) -> None:
        with contextlib.suppress(StoreError):
            self.touch(keys)

    def _publish(self, raw: OutFile, path: Path, *, replace: bool) -> None:
        """Make the finished file appear at `path`. Closed first: network file systems report a full disk then."""
        temporary = str(raw.name)
        with self._folder.gate(shared=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stamp(Path(temporary))
            raw.close()
            if os.stat(temporary).st_size == 0:
                raise StoreError("Content can't be empty: a power cut leaves empty files.", where=str(path))
            # A key that is taken counts as used now, unless its content is the empty file of a power cut.
            if replace or not (_link(temporary, path) or self._use(path)):
                os.replace(temporary, path)

    def _items(self) -> Iterator[Item]:
        yield from self.loose.items()
        for folder, folders, names in os.walk(self.root):
            if folder == str(self.root):
                folders[:] = [name for name in folders if name not in (*RESERVED, LAYERS, KITS)]
                continue
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    found = path.lstat()
                    key = path.relative_to(self.root).as_posix()
                    yield Item(key=key, size=found.st_size, used=found.st_mtime)

    def _drop(self, batch: Iterable[Item]) -> list[Item]:
        """Remove those of `batch` that nobody has used or leased since they were chosen."""
        dropped = []
        trees: list[Path] = []
        with self._folder.gate(shared=False):
            leased = read_leases(self._folder.held(LEASES))
            for item in batch:
                if item.key in leased:
                    continue
                if item.key.startswith((f"{LAYERS}/", f"{KITS}/")):
                    found = self.loose.drop(item)
                    trees += found
                    dropped += [item] if found else []
                    continue
                path = self.root / item.key
                with contextlib.suppress(*_IN_THE_WAY):
                    if path.lstat().st_mtime == item.used:
                        path.unlink()
                        dropped.append(item)
        for tree in trees:
            remove(tree)
        return dropped


def _link(temporary: str, path: Path) -> bool:
    """Give the file its name unless the name is taken (then False)."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        os.replace(temporary, path)  # no hard links here: as atomic, though the last of two writers wins
    return True
