"""LocalStore in one process: what is put is there, leases keep it, and it expires by an explicit clock."""

from __future__ import annotations

import os
import shutil
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from likewise.errors import StoreError
from likewise.store.local import LocalStore
from likewise.store.values import KindInfo

A, B, C = "layers/aa/a", "layers/bb/b", "manifests/c"
HOUR = 3600.0


class Clock:
    """The time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> LocalStore:
    return LocalStore(tmp_path / "cache" / "store", clock=clock)


def leftovers(store: LocalStore) -> list[str]:
    return os.listdir(store.root / "tmp")


def test_what_is_put_is_there(store: LocalStore) -> None:
    """Content can be read back by its key as soon as it is put, and not before."""
    assert not store.has(A)
    assert store.get_bytes(A) is None
    store.put_bytes(A, b"content")
    assert store.has(A)
    assert store.get_bytes(A) == store.path(A).read_bytes() == b"content"
    with store.open(A) as file:
        assert file.read() == b"content"
    assert leftovers(store) == []


def test_content_appears_whole(store: LocalStore) -> None:
    """While content is being written its key is absent, however much is written."""
    with store.create(A) as out:
        out.write(b"x" * 3_000_000)
        assert not store.has(A)
        assert not store.path(A).exists()
    assert store.path(A).stat().st_size == 3_000_000


def test_already_there_is_success(store: LocalStore, clock: Clock) -> None:
    """Creating what is there keeps the first content, succeeds, and counts as use."""
    store.put_bytes(A, b"first")
    clock.now += 23 * HOUR
    store.put_bytes(A, b"second")
    clock.now += 2 * HOUR
    assert store.prune().removed == 0
    assert store.get_bytes(A) == b"first"
    assert leftovers(store) == []


def test_replace(store: LocalStore) -> None:
    """With ``replace`` the new content takes the old one's place, and an open reader keeps the old."""
    store.put_bytes(A, b"first")
    with store.open(A) as file:
        store.put_bytes(A, b"second", replace=True)
        assert file.read() == b"first"
    assert store.get_bytes(A) == b"second"


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt, GeneratorExit])
def test_nothing_remains_of_a_failed_write(store: LocalStore, error: type[BaseException]) -> None:
    """An exception inside the block, Ctrl-C included, passes unchanged and leaves neither key nor temporary file."""
    with pytest.raises(error), store.create(A) as out:
        out.write(b"x" * 3_000_000)
        raise error
    assert not store.has(A)
    assert leftovers(store) == []


def test_writer_may_close_the_file(store: LocalStore) -> None:
    """An archive writer that closes its file has finished the content."""
    with store.create(A) as out:
        out.write(b"done")
        out.close()
    assert store.get_bytes(A) == b"done"


def test_empty_content_is_absent(store: LocalStore) -> None:
    """Empty content can't be put; the empty file that a power cut leaves is absent, and is replaced."""
    with pytest.raises(StoreError, match="empty"):
        store.put_bytes(A, b"")
    store.put_bytes(A, b"content")
    store.path(A).write_bytes(b"")
    assert not store.has(A)
    assert store.get_bytes(A) is None
    store.put_bytes(A, b"anew")
    assert store.get_bytes(A) == b"anew"


def test_missing_content_is_named(store: LocalStore) -> None:
    """Opening what is not there names the key, the store and what to do."""
    with pytest.raises(StoreError) as caught:
        store.open(A)
    assert A in caught.value.what
    assert caught.value.where == str(store.root)
    assert caught.value.todo


def test_remove(store: LocalStore) -> None:
    """Damaged content can be removed, leased or not, and made anew."""
    store.put_bytes(A, b"damaged")
    with store.lease([A]):
        assert store.remove(A)
        assert not store.remove(A)
        assert not store.has(A)
        store.put_bytes(A, b"right")
    assert store.get_bytes(A) == b"right"


def test_private(store: LocalStore) -> None:
    """Nobody else may read the store or what is in it, even when its directory was made with another mode."""
    store.put_bytes(A, b"content")
    store.root.chmod(0o755)
    LocalStore(store.root)
    for path in (store.root.parent, store.root, store.path(A)):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_whole_store_removed_by_hand(store: LocalStore) -> None:
    """A store that somebody deletes while it is in use is made anew at the next write."""
    store.put_bytes(A, b"content")
    shutil.rmtree(store.root)
    assert not store.has(A)
    store.put_bytes(A, b"content")
    assert store.get_bytes(A) == b"content"


def test_expiry_is_24_hours_after_last_use(store: LocalStore, clock: Clock) -> None:
    """Content goes 24 hours after it was last used by has, open, get_bytes or touch, and not earlier."""
    keys = [f"layers/aa/{name}" for name in ("unused", "asked", "opened", "got", "touched")]
    for key in keys:
        store.put_bytes(key, b"x")
    clock.now += 23 * HOUR
    assert store.prune().removed == 0
    store.has(keys[1])
    store.open(keys[2]).close()
    store.get_bytes(keys[3])
    store.touch([keys[4], "layers/aa/missing"])
    clock.now += 1 * HOUR
    assert store.prune().removed == 1
    assert not store.has(keys[0])
    clock.now += 23 * HOUR
    report = store.prune()
    assert (report.removed, report.freed_bytes) == (4, 4)
    assert store.info().items == 0


