"""LocalStore on bad disks: full, read-only, not writable, somebody else's. Nothing is lost; errors say what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from likewise.errors import StoreError
from likewise.store.local import LocalStore

A, B = "layers/aa/a", "layers/bb/b"
NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Act on files as an ordinary user: root may do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody may enter and nobody but the owner may write."""
    path = Path(tempfile.mkdtemp(prefix="likewise-shared-"))
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte and 40 inodes."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40,mode=0755", "likewise-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def assert_helpful(error: StoreError, *, code: str, where: Path) -> None:
    """The error names the place and the way out."""
    assert error.details["errno"] == code
    assert error.where.startswith(str(where))
    assert "LIKEWISE_CACHE" in error.todo


@pytest.mark.root
def test_disk_full_while_writing(small_disk: Path) -> None:
    """A full disk is named; what was there stays, nothing of the new content remains, and less still fits."""
    store = LocalStore(small_disk / "store")
    store.put_bytes(A, b"a" * 300_000)
    with pytest.raises(StoreError) as caught, store.create(B) as out:
        for _ in range(100):
            out.write(b"b" * 100_000)
    assert_helpful(caught.value, code="ENOSPC", where=store.root)
    assert os.listdir(store.root / "tmp") == []
    assert not store.has(B)
    assert store.get_bytes(A) == b"a" * 300_000
    store.put_bytes(B, b"b" * 500_000)
    assert store.has(B)


@pytest.mark.root
def test_disk_full_at_the_last_byte(small_disk: Path) -> None:
    """Content that only overflows the disk when its buffer is emptied at the end is refused all the same."""
    store = LocalStore(small_disk / "store")
    store.put_bytes(A, b"a" * 600_000)
    with pytest.raises(StoreError) as caught:
        store.put_bytes(B, b"b" * 700_000)
    assert_helpful(caught.value, code="ENOSPC", where=store.root)
    assert not store.has(B)
    assert os.listdir(store.root / "tmp") == []


@pytest.mark.root
def test_full_disk_can_be_pruned(small_disk: Path) -> None:
    """On a disk without a free byte or inode, leases and content are refused, and `prune` makes room."""
    store = LocalStore(small_disk / "store")
    store.put_bytes(A, b"a" * 300_000)
    store.put_bytes("layers/aa/b", b"b")
    with open(small_disk / "other", "wb", buffering=0) as other, pytest.raises(OSError, match="No space"):
        while True:
            other.write(b"x" * 4096)
    with pytest.raises(StoreError) as caught:
        store.lease([A])
    assert_helpful(caught.value, code="ENOSPC", where=store.root)
    assert os.listdir(store.root / "leases") == []
    with pytest.raises(OSError, match="No space"):
        for number in range(100):
            (small_disk / str(number)).touch()
    with pytest.raises(StoreError) as caught:
        store.put_bytes(B, b"b")
    assert_helpful(caught.value, code="ENOSPC", where=store.root)
    assert store.has(A)
    assert store.prune(everything=True).removed == 2  # tmpfs counts each link as an inode
    store.put_bytes(A, b"b")
    assert store.get_bytes(A) == b"b"


@pytest.mark.root
def test_read_only_file_system(small_disk: Path) -> None:
    """A store on a read-only file system can be read; everything else is refused with the reason."""
    store = LocalStore(small_disk / "store")
    store.put_bytes(A, b"content")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = LocalStore(small_disk / "store")
    assert store.get_bytes(A) == b"content"
    with store.open(A) as file:
        assert file.read() == b"content"
    assert store.info().items == 1
    for action in (
        lambda: store.put_bytes(B, b"b"),
        lambda: store.lease([A]),
        lambda: store.prune(everything=True),
        lambda: store.remove(A),
        lambda: store.has(A),
        lambda: LocalStore(small_disk / "another"),
    ):
        with pytest.raises(StoreError, match="read-only") as caught:
            action()
        assert_helpful(caught.value, code="EROFS", where=small_disk)
    assert store.get_bytes(A) == b"content"


