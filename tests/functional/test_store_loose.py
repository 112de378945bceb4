"""What a store holds unpacked: it appears whole, is leased and expires with the archive's key, and can be damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from likewise.errors import LayerError, StoreError
from likewise.forms import Loose
from likewise.layers.loose import loose_source, write_loose, write_loose_kit
from likewise.model.digest import Digest
from likewise.model.keys import kit_key, layer_key, loose_key, loose_kit_key, loose_listing_key
from likewise.model.layer import LayerKind, LayerSource, SourceFile, encode_listing
from likewise.model.manifest import decode_manifest
from likewise.store.folder import remove
from likewise.store.local import LocalStore
from support.nodes import Content, layer, manifest_of, this_interpreter
from support.prefixes import clean_environ

HOUR = 3600.0
FILES: dict[str, Content] = {
    "purelib/a/__init__.py": b"x = 1\n",
    "purelib/a/data/large.bin": b"0123456789" * 300_000,
    "purelib/a/empty": b"",
    "purelib/a/link": "data/large.bin",
    "scripts/a": (b"#!/bin/sh\n", True),
}


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
    return LocalStore(tmp_path / "store", clock=clock)


@pytest.fixture
def source(tmp_path: Path) -> LayerSource:
    """A layer whose files lie on the disk, as those of a distribution do."""
    made = layer("a", FILES)
    files = []
    for number, file in enumerate(made.files):
        path = tmp_path / f"file-{number}"
        path.write_bytes(file.data or b"")
        files.append(SourceFile(entry=file.entry, path=str(path)))
    return LayerSource(kind=made.kind, name=made.name, version=made.version, files=files, digest=made.digest)


def put(store: LocalStore, source: LayerSource) -> Path:
    """Have the layer loose in the store; its folder."""
    with store.loose.create_layer(source.digest) as draft:
        write_loose(source, draft.tree, draft.listing)
    return store.path(loose_key(source.digest))


def nothing_left(store: LocalStore) -> bool:
    return os.listdir(store.root / "tmp") == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_loose_layer_is_the_layer(store: LocalStore, source: LayerSource, umask: int) -> None:
    """Its files have the contents and links of the layer, whatever the umask modes that nobody can write to, and are
    nobody else's; the layer that is read from it has the same digest."""
    before = os.umask(umask)
    try:
        tree = put(store, source)
    finally:
        os.umask(before)
    assert store.loose.layer(source.digest) == tree
    assert store.path(loose_listing_key(source.digest)).read_bytes() == encode_listing([f.entry for f in source.files])
    found = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_symlink() or path.is_file()}
    assert found == set(FILES)
    for name, content in FILES.items():
        path = tree / name
        if isinstance(content, str):
            assert os.readlink(path) == content
            continue
        data, executable = content if isinstance(content, tuple) else (content, False)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == (0o555 if executable else 0o444) and path.stat().st_nlink == 1
    assert {path.stat().st_mode & 0o777 for path in (tree, *tree.rglob("*")) if path.is_dir()} == {0o755}
    again = loose_source(source.kind, source.name, source.version, source.digest, tree)
    other = put(LocalStore(store.root.with_name("other")), again)
    assert (other / "scripts/a").read_bytes() == b"#!/bin/sh\n"
    assert nothing_left(store)


@pytest.mark.parametrize("change", [b"y = 1\n", b"x = 1\n\n", None], ids=["content", "size", "gone"])
def test_a_file_that_changed(store: LocalStore, source: LayerSource, change: bytes | None) -> None:
    """A file that is not what the layer says is named, and nothing of the layer appears."""
    changed = next(file for file in source.files if file.entry.path.endswith("__init__.py"))
    if change is None:
        os.unlink(changed.path)
    else:
        Path(changed.path).write_bytes(change)
    with pytest.raises(LayerError, match="changed while"):
        put(store, source)
    assert store.loose.layer(source.digest) is None and not store.path(loose_key(source.digest)).exists()
    assert nothing_left(store)