def test_expiry_is_configurable(tmp_path: Path, clock: Clock) -> None:
    """`max_age` sets another expiry, and pruning does not count as use."""
    store = LocalStore(tmp_path / "store", max_age=timedelta(days=7), clock=clock)
    store.put_bytes(A, b"x")
    clock.now += 6 * 24 * HOUR
    assert store.prune().removed == 0
    clock.now += 24 * HOUR
    assert store.prune().removed == 1


def test_older_than(store: LocalStore, clock: Clock) -> None:
    """`older_than` replaces the maximal age for one call, even below the grace time when nobody is at work."""
    store.put_bytes(A, b"x")
    clock.now += 60
    store.put_bytes(B, b"x")
    assert store.prune(timedelta(seconds=30)).removed == 1
    assert store.has(B)
    assert not store.has(A)


def test_size_limit(tmp_path: Path, clock: Clock) -> None:
    """Beyond `max_size` the least recently used content goes, but none that was used within the grace time."""
    store = LocalStore(tmp_path / "store", max_size=2000, clock=clock)
    for key in (A, B, C):
        store.put_bytes(key, b"x" * 1000)
        clock.now += HOUR
    store.has(A)
    assert store.prune().removed == 1
    assert not store.has(B)
    assert store.has(A)
    assert store.has(C)
    for number in range(5):
        store.put_bytes(f"layers/aa/{number}", b"x" * 1000)
    report = store.prune()
    assert (report.removed, report.kept_recent) == (0, 7)


def test_leased_content_stays(store: LocalStore, clock: Clock) -> None:
    """Leased content outlives its age and `everything`; it is counted, and free again after the lease."""
    store.put_bytes(A, b"aaa")
    store.put_bytes(B, b"bb")
    lease = store.lease([A])
    clock.now += 100 * HOUR
    assert store.info().leased == 1
    report = store.prune(everything=True)
    assert (report.removed, report.freed_bytes, report.kept_leased) == (1, 2, 1)
    lease.release()
    lease.release()
    assert store.info().leases == 0
    assert store.prune().removed == 0, "a lease that has just ended counts as use"
    clock.now += 24 * HOUR
    assert store.prune().removed == 1


def test_lease_can_grow(store: LocalStore, clock: Clock) -> None:
    """Keys can be added to a lease, before they exist too; two leases on one key both have to end."""
    with store.lease() as first, store.lease([A]):
        first.add([A, B])
        assert first.keys == {A, B}
        store.put_bytes(A, b"x")
        store.put_bytes(B, b"x")
        clock.now += 100 * HOUR
        assert store.prune().kept_leased == 2
        first.release()
        clock.now += 100 * HOUR
        assert store.prune().kept_leased == 1
        assert store.has(A)
        assert not store.has(B)


def test_while_somebody_is_at_work_recent_content_stays(store: LocalStore, clock: Clock) -> None:
    """`everything` spares recent content while anybody holds a lease: they may be about to lease it; then takes it."""
    with store.lease(["kits/other"]):
        store.put_bytes(A, b"x")
        report = store.prune(everything=True)
        assert (report.removed, report.kept_recent) == (0, 1)
    assert store.prune(everything=True).removed == 1


def test_info(store: LocalStore, clock: Clock) -> None:
    """`info` counts items, bytes, kinds and leases, and knows the oldest use; asking is not a use."""
    store.put_bytes(A, b"xxx")
    oldest = clock.now
    clock.now += HOUR
    store.put_bytes(B, b"xx")
    store.put_bytes(C, b"x")
    with store.lease([A, C, "kits/missing"]), store.create("kits/k") as out:
        out.write(b"unfinished")
        info = store.info()
        out.write(b"!")
    assert info.by_kind == {"layers": KindInfo(items=2, bytes=5), "manifests": KindInfo(items=1, bytes=1)}
    assert (info.root, info.items, info.bytes, info.leased, info.leases) == (str(store.root), 3, 6, 2, 1)
    assert info.oldest_use == oldest


def test_prune_spares_what_is_being_written(store: LocalStore, clock: Clock) -> None:
    """Unfinished content of a living writer is not swept, however long it takes."""
    with store.create(A) as out:
        out.write(b"x" * 2_000_000)
        clock.now += 100 * HOUR
        assert store.prune(everything=True).swept == 0
        out.write(b"y")
    assert store.path(A).stat().st_size == 2_000_001


def test_no_hard_links(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without hard links content appears by renaming, still create-if-absent."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store.put_bytes(A, b"first")
    store.put_bytes(A, b"second")
    assert store.get_bytes(A) == b"first"
    assert leftovers(store) == []
