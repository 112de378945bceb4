"""A node whose prefix is linked straight from where a store on its machine has the layers unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from likewise.errors import NodeError
from likewise.model.keys import loose_key, loose_kit_key, loose_listing_key, promise_key
from likewise.model.layer import LayerKind, LayerSource
from likewise.node.base import make_base
from likewise.node.cache import NodeCache, open_cache
from likewise.node.expiry import prune
from likewise.node.growing import Growing, is_whole, key
from likewise.node.materialise import materialise
from likewise.node.sources import DirectoryStore, UnpackedKit
from likewise.node.verify import verify_prefix
from likewise.store.local import LocalStore
from support.nodes import (
    SHELLS,
    distribution,
    layer,
    manifest_of,
    put,
    put_loose,
    put_loose_kit,
    put_manifest,
    real_kit,
    start,
)
from support.prefixes import clean_environ
from support.streams import Stream, content, eventually, make_stream

ONE = distribution(
    "one",
    {
        "purelib/one/__init__.py": b"def main(): print('one')\n",
        "purelib/one/deep/x.py": b"x\n",
        "purelib/one/link.py": "__init__.py",
        "purelib/both.py": b"both\n",
        "purelib/one.libs/lib.so": (b"elf", True),
        "scripts/tool": (b"#!python\nprint('tool')\n", True),
        "scripts/other": (b"#!/bin/sh\necho other\n", True),
        "data/share/icon": b"icon",
    },
    entry_points="[console_scripts]\none = one:main\n",
)
TWO = distribution(
    "two",
    {"purelib/both.py": b"both\n", "purelib/two/näme 🚀.py": b"2\n"},
    entry_points="[console_scripts]\ntwo = two:main\n",
)
PYC = layer("one", {"purelib/one/__pycache__/__init__.cpython-311.pyc": b"pyc"}, kind=LayerKind.BYTECODE)
CODE = layer("code-1", {"code/code-1/mine.py": b"m\n"}, kind=LayerKind.CODE)
MANIFEST = manifest_of(ONE, TWO, CODE, bytecode={"one": PYC}, after=("code-1",))
EVERY = (ONE, TWO, CODE, PYC)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return open_cache(str(tmp_path / "cache"))


def make(cache: NodeCache, store: Path) -> Path:
    return Path(materialise(cache, MANIFEST, [DirectoryStore(str(store))], helpers=2))


def differences(prefix: Path) -> list[tuple[str, str, str]]:
    """What verify finds, without the interpreter, which these prefixes don't have."""
    found = verify_prefix(str(prefix)).differences
    return [(d.kind.value, d.layer, d.subject) for d in found if d.subject != "python"]


def state(root: Path) -> dict[str, object]:
    """Everything beneath a folder with its times, and those of the folders, which tell what was in them meanwhile."""
    times = {str(path.relative_to(root)): path.lstat().st_mtime_ns for path in root.rglob("*")}
    return {path: (what, times[path]) for path, what in content(root).items()}


def loose(store: Path, source: LayerSource) -> Path:
    return store / loose_key(source.digest)


def listing(store: Path, source: LayerSource) -> Path:
    return store / loose_listing_key(source.digest)


def test_the_same_as_from_archives(cache: NodeCache, store: Path, tmp_path: Path) -> None:
    """The prefix has the same files, contents and modes; they are the store's own, and nothing is written there."""
    put(tmp_path / "packed", *EVERY)
    packed = content(make(cache, tmp_path / "packed"))
    shutil.rmtree(cache.root)
    put_loose(store, *EVERY)
    before = {source.name: state(loose(store, source)) for source in EVERY}
    prefix = make(open_cache(cache.root), store)
    assert content(prefix) == packed
    assert {source.name: state(loose(store, source)) for source in EVERY} == before
    assert os.listdir(cache.place("layers")) == os.listdir(cache.place("tmp")) == []
    linked = loose(store, ONE) / "purelib/one/deep/x.py"
    assert linked.samefile(prefix / f"lib/{MANIFEST.python}/site-packages/one/deep/x.py")
    assert differences(prefix) == []


