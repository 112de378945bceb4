"""Layers are packed while nodes read the store: real files, threads and processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from likewise.errors import LayerError, LikewiseError
from likewise.events import Notice
from likewise.forms import Loose, Packed, in_any_form, source_in_store
from likewise.layers.pack import write_archive
from likewise.model.keys import LEASES, layer_key, loose_key, promise_key
from likewise.model.layer import LayerSource
from likewise.node.sources import DirectoryStore
from likewise.packing import Last, Packing
from likewise.store.local import LocalStore
from likewise.threads import NICE
from support.nodes import layer

MANY = 8
SIZE = 3_000_000


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was just started needs no time for itself here."""
    monkeypatch.setattr("likewise.packing.QUIET", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def layers(count: int = MANY, size: int = SIZE) -> list[LayerSource]:
    """Layers with one file each."""
    return [layer(f"l{number}", {f"purelib/l{number}.bin": bytes([number]) * size}) for number in range(count)]


class Running:
    """A packing that goes on for as long as the block lasts, and what it said."""

    def __init__(
        self, sources: list[LayerSource], store: LocalStore, jobs: int = 1, awaited: Sequence[LayerSource] = (),
        soon: Sequence[LayerSource] = (), progress: Callable[[int], None] | None = None, launched: bool = True,
    ) -> None:  # fmt: skip
        self.sources, self.store, self.jobs, self.launched = sources, store, jobs, launched
        self.awaited, self.soon = ([source.digest for source in each] for each in (awaited, soon))
        self.progress = progress
        self.notices: list[Notice] = []
        self.done = threading.Event()

    def __enter__(self) -> Packing:
        form = Packed(self.store, level=1)
        self.packing = Packing(
            self.sources, self.store, form, jobs=self.jobs, notify=self.notices.append, done=self.done.set,
            awaited=self.awaited, soon=self.soon, progress=self.progress,
        )  # fmt: skip
        if self.launched:
            self.packing.launched()
        return self.packing

    def __exit__(self, *exception: object) -> None:
        self.packing.close()


class Slowly:
    """Every archive is written when the test allows it; `begun` are those whose turn has come, `nice` is how much
    whoever packs them gives way."""

    def __init__(self) -> None:
        self.allowed: set[str] = set()
        self.begun: list[str] = []
        self.nice: dict[str, int] = {}

    def allow(self, *names: str) -> None:
        """Have these written, once their turn has come."""
        self.allowed.update(names)

    def write(self, source: LayerSource, out: BinaryIO, *, level: int, progress: Callable[[int], None]) -> None:
        """What stands in for `write_archive`."""
        self.nice[source.name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.begun.append(source.name)
        while source.name not in self.allowed:
            time.sleep(0.02)
            progress(0)
        write_archive(source, out, level=level, progress=progress)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Slowly:
    found = Slowly()
    monkeypatch.setattr("likewise.forms.write_archive", found.write)
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
    packed = Running(sources, store, jobs=2)
    with packed as packing:
        packing.finish()
        assert all(store.has(layer_key(source.digest)) for source in sources)
        assert packed.done.wait(10)
    assert packed.notices == []
    assert list((store.root / LEASES).iterdir()) == []


def test_what_is_waited_for_comes_first(store: LocalStore, slowly: Slowly) -> None:
    """The layer that a node waits for is begun while another one is being packed, at full priority; then the one that
    the client waits for, and then all others, which give way to other processes."""
    sources = layers(size=1000)
    with ThreadPoolExecutor(2) as pool, Running(sources, store) as packing:
        until(lambda: slowly.begun == ["l0"])
        node = pool.submit(lambda: DirectoryStore(str(store.root)).open(sources[-1].digest))
        until(lambda: slowly.begun == ["l0", "l7"])
        client = pool.submit(packing.wait, sources[-2].digest)
        until(lambda: sources[-2].digest in packing._awaited)
        slowly.allow("l0", "l7", "l6")
        node.result(30).close()
        client.result(30)
        until(lambda: len(slowly.begun) == 4)
    assert set(slowly.begun[2:4]) == {"l6", "l1"}
    assert {name for name, nice in slowly.nice.items() if nice < NICE} == {"l7", "l6"}


def test_a_layer_and_its_bytecode_come_together(store: LocalStore, slowly: Slowly) -> None:
    """Who waits for one of two layers of the same name will wait for the other, which is packed at once, too."""
    sources = [*layers(4, size=1000), layer("l1", {"purelib/l1.pyc": b"1"})]
    slowly.allow("l1")
    with ThreadPoolExecutor(1) as pool, Running(sources, store, launched=False) as packing:
        pool.submit(packing.wait, sources[1].digest).result(30)
        until(lambda: store.has(layer_key(sources[4].digest)))
        assert slowly.begun == ["l1", "l1"]


def test_what_the_client_waits_for_comes_first(store: LocalStore, slowly: Slowly) -> None:
    """Layers that are awaited are begun before all others and at full priority, though they stand behind them; whoever
    waits for them goes on while the others are missing."""
    sources = layers(4, size=1000)
    with Running(sources, store, awaited=sources[2:]) as packing:
        until(lambda: len(slowly.begun) == 1)
        assert slowly.begun == ["l2"]
        slowly.allow("l2", "l3")
        packing.wait(sources[2].digest, sources[3].digest)
        until(lambda: len(slowly.begun) == 3)
    assert set(slowly.begun) == {"l2", "l3", "l0"}
    assert {name for name, nice in slowly.nice.items() if nice < NICE} == {"l2", "l3"}


def test_the_rest_waits_until_all_has_started(store: LocalStore, slowly: Slowly) -> None:
    """While nodes start only what is waited for is packed, and what will be needed soon, which gives way to the nodes'
    processes; then the others are, too."""
    sources = layers(5, size=1000)
    slowly.allow(*(source.name for source in sources))
    with Running(sources, store, awaited=sources[3:4], soon=sources[:1], launched=False) as packing:
        packing.wait(sources[3].digest)
        until(lambda: set(slowly.begun) == {"l3", "l0"})
        packing.wait(sources[4].digest)
        time.sleep(0.2)
        assert set(slowly.begun) == {"l3", "l0", "l4"}
        assert {name for name, nice in slowly.nice.items() if nice < NICE} == {"l3", "l4"}
        packing.launched()
        until(lambda: len(slowly.begun) == 5)


def test_progress_is_told_to_whoever_waits(store: LocalStore) -> None:
    """All bytes of the layers are told of; an error is then raised where it is waited for, and told nowhere else."""
    sound, spoilt = layers(2, size=1000)
    told: list[int] = []
    packed = Running([sound], store, progress=told.append)
    with packed as packing:
        packing.finish()
    assert sum(told) == sound.size
    broken = LayerSource(
        kind=spoilt.kind, name=spoilt.name, version=spoilt.version, digest=spoilt.digest, files=sound.files
    )
    packed = Running([broken], store, progress=told.append)
    with packed as packing, pytest.raises(LikewiseError):
        packing.finish()
    assert packed.notices == []


def test_loose(store: LocalStore) -> None:
    """In the loose form the same layers lie unpacked, and there is no archive."""
    sources = layers(size=1000)
    packing = Packing(sources, store, Loose(store), jobs=2, notify=lambda _: None, done=lambda: None)
    packing.finish()
    packing.close()
    assert all(store.loose.layer(source.digest) for source in sources)
    assert store.info().by_kind.keys() == {"loose"}


def test_what_only_the_store_has(store: LocalStore) -> None:
    """A layer whose sources are gone is found in whichever form the store has it, and can be had in the other one; a
    damaged one is named and removed, so that it is made anew."""
    first, second, third = layers(3, size=1000)
    Packed(store, level=1).put(first, lambda _: None)
    Loose(store).put(second, lambda _: None)
    for source, other in (first, Loose(store)), (second, Packed(store, level=1)):
        found = source_in_store(store, source.kind, source.name, source.version, source.digest)
        assert found is not None and not other.have([source.digest])
        other.put(found, lambda _: None)
        assert other.have([source.digest])
    assert source_in_store(store, third.kind, third.name, third.version, third.digest) is None
    store.remove(layer_key(second.digest))
    damaged = store.path(loose_key(second.digest)) / "purelib/l1.bin"
    damaged.chmod(0o600)
    damaged.write_bytes(bytes(1000))
    found = source_in_store(store, second.kind, second.name, second.version, second.digest)
    assert found is not None
    with pytest.raises(LayerError, match="changed while"):
        Packed(store, level=1).put(found, lambda _: None)
    assert not in_any_form(store, [second.digest])


def test_a_layer_that_changed_meanwhile(store: LocalStore, slowly: Slowly) -> None:
    """A layer that is not what it was is named; whoever waits for it hears that, and the others are packed."""
    sound, spoilt = layers(2)
    broken = LayerSource(
        kind=spoilt.kind, name=spoilt.name, version=spoilt.version, digest=spoilt.digest, files=sound.files
    )
    packed = Running([broken, sound], store)
    with ThreadPoolExecutor(1) as pool, packed as packing:
        node = pool.submit(lambda: DirectoryStore(str(store.root)).open(broken.digest))
        slowly.allow(broken.name, sound.name)
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
    packed = Running(sources, store)
    with packed:
        slowly.allow("l0")
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