def test_another_layers_digest(store: LocalStore, source: LayerSource) -> None:
    """A layer that does not have the digest it is said to have is refused."""
    wrong = LayerSource(kind=source.kind, name="b", version="", files=source.files[:1], digest=source.digest)
    with pytest.raises(LayerError, match="digest"):
        put(store, wrong)
    assert store.loose.layer(source.digest) is None


def test_who_is_quicker_wins(store: LocalStore, source: LayerSource, clock: Clock) -> None:
    """Making what has appeared meanwhile keeps the first, succeeds, and counts as use."""
    with store.loose.create_layer(source.digest) as draft:
        write_loose(source, draft.tree, draft.listing)
        tree = put(store, source)
        first = (tree / "scripts/a").stat().st_ino
        clock.now += 5
    assert (tree / "scripts/a").stat().st_ino == first
    assert store.path(loose_listing_key(source.digest)).stat().st_mtime == clock.now
    assert nothing_left(store)


def test_writing_fails(store: LocalStore, source: LayerSource) -> None:
    """What the operating system says while a layer is written is an error of the store, and nothing remains."""
    with pytest.raises(StoreError, match="place is taken"), store.loose.create_layer(source.digest) as draft:
        draft.tree.mkdir()
        write_loose(source, draft.tree, draft.listing)
    assert store.loose.layer(source.digest) is None and nothing_left(store)


def test_expiry(store: LocalStore, source: LayerSource, clock: Clock) -> None:
    """A loose layer goes a day after its last use with its listing, and counts as one item with its content's size."""
    tree = put(store, source)
    info = store.info()
    assert (info.items, info.bytes, info.by_kind["loose"].items) == (1, source.size, 1)
    clock.now += 23 * HOUR
    assert store.loose.layer(source.digest) == tree
    clock.now += 23 * HOUR
    assert store.prune().removed == 0
    clock.now += 2 * HOUR
    report = store.prune()
    assert (report.removed, report.freed_bytes) == (1, source.size)
    assert os.listdir(tree.parent) == [] and nothing_left(store)
    assert store.loose.layer(source.digest) is None


def test_a_lease_of_the_archive_covers_it(store: LocalStore, source: LayerSource, clock: Clock) -> None:
    """Whoever leases a layer keeps it in whatever form it is there; giving it back counts as use."""
    tree = put(store, source)
    with store.lease([layer_key(source.digest)]):
        clock.now += 100 * HOUR
        assert store.info().leased == 1
        assert store.prune(everything=True).kept_leased == 1
        assert (tree / "scripts/a").exists()
    assert store.prune().removed == 0
    assert store.prune(everything=True).removed == 1


def test_a_damaged_layer_is_removed(store: LocalStore, source: LayerSource) -> None:
    """What turned out to be damaged goes, leased or not, and can be made anew."""
    with store.lease([layer_key(source.digest)]):
        put(store, source)
        assert store.loose.remove_layer(source.digest)
        assert not store.loose.remove_layer(source.digest)
        assert store.loose.layer(source.digest) is None
        assert (put(store, source) / "scripts/a").exists()
    assert nothing_left(store)


@pytest.mark.parametrize("left", [None, b""], ids=["killed", "power cut"])
def test_a_tree_without_its_listing(store: LocalStore, source: LayerSource, left: bytes | None) -> None:
    """A tree whose listing never came, or is the empty file of a power cut, is not there; it is made anew, or swept."""

    def halve() -> None:
        listing.unlink()
        if left is not None:
            listing.write_bytes(left)

    tree, listing = put(store, source), store.path(loose_listing_key(source.digest))
    (tree / "purelib/a/empty").unlink()
    halve()
    assert store.loose.layer(source.digest) is None
    assert (put(store, source) / "purelib/a/empty").exists()
    halve()
    store.prune(everything=True)
    assert not tree.exists() and not listing.exists() and nothing_left(store)