def test_folder_not_writable(shared: Path) -> None:
    """A store that can't be made because its parent may not be written says so."""
    shared.chmod(0o555)
    with as_nobody(), pytest.raises(StoreError, match="permissions") as caught:
        LocalStore(shared / "cache" / "store")
    assert_helpful(caught.value, code="EACCES", where=shared)


def test_store_not_writable(shared: Path) -> None:
    """A store whose folders have become unwritable refuses to write, and what it has can still be read."""
    shared.chmod(0o777)
    with as_nobody():
        store = LocalStore(shared / "store")
        store.put_bytes(A, b"content")
        for folder in ("layers/aa", "tmp"):
            (store.root / folder).chmod(0o500)
        with pytest.raises(StoreError, match="permissions") as caught:
            store.put_bytes(B, b"b")
        assert_helpful(caught.value, code="EACCES", where=store.root)
        with pytest.raises(StoreError, match="permissions"):
            store.remove(A)
        (store.root / "tmp").chmod(0o700)
        with pytest.raises(StoreError, match="permissions"):
            store.put_bytes("layers/aa/b", b"b")
        assert os.listdir(store.root / "tmp") == []
        assert store.get_bytes(A) == b"content"
        (store.root / "layers/aa").chmod(0o700)


@pytest.mark.root
def test_somebody_elses_store(shared: Path) -> None:
    """A store, or a link in its place, that another user made is not used, even by root."""
    shared.chmod(0o777)
    with as_nobody():
        LocalStore(shared / "theirs")
        mine = shared / "mine"
        os.symlink(mine, shared / "link")
    LocalStore(mine)
    for root in (shared / "theirs", shared / "link"):
        with pytest.raises(StoreError, match="another user") as caught:
            LocalStore(root)
        assert caught.value.where == str(root)


def test_ones_own_link(tmp_path: Path) -> None:
    """A link that the user made to a directory of his own (a bigger disk, say) is accepted."""
    (tmp_path / "big").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "big")
    LocalStore(tmp_path / "store").put_bytes(A, b"content")
    assert (tmp_path / "big" / A).read_bytes() == b"content"


def test_planted_links_are_not_followed(tmp_path: Path) -> None:
    """A link in the place of the gate's file is refused rather than written through."""
    store = LocalStore(tmp_path / "store")
    victim = tmp_path / "victim"
    (store.root / "lock").symlink_to(victim)
    with pytest.raises(StoreError, match="symbolic link"):
        store.has(A)
    assert not victim.exists()


@pytest.mark.parametrize("place", ["store", "cache"])
def test_root_is_a_file(tmp_path: Path, place: str) -> None:
    """A file in the place of the store, or of the folder above it, is named and left alone."""
    file = tmp_path / "cache" if place == "cache" else tmp_path / "cache" / "store"
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(StoreError, match="taken by") as caught:
        LocalStore(tmp_path / "cache" / "store")
    assert caught.value.where == str(tmp_path / "cache" / "store")
    assert "LIKEWISE_CACHE" in caught.value.todo
    assert file.read_text() == "mine"


def test_root_is_a_dangling_link(tmp_path: Path) -> None:
    """A link to a place that is not there (a disk that is not mounted) is a StoreError that names it."""
    (tmp_path / "store").symlink_to(tmp_path / "unmounted")
    with pytest.raises(StoreError) as caught:
        LocalStore(tmp_path / "store")
    assert_helpful(caught.value, code="ENOENT", where=tmp_path / "store")


def test_file_in_the_way_of_a_key(tmp_path: Path) -> None:
    """A file where a key's folder should be is a StoreError, and the temporary file is gone."""
    store = LocalStore(tmp_path / "store")
    (store.root / "layers").write_text("odd")
    with pytest.raises(StoreError, match="taken by a file"):
        store.put_bytes(A, b"x")
    assert os.listdir(store.root / "tmp") == []