def test_use_is_noted(cache: NodeCache, store: Path) -> None:
    """A layer that a node takes counts as used, so that the store keeps it."""
    put_loose(store, *EVERY)
    for source in EVERY:
        os.utime(listing(store, source), (1, 1))
    began = time.time() - 1
    make(cache, store)
    assert all(listing(store, source).stat().st_mtime > began for source in EVERY)


def test_verified_without_the_store(cache: NodeCache, store: Path) -> None:
    """When the store has nothing of it any more, every file of the prefix is still compared with what it should be."""
    put_loose(store, *EVERY)
    prefix = make(cache, store)
    shutil.rmtree(store)
    assert differences(prefix) == []
    for path in ("bin/tool", "bin/one", f"lib/{MANIFEST.python}/site-packages/one/__init__.py", "share/icon"):
        file = prefix / path
        old = file.read_bytes(), file.stat().st_mode
        file.unlink()
        file.write_bytes(old[0] + b"#")
        file.chmod(old[1])
        assert differences(prefix) == [("changed", "one", path)]
        file.unlink()
        file.write_bytes(old[0])
        file.chmod(old[1])
    assert differences(prefix) == []


@pytest.mark.parametrize("path", ["{}/scripts/tool", "{}.listing"])
def test_what_is_kept_for_verifying_is_verified(cache: NodeCache, store: Path, path: str) -> None:
    """What the cache keeps of a layer to compare with is compared with the layer's digest itself."""
    put_loose(store, *EVERY)
    prefix = make(cache, store)
    kept = Path(path.format(cache.linked(ONE.digest)))
    data = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(data.replace(b"t", b"T"))
    assert "one" in {name for _, name, _ in differences(prefix)}


def test_what_is_kept_goes_with_the_prefix(cache: NodeCache, store: Path) -> None:
    """What the cache keeps of a layer stays as long as a prefix has it, and goes after it."""
    put_loose(store, *EVERY)
    make(cache, store)
    listings = {f"{source.digest}.listing" for source in EVERY}
    prune(cache)
    assert listings < set(os.listdir(cache.place("linked")))
    prune(cache, max_age=timedelta(seconds=-1))
    assert os.listdir(cache.place("linked")) == os.listdir(cache.place("prefixes")) == []
    assert loose(store, ONE).exists()


def truncated(store: Path) -> None:
    file = loose(store, ONE) / "purelib/one/deep/x.py"
    file.unlink()
    file.touch(0o444)


def missing(store: Path) -> None:
    (loose(store, ONE) / "purelib/one/deep/x.py").unlink()


def folder(store: Path) -> None:
    missing(store)
    (loose(store, ONE) / "purelib/one/deep/x.py").mkdir()


def no_folder(store: Path) -> None:
    shutil.rmtree(loose(store, ONE) / "purelib/one/deep")
    (loose(store, ONE) / "purelib/one/deep").touch()


def gone(store: Path) -> None:
    shutil.rmtree(loose(store, ONE))


def wrong_listing(store: Path) -> None:
    listing(store, ONE).chmod(0o644)
    listing(store, ONE).write_bytes(listing(store, TWO).read_bytes())


def empty_listing(store: Path) -> None:
    listing(store, ONE).chmod(0o644)
    listing(store, ONE).write_bytes(b"")


DAMAGES = [truncated, missing, folder, no_folder, gone, wrong_listing, empty_listing]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(cache: NodeCache, store: Path, damage: Callable[[Path], None]) -> None:
    """A layer that is not whole is not used, and named; the client finds it missing and makes it anew."""
    put_loose(store, *EVERY)
    damage(store)
    with pytest.raises(NodeError, match="No source has a sound copy") as caught:
        make(cache, store)
    assert caught.value.where == "one"
    assert not listing(store, ONE).exists() and listing(store, TWO).exists()
    assert os.listdir(cache.place("prefixes")) == os.listdir(cache.place("tmp")) == []
    shutil.rmtree(loose(store, ONE), ignore_errors=True)
    put_loose(store, ONE)
    assert differences(make(cache, store)) == []