@pytest.mark.parametrize("damage", [None, "short", "gone"])
@pytest.mark.parametrize("is_kit", [False, True], ids=["layer", "kit"])
def test_what_a_power_cut_left(store: LocalStore, damage: str | None, is_kit: bool) -> None:
    """What was used before the machine was started, and has a short file or lacks one, is not there any more; what is
    whole stays, and what was used since is not looked at."""
    kit_id, look = kit(store)
    layers = [Digest(name) for name in os.listdir(store.root / "loose") if not name.endswith(".listing")]
    digest = next(each for each in layers if store.path(f"{loose_key(each)}/purelib/__pycache__").exists())
    tree = store.path(loose_kit_key(kit_id)) / "tree" if is_kit else store.path(loose_key(digest))
    damaged = tree / "purelib/both"
    if damage:
        damaged.unlink()
    if damage == "short":
        damaged.write_bytes(b"")
    mark = store.path(f"{loose_kit_key(kit_id)}/manifest.json") if is_kit else store.path(loose_listing_key(digest))
    os.utime(mark, (time.time() + 1000, time.time() + 1000))
    find = look if is_kit else lambda: store.loose.layer(digest)
    assert find() is not None
    os.utime(mark, (1, 1))
    assert (find() is None) == (damage is not None)
    assert nothing_left(store)


KILLED = """
import os, signal, sys
from pathlib import Path
from likewise.store.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
if sys.argv[3] == "written":
    with store.loose.create_layer(sys.argv[2]) as draft:
        (draft.tree / "purelib").mkdir(parents=True)
        (draft.tree / "purelib/half").write_bytes(b"x" * 1000)
        os.kill(os.getpid(), signal.SIGKILL)
renames = 0
def rename(old, new, *, rename=os.rename):
    global renames
    renames += 1
    if renames == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(old, new)
os.rename = rename
with store.loose.create_layer(sys.argv[2]) as draft:
    draft.tree.mkdir()
    (draft.tree / "half").write_bytes(b"x" * 1000)
    draft.listing.write_bytes(b"x")
"""


