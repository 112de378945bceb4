"""The archives of an agent: whole ones, parts of such, those of a store, and those packed from unpacked layers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from likewise.model.digest import Digest, digest_bytes
from likewise.model.keys import layer_key, manifest_key
from likewise.node.cache import NodeCache, open_cache
from likewise.node.layers import LayerShelf
from likewise.node.sources import DirectoryStore
from likewise.node.unpack import DamagedCopy
from likewise.transport.archives import Archive, Archives
from support.nodes import archive, layer, put

ONE = layer(
    "one", {"purelib/one/__init__.py": b"1\n" * 5000, "purelib/one/link": "__init__.py", "scripts/s": (b"#!", True)}
)
DATA = archive(ONE)


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return open_cache(str(tmp_path / "cache"))


@pytest.fixture
def archives(cache: NodeCache) -> Archives:
    return Archives(cache)


def receive(archives: Archives, data: bytes = DATA, *, announced: bytes = DATA) -> Archive | None:
    """Receive an archive in two pieces; None when it was not the one announced."""
    part = archives.receive(ONE.digest, digest_bytes(announced), len(announced))
    try:
        part.append(data[:7])
        part.append(data[7:])
        return part.publish() if part.is_announced() else part.discard()
    finally:
        part.close()


def test_received_archive_is_found(archives: Archives) -> None:
    """An archive is found, and its bytes can be read, once it was received and published."""
    assert archives.find(ONE.digest) is None
    found = receive(archives)
    assert found and archives.find(ONE.digest) == found and archives.whole() == [ONE.digest]
    assert archives.read(found, 3, 10) == DATA[3:13]
    archives.check(found)


def test_part_is_not_found_and_goes_on(archives: Archives) -> None:
    """What was received of an archive counts for nothing, and is there when the rest comes."""
    part = archives.receive(ONE.digest, digest_bytes(DATA), len(DATA))
    part.append(DATA[:100])
    part.close()
    assert archives.find(ONE.digest) is None and archives.whole() == []
    part = archives.receive(ONE.digest, digest_bytes(DATA), len(DATA))
    assert part.size == 100 and not part.is_announced()
    part.append(DATA[100:])
    assert part.is_announced()
    part.publish()
    part.close()
    assert os.listdir(archives.folder) == [f"{ONE.digest}.{digest_bytes(DATA)}"]


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"?", DATA[:-1] + bytes([DATA[-1] ^ 1])])
def test_other_bytes_are_not_the_announced_ones(archives: Archives, data: bytes) -> None:
    """A byte too few, too many or wrong, and the archive is not what was announced."""
    assert receive(archives, data) is None
    assert os.listdir(archives.folder) == []


def test_only_one_receives(archives: Archives, cache: NodeCache) -> None:
    """A second agent that receives the same archive into the same cache hears that it is not alone."""
    part = archives.receive(ONE.digest, digest_bytes(DATA), len(DATA))
    with pytest.raises(BlockingIOError):
        Archives(cache).receive(ONE.digest, digest_bytes(DATA), len(DATA))
    part.close()
    assert receive(Archives(cache))


def test_removal_takes_all_of_a_layer(archives: Archives, tmp_path: Path, cache: NodeCache) -> None:
    """Removing a damaged layer removes its archives, its parts and the store's copy, and nothing else."""
    other = layer("other", {"purelib/other.py": b""})
    store = tmp_path / "store"
    put(store, ONE, other)
    with_store = Archives(cache, str(store))
    receive(archives)
    archives.receive(ONE.digest, digest_bytes(b"?"), 1).close()
    with_store.remove(ONE.digest)
    assert os.listdir(archives.folder) == []
    assert with_store.find(ONE.digest) is None and with_store.find(other.digest)


def test_store_is_served_as_it_is_now(cache: NodeCache, tmp_path: Path) -> None:
    """A store's archive is known by its bytes, those of the present file."""
    archives = Archives(cache, str(tmp_path / "store"))
    put(tmp_path / "store", ONE)
    path = tmp_path / "store" / layer_key(ONE.digest)
    found = archives.find(ONE.digest)
    assert found == Archive(ONE.digest, digest_bytes(DATA), len(DATA), str(path))
    path.write_bytes(DATA + b"?")
    found = archives.find(ONE.digest)
    assert found and found.sha256 == digest_bytes(DATA + b"?")
    with pytest.raises(DamagedCopy):
        archives.check(found)


def test_manifests_of_the_store_are_checked(cache: NodeCache, tmp_path: Path) -> None:
    """A store's manifest is given when it is what its id says, else not."""
    archives = Archives(cache, str(tmp_path))
    (tmp_path / "manifests").mkdir()
    for name in (digest_bytes(b"{}"), digest_bytes(b"other")):
        (tmp_path / manifest_key(name)).write_bytes(b"{}")
    assert archives.stored_manifest(digest_bytes(b"{}")) == b"{}"
    assert archives.stored_manifest(digest_bytes(b"other")) is None
    assert archives.stored_manifest(Digest("../secret")) is None


@pytest.fixture
def unpacked(cache: NodeCache, tmp_path: Path) -> Path:
    """The layer's folder in the cache."""
    put(tmp_path / "store", ONE)
    LayerShelf(cache, [DirectoryStore(str(tmp_path / "store"))]).get(ONE.digest, "one")
    return Path(cache.layer(ONE.digest))


def test_unpacked_layer_is_packed_again(archives: Archives, unpacked: Path) -> None:
    """An archive made from an unpacked layer is a sound archive of it, and is kept."""
    assert archives.unpacked() == [ONE.digest] and archives.find(ONE.digest) is None
    made = archives.pack(ONE.digest)
    assert made and archives.find(ONE.digest) == made
    archives.check(made)


@pytest.mark.parametrize("damage", ["changed", "longer", "missing", "link"])
def test_damaged_unpacked_layer_is_not_packed(archives: Archives, unpacked: Path, damage: str) -> None:
    """A file that was changed, made longer, removed or replaced by a link is found out, and no archive remains."""
    path = unpacked / "purelib/one/__init__.py"
    data = path.read_bytes()
    path.unlink()
    if damage == "link":
        path.symlink_to("/etc/hostname")
    elif damage != "missing":
        path.write_bytes(data[:-1] + b"?" if damage == "changed" else data + b"?")
    with pytest.raises(DamagedCopy, match=r"one/__init__\.py"):
        archives.pack(ONE.digest)
    assert os.listdir(archives.folder) == []


def test_layer_that_is_not_there_is_not_packed(archives: Archives) -> None:
    """No archive is made of a layer that is not in the cache."""
    assert archives.pack(ONE.digest) is None
    assert os.listdir(archives.folder) == []