def test_all_of_them_damaged(cache: NodeCache, store: Path) -> None:
    """A disk that lost power may have lost many files: each of their layers is taken from elsewhere at once."""
    put_loose(store, *EVERY)
    put(store, *EVERY)
    for source in EVERY:
        for file in loose(store, source).rglob("*.p*"):
            if not file.is_symlink():
                file.unlink()
                file.touch(0o444)
    assert differences(make(cache, store)) == []
    assert not any(listing(store, source).exists() for source in EVERY)


def test_whichever_form_comes_first(cache: NodeCache, store: Path) -> None:
    """A node waits for a layer that a living client is about to make, and takes it in the form that it gets."""
    put_loose(store, TWO, CODE)
    store.chmod(0o700)
    promises = LocalStore(store).lease([promise_key(ONE.digest), promise_key(PYC.digest)])

    def make_both() -> None:
        for source, form in ((ONE, put_loose), (PYC, put)):
            eventually(lambda source=source: (store / "wanted" / source.digest).exists())
            form(store, source)

    client = threading.Thread(target=make_both)
    client.start()
    with promises:
        prefix = make(cache, store)
    client.join()
    assert differences(prefix) == []
    assert os.listdir(cache.place("layers")) != [] and listing(store, ONE).exists()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system than that of the tests."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="likewise-test-") as made:
        yield Path(made)


def test_another_file_system(elsewhere: Path, store: Path) -> None:
    """Where the cache can't have links to the store's files it has copies, and the same modes."""
    put_loose(store, *EVERY)
    assert store.stat().st_dev != elsewhere.stat().st_dev
    prefix = make(open_cache(str(elsewhere / "cache")), store)
    assert differences(prefix) == []
    own = loose(store, ONE) / "purelib/one.libs/lib.so"
    copy = prefix / f"lib/{MANIFEST.python}/site-packages/one.libs/lib.so"
    assert copy.stat().st_nlink == 1 and copy.stat().st_mode == own.stat().st_mode == 0o100555


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    """An environment with everything loose, its kit as well, and nothing packed."""
    made = make_stream(tmp_path / "stream", ONE, TWO, bytecode={"one": PYC})
    put_loose(made.store, *real_kit().layers, ONE, TWO, PYC)
    put_loose_kit(made.store, real_kit().manifest)
    yield made
    eventually(lambda: made.filler() is None)


def in_place(stream: Stream) -> dict[str, object]:
    """How to start it with the kit where it lies."""
    kit = stream.store / loose_kit_key(real_kit().manifest.id)
    return {"kit": str(kit), "kit_sha256": ""}


STAY = "import sys; print('up', flush=True); sys.stdin.read()"