@pytest.mark.parametrize("moment", ["written", "2", "3"])
def test_killed_in_the_middle(store: LocalStore, source: LayerSource, moment: str) -> None:
    """Whoever is killed while a layer is made leaves nothing that can be seen, and what is left can be swept."""
    argv = [sys.executable, "-c", KILLED, str(store.root), source.digest, moment]
    done = subprocess.run(argv, env=clean_environ(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.loose.layer(source.digest) is None
    report = store.prune()
    assert report.swept == (2 if moment == "3" else 1)
    assert report.freed_bytes >= 1000 and report.removed == 0
    assert nothing_left(store) and not store.path(loose_key(source.digest)).exists()
    assert (put(store, source) / "scripts/a").exists()


def test_what_is_being_made_is_spared(store: LocalStore, source: LayerSource) -> None:
    """Pruning does not touch a layer that a living process is making."""
    with store.loose.create_layer(source.digest) as draft:
        write_loose(source, draft.tree, draft.listing)
        assert store.prune(everything=True).swept == 0
    assert store.loose.layer(source.digest) is not None


def test_whether_a_cache_can_be_served(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder on the same file system can be served, and is left empty; one elsewhere, or without links, can't."""
    cache = tmp_path / "new" / "cache"
    assert store.loose.can_serve(cache)
    assert os.listdir(cache) == [] and nothing_left(store)
    elsewhere = Path("/dev/shm")
    if elsewhere.is_dir() and elsewhere.stat().st_dev != tmp_path.stat().st_dev:
        assert not store.loose.can_serve(elsewhere / f"likewise-test-{os.getpid()}")
        os.rmdir(elsewhere / f"likewise-test-{os.getpid()}")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert not store.loose.can_serve(cache)
    assert os.listdir(cache) == []


def kit(store: LocalStore) -> tuple[Digest, Callable[[], Path | None]]:
    """A loose kit of two layers that own one path; its id, and what looks for it."""
    binary = f"interpreter/bin/{this_interpreter().python}"
    files: dict[str, Content] = {binary: (b"#!/bin/sh\n", True), "interpreter/lib/l": "../bin"}
    python = layer("python", files, kind=LayerKind.INTERPRETER)
    dask = layer("dask", {"purelib/dask.py": b"", "purelib/both": b"1"})
    code = layer("dask", {"purelib/__pycache__/dask.cpython-311.pyc": b"2", "purelib/both": b"1"})
    manifest = manifest_of(python, dask, bytecode={"dask": code})
    for each in (python, dask, code):
        put(store, each)
    with store.loose.create_kit(manifest.id) as draft:
        write_loose_kit(manifest, store.loose.layer, draft.tree)
    return manifest.id, lambda: store.loose.kit(manifest.id)


def test_a_kit(store: LocalStore, clock: Clock) -> None:
    """A loose kit has what unpacking the kit's file would give, as further names of its layers' files; it costs no
    space, is leased as the kit, and expires."""
    kit_id, look = kit(store)
    folder = look()
    assert folder is not None
    binary = f"interpreter/bin/{this_interpreter().python}"
    assert (folder / "python").read_text() == f"tree/{binary}\n"
    tree = folder / "tree"
    names = {p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_symlink() or not p.is_dir()}
    files = {"purelib/dask.py", "purelib/both", "purelib/__pycache__/dask.cpython-311.pyc"}
    assert names == {binary, "interpreter/lib/l", *files}
    assert os.readlink(tree / "interpreter/lib/l") == "../bin"
    assert len(os.listdir(folder / "listings")) == 3
    assert (tree / "purelib/dask.py").stat().st_nlink == 2
    assert store.info().by_kind["loose-kits"].bytes == 0
    with store.lease([kit_key(kit_id)]):
        clock.now += 100 * HOUR
        report = store.prune(timedelta(seconds=1))
        assert (report.removed, report.kept_leased) == (3, 1)
    assert store.prune(everything=True).removed == 1
    assert look() is None and nothing_left(store)


def test_a_kit_that_lacks_a_layer(store: LocalStore) -> None:
    """A kit whose layer is not there is refused by name; bytecode that is not there is left out."""
    dask = layer("dask", {"purelib/dask.py": b""})
    manifest = manifest_of(dask)
    with pytest.raises(LayerError, match="not there"), store.loose.create_kit(manifest.id) as draft:
        write_loose_kit(manifest, store.loose.layer, draft.tree)
    assert store.loose.kit(manifest.id) is None and nothing_left(store)


@pytest.mark.parametrize("lost", ["tree/interpreter/bin", "python"])
def test_a_kit_that_is_not_whole_is_made_anew(store: LocalStore, lost: str) -> None:
    """A kit without its interpreter can start nothing: whoever needs it next makes it once more."""
    kit_id, look = kit(store)
    folder = look()
    assert folder is not None
    manifest = decode_manifest((folder / "manifest.json").read_bytes(), kit_id)
    assert Loose(store).put_kit(manifest, {}) == (kit_id, False)
    remove(folder / lost)
    assert Loose(store).put_kit(manifest, {}) == (kit_id, True)
    assert (folder / lost).exists()


@pytest.mark.parametrize("damage", ["listing", "file"])
def test_a_damaged_layer_of_a_kit_is_removed(store: LocalStore, damage: str) -> None:
    """No kit is made of a damaged layer; it is named, and goes, so that it is made anew. The others stay."""
    kit_id, look = kit(store)
    folder = look()
    assert folder is not None
    manifest = decode_manifest((folder / "manifest.json").read_bytes(), kit_id)
    python, dask = (ref.digest for ref in manifest.layers)
    store.loose.remove_kit(kit_id)
    if damage == "listing":
        store.path(loose_listing_key(dask)).write_text("garbage")
    else:
        (store.path(loose_key(dask)) / "purelib/dask.py").unlink()
    with pytest.raises(LayerError, match="dask"):
        Loose(store).put_kit(manifest, {})
    assert store.loose.layer(python) is not None
    assert store.loose.layer(dask) is None and look() is None
