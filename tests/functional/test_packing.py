"""Layers are packed while nodes read the store: real files, threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from likewise.errors import LikewiseError
from likewise.events import Notice
from likewise.layers.pack import write_archive
from likewise.model.keys import LEASES, WANTED, layer_key, promise_key
from likewise.model.layer import LayerSource
from likewise.node.sources import DirectoryStore
from likewise.packing import Last, Packing
from likewise.store.local import LocalStore
from support.nodes import layer

MANY = 8
SIZE = 3_000_000


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def layers(count: int = MANY, size: int = SIZE) -> list[LayerSource]:
    """Layers with one file each."""
    return [layer(f"l{number}", {f"purelib/l{number}.bin": bytes([number]) * size}) for number in range(count)]


class Packed:
    """A packing that goes on for as long as the block lasts, and what it said."""

    def __init__(self, sources: list[LayerSource], store: LocalStore, jobs: int = 1) -> None:
        self.sources, self.store, self.jobs = sources, store, jobs
        self.notices: list[Notice] = []
        self.done = threading.Event()

    def __enter__(self) -> Packing:
        self.packing = Packing(
            self.sources, self.store, level=1, jobs=self.jobs, notify=self.notices.append, done=self.done.set
        )
        return self.packing

    def __exit__(self, *exception: object) -> None:
        self.packing.close()


class Slowly(threading.Semaphore):
    """Every archive is written when the test allows it; `begun` are those whose turn has come."""

    def __init__(self) -> None:
        super().__init__(0)
        self.begun: list[str] = []

    def write(self, source: LayerSource, out: BinaryIO, *, level: int, progress: Callable[[int], None]) -> None:
        """What stands in for `write_archive`."""
        self.begun.append(source.name)
        while not self.acquire(timeout=0.02):
            progress(0)
        write_archive(source, out, level=level, progress=progress)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Slowly:
    found = Slowly()
    monkeypatch.setattr("likewise.packing.write_archive", found.write)
    return found


def until(what: Callable[[], object]) -> None:
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_of_it_is_packed(store: LocalStore) -> None:
    """Whoever finishes finds every layer in the store, no promise is left, and what was needed may go."""
    sources = layers()
    packed = Packed(sources, store, jobs=2)
    with packed as packing:
        packing.finish()
        assert all(store.has(layer_key(source.digest)) for source in sources)
        assert packed.done.wait(10)
    assert packed.notices == []
    assert list((store.root / LEASES).iterdir()) == []


def test_what_is_waited_for_comes_first(store: LocalStore, slowly: Slowly) -> None:
    """The client, and a node that reads the store, get the layer they wait for before those that were not begun."""
    sources = layers(size=1000)
    with ThreadPoolExecutor(2) as pool, Packed(sources, store) as packing:
        until(lambda: slowly.begun == ["l0"])
        node = pool.submit(lambda: DirectoryStore(str(store.root)).open(sources[-1].digest))
        until(lambda: (store.root / WANTED / sources[-1].digest).exists())
        slowly.release(2)
        node.result(30).close()
        until(lambda: len(slowly.begun) == 3)
        client = pool.submit(packing.wait, sources[-2].digest)
        until(lambda: client.running() and next(iter(packing._waiting)) == sources[-2].digest)
        slowly.release(2)
        client.result(30)
    assert slowly.begun[:4] == ["l0", "l7", "l1", "l6"]


def test_a_layer_that_changed_meanwhile(store: LocalStore, slowly: Slowly) -> None:
    """A layer that is not what it was is named; whoever waits for it hears that, and the others are packed."""
    sound, spoilt = layers(2)
    broken = LayerSource(
        kind=spoilt.kind, name=spoilt.name, version=spoilt.version, digest=spoilt.digest, files=sound.files
    )
    packed = Packed([broken, sound], store)
    with ThreadPoolExecutor(1) as pool, packed as packing:
        node = pool.submit(lambda: DirectoryStore(str(store.root)).open(broken.digest))
        slowly.release(2)
        with pytest.raises(FileNotFoundError):
            node.result(20)
        with pytest.raises(LikewiseError):
            packing.wait(broken.digest)
        with pytest.raises(LikewiseError):
            packing.finish()
        packing.wait(sound.digest)
    assert [notice.subject for notice in packed.notices] == [broken.name]


def test_closing_leaves_nothing_half_written(store: LocalStore, slowly: Slowly) -> None:
    """Who closes stops what is being packed; no promise, no temporary file and no half archive is left."""
    sources = layers()
    packed = Packed(sources, store)
    with packed:
        slowly.release(1)
    assert packed.done.is_set()
    assert list((store.root / LEASES).iterdir()) == [] and list((store.root / "tmp").iterdir()) == []
    assert not store.has(layer_key(sources[-1].digest))


def test_nobody_waits_for_a_client_that_was_killed(store: LocalStore) -> None:
    """kill -9 ends a promise: a node that waited for the layer goes on at once."""
    (source,) = layers(1)
    code = (
        "import sys, time; from pathlib import Path; from likewise.store.local import LocalStore\n"
        f"lease = LocalStore(Path({str(store.root)!r})).lease([{promise_key(source.digest)!r}])\n"
        "print('leased', flush=True); time.sleep(600)"
    )
    client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert client.stdout and client.stdout.readline() == b"leased\n"
        with ThreadPoolExecutor(1) as pool:
            node = pool.submit(lambda: DirectoryStore(str(store.root)).open(source.digest))
            time.sleep(0.2)
            assert not node.done()
            client.kill()
            with pytest.raises(FileNotFoundError):
                node.result(20)
    finally:
        client.kill()
        client.wait()
        assert client.stdout
        client.stdout.close()


def test_what_two_need_goes_when_both_are_done() -> None:
    """Packing may end before the kit is made of the same files, and the other way round."""
    gone: list[str] = []
    kept = Last(2, lambda: gone.append("files"))
    kept.release()
    assert gone == []
    kept.release()
    assert gone == ["files"]