def test_streaming(stream: Stream) -> None:
    """A prefix that grew comes to the same as one that was made at once; the kit is used where it lies, untouched."""
    before = {kind: state(stream.store / kind) for kind in ("loose", "loose-kits")}
    used = {str(path) for path in before["loose"] if path.endswith(".listing")}
    with stream.running(STAY, **in_place(stream)) as process:
        assert process.stdout and process.stdout.readline() == "up\n", process.communicate()[1]
        eventually(lambda: is_whole(str(stream.prefix)))
        streamed = content(stream.prefix)
    assert os.listdir(stream.cache / "kits") == []
    assert {name[:64] for name in os.listdir(stream.cache / "layers")} == {stream.manifest.outline}  # it is packed
    after = {kind: state(stream.store / kind) for kind in ("loose", "loose-kits")}
    assert after["loose-kits"] == before["loose-kits"]
    assert {path for path in after["loose"] if after["loose"][path] != before["loose"][path]} <= used
    assert not verify_prefix(str(stream.prefix)).differences
    shutil.rmtree(stream.prefix)
    done = start(stream.launch(stream=False, **in_place(stream)), "-c", "print('ran')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    assert content(stream.prefix) == streamed


def test_the_base_needs_no_second_look(stream: Stream, cache: NodeCache) -> None:
    """Layers of the base that were linked from a store are done: the filler has nothing to do for them."""
    kit = UnpackedKit(str(stream.store / loose_kit_key(real_kit().manifest.id)))
    prefix = make_base(cache, stream.manifest, [DirectoryStore(str(stream.store))], kit=kit)
    assert Growing(prefix).there() == {key(source.digest) for source in real_kit().layers}


@pytest.mark.parametrize("damage", [truncated, missing, gone])
def test_streaming_and_damaged(stream: Stream, damage: Callable[[Path], None]) -> None:
    """The filler, too, takes a layer that is not whole from elsewhere."""
    put(stream.store, ONE)
    damage(stream.store)
    with stream.running(STAY, **in_place(stream)) as process:
        assert process.stdout and process.stdout.readline() == "up\n", process.communicate()[1]
        eventually(lambda: is_whole(str(stream.prefix)))
    assert not verify_prefix(str(stream.prefix)).differences


def test_the_store_is_gone_while_it_grows(stream: Stream) -> None:
    """Who goes on filling a prefix needs neither the kit nor the loose layers, as long as somebody has the layers."""
    two = stream.archive(TWO)
    put(stream.store, ONE, PYC)
    shutil.rmtree(loose(stream.store, TWO))
    listing(stream.store, TWO).unlink()
    two.parent.mkdir(parents=True, exist_ok=True)
    two.unlink(missing_ok=True)
    os.mkfifo(two)
    with stream.running(STAY, **in_place(stream)) as process:
        assert process.stdout and process.stdout.readline() == "up\n", process.communicate()[1]
        eventually(lambda: stream.is_there(ONE))
        for kind in ("loose", "loose-kits"):
            shutil.rmtree(stream.store / kind)
        eventually(stream.filler)
        stream.release(TWO)
        eventually(lambda: is_whole(str(stream.prefix)))
    assert not verify_prefix(str(stream.prefix)).differences


@pytest.mark.parametrize("shell", SHELLS)
def test_a_kit_in_place(tmp_path: Path, shell: str) -> None:
    """Every shell starts from a kit that lies unpacked somewhere, by whatever path, and unpacks nothing."""
    kit = real_kit()
    store = tmp_path / "a store"
    put_loose(store, *kit.layers)
    put_loose_kit(store, kit.manifest)
    put_manifest(store, kit.manifest)
    launch = kit.launch(tmp_path / "cache", store=store, kit=loose_kit_key(kit.manifest.id), kit_sha256="")
    argv = [*SHELLS[shell], *launch.argv("materialise")[1:]]
    done = subprocess.run(argv, env=clean_environ(), capture_output=True, text=True, check=False, cwd=store)
    prefix = tmp_path / "cache/prefixes" / launch.manifest[:16]
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{prefix}\n", "")
    assert os.listdir(tmp_path / "cache/kits") == []


def test_a_kit_that_is_not_whole(tmp_path: Path) -> None:
    """A kit's folder that lacks its Python is refused in one line, which names it."""
    place = tmp_path / "kit"
    place.mkdir()
    launch = real_kit().launch(tmp_path / "cache", kit=str(place), kit_sha256="")
    done = start(msgspec.structs.replace(launch, store=str(tmp_path)), "-c", "")
    assert done.returncode == NodeError.exit_code
    assert f"likewise: The kit in {place} is not whole" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.root
def test_somebody_elses_kit(tmp_path: Path) -> None:
    """A kit's folder that belongs to another user is not run."""
    store = tmp_path / "store"
    put_loose(store, *real_kit().layers)
    place = put_loose_kit(store, real_kit().manifest)
    os.chown(place, 12345, 12345)
    done = start(real_kit().launch(tmp_path / "cache", kit=str(place), kit_sha256=""), "-c", "")
    assert done.returncode == NodeError.exit_code and "belongs to another user" in done.stderr
