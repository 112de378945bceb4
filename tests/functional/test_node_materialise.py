"""From a manifest to a prefix: what is laid out where, from which source, and what can go wrong."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from likewise.errors import NodeError
from likewise.layers.kit import write_kit
from likewise.model.digest import Digest
from likewise.model.keys import layer_key
from likewise.model.layer import LayerKind, LayerSource
from likewise.model.manifest import Manifest
from likewise.node.cache import NodeCache, open_cache
from likewise.node.materialise import materialise
from likewise.node.sources import DirectoryStore, UnpackedKit
from support.nodes import Content, distribution, layer, manifest_of, put, put_manifest


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return open_cache(str(tmp_path / "cache"))


def make(cache: NodeCache, store: Path, *layers: LayerSource, **options: object) -> Path:
    """Put layers into the store and materialise their manifest."""
    put(store, *layers)
    return Path(materialise(cache, manifest_of(*layers), [DirectoryStore(str(store))], **options))  # type: ignore[arg-type]


def site(prefix: Path, manifest: Manifest) -> Path:
    return prefix / "lib" / manifest.python / "site-packages"


def leftovers(cache: NodeCache) -> list[str]:
    return os.listdir(cache.place("tmp"))


ONE = distribution(
    "one",
    {
        "purelib/one/__init__.py": b"def main(): print('one')\n",
        "scripts/tool": (b"#!python\nprint('tool')\n", True),
        "scripts/other.sh": (b"#!/bin/sh\necho other\n", True),
        "data/share/one/icon": b"icon",
        "headers/one/one.h": b"h",
    },
    entry_points="[console_scripts]\none = one:main\n",
)
TWO = distribution("two", {"purelib/two.py": b"2\n", "purelib/näme 🚀.py": b"", "purelib/two.so": "two.py"})


@pytest.mark.parametrize("helpers", [1, 2])
def test_every_scheme_has_its_place(cache: NodeCache, store: Path, helpers: int) -> None:
    """The prefix is laid out as an installer would have done it."""
    code = layer("code-1", {"code/code-1/mine.py": b"m\n"}, kind=LayerKind.CODE)
    native = layer("native", {"native/libpq.so.5": b"elf"}, kind=LayerKind.NATIVE)
    prefix = make(cache, store, ONE, TWO, code, native, helpers=helpers)
    manifest = manifest_of(ONE, TWO, code, native)
    assert prefix == Path(cache.prefix(manifest.id))
    assert (site(prefix, manifest) / "one/__init__.py").read_bytes().startswith(b"def main")
    assert os.readlink(site(prefix, manifest) / "two.so") == "two.py"
    assert (site(prefix, manifest) / "näme 🚀.py").exists()
    assert (prefix / "share/one/icon").read_bytes() == b"icon"
    assert (prefix / f"include/site/{manifest.python}/one/one.h").read_bytes() == b"h"
    assert (prefix / "code/code-1/mine.py").read_bytes() == b"m\n"
    assert (prefix / "native/libpq.so.5").read_bytes() == b"elf"
    assert (prefix / "bin/other.sh").read_bytes() == b"#!/bin/sh\necho other\n"
    for name in ("tool", "one"):
        assert (prefix / "bin" / name).read_text().startswith(f"#!{prefix}/bin/python\n")
        assert os.access(prefix / "bin" / name, os.X_OK)
    assert (site(prefix, manifest) / "one-1.0.dist-info/INSTALLER").read_text() == "likewise\n"
    assert leftovers(cache) == []


def test_bytecode_lies_beside_its_source(cache: NodeCache, store: Path) -> None:
    """A bytecode layer is laid out in the same place as the layer that it belongs to."""
    code = layer("two", {"purelib/__pycache__/two.cpython-311.pyc": b"pyc"}, kind=LayerKind.BYTECODE)
    put(store, TWO, code)
    manifest = manifest_of(TWO, bytecode={"two": code})
    prefix = Path(materialise(cache, manifest, [DirectoryStore(str(store))]))
    assert (site(prefix, manifest) / "__pycache__/two.cpython-311.pyc").read_bytes() == b"pyc"


def test_prefixes_share_files(cache: NodeCache, store: Path) -> None:
    """Two environments with a common layer have its files once on the disk, and nobody can write to them."""
    first, second = make(cache, store, ONE, TWO), make(cache, store, TWO)
    a, b = (site(p, manifest_of(TWO)) / "two.py" for p in (first, second))
    assert first != second and a.samefile(b)
    assert a.stat().st_mode & 0o222 == 0
    assert a.stat().st_nlink == 3


def test_second_time_needs_no_source(cache: NodeCache, store: Path) -> None:
    """A prefix that is there is used as it is."""
    prefix = make(cache, store, ONE)
    assert materialise(cache, manifest_of(ONE), []) == str(prefix)


def test_known_layers_need_no_source(cache: NodeCache, store: Path) -> None:
    """Another environment made of layers that are in the cache is made without asking anybody."""
    make(cache, store, ONE, TWO)
    assert os.path.isdir(materialise(cache, manifest_of(TWO), []))


class Listed:
    """A source that notes what it is asked; `data` is what it gives, `more` further copies after refused ones."""

    def __init__(
        self, name: str, data: dict[Digest, bytes], error: OSError | None = None, more: Sequence[bytes] = ()
    ) -> None:
        self.name, self.data, self.error, self.more = name, data, error, list(more)
        self.accepted: list[Digest] = []
        self.rejected: list[Digest] = []

    def __str__(self) -> str:
        return self.name

    def open(self, digest: Digest) -> BinaryIO:
        if self.error:
            raise self.error
        if digest not in self.data:
            raise FileNotFoundError(digest)
        return io.BytesIO(self.data[digest])

    def accept(self, digest: Digest) -> None:
        self.accepted.append(digest)

    def reject(self, digest: Digest) -> bool:
        self.rejected.append(digest)
        return bool(self.more) and self._next(digest)

    def _next(self, digest: Digest) -> bool:
        self.data[digest] = self.more.pop(0)
        return True


def test_damaged_copy_is_fetched_from_the_next_source(cache: NodeCache, store: Path) -> None:
    """A truncated archive is rejected, and the next source is asked for the same layer."""
    put(store, TWO)
    whole = (store / layer_key(TWO.digest)).read_bytes()
    bad = Listed("bad", {TWO.digest: whole[:-5]})
    broken = Listed("broken", {}, PermissionError(13, "Permission denied"))
    good = Listed("good", {TWO.digest: whole})
    prefix = Path(materialise(cache, manifest_of(TWO), [Listed("empty", {}), broken, bad, good]))
    assert (site(prefix, manifest_of(TWO)) / "two.py").read_bytes() == b"2\n"
    assert bad.rejected == [TWO.digest] and good.rejected == broken.rejected == []
    assert good.accepted == [TWO.digest] and bad.accepted == broken.accepted == []
    assert leftovers(cache) == []


def test_source_with_several_copies_is_asked_again(cache: NodeCache, store: Path) -> None:
    """A source that has another copy is asked for it as long as it has one, and only the sound one is accepted."""
    put(store, TWO)
    whole = (store / layer_key(TWO.digest)).read_bytes()
    source = Listed("peers", {TWO.digest: whole[:-5]}, more=[whole[:-1] + b"?", whole])
    materialise(cache, manifest_of(TWO), [source])
    assert source.rejected == [TWO.digest] * 2 and source.accepted == [TWO.digest]
    assert leftovers(cache) == []


@pytest.mark.parametrize("helpers", [1, 2])
def test_no_sound_copy_names_the_layer(cache: NodeCache, store: Path, helpers: int) -> None:
    """When no copy is sound the error names the layer and says what was wrong with each; the store's copy is gone."""
    put(store, ONE, TWO)
    path = store / layer_key(TWO.digest)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(NodeError, match="two: No source has a sound copy") as caught:
        materialise(cache, manifest_of(ONE, TWO), [DirectoryStore(str(store))], helpers=helpers)
    assert caught.value.details["layer"] == "two" and str(store) in caught.value.what
    assert not path.exists()
    assert leftovers(cache) == [] and os.listdir(cache.place("prefixes")) == []
    put(store, TWO)
    materialise(cache, manifest_of(ONE, TWO), [DirectoryStore(str(store))], helpers=helpers)


def test_absent_layer_is_named(cache: NodeCache, store: Path) -> None:
    """A layer that nobody has is named as well."""
    with pytest.raises(NodeError, match=r"two: .* it is not there"):
        materialise(cache, manifest_of(TWO), [DirectoryStore(str(store))])


def test_damaged_listing_in_the_cache(cache: NodeCache, store: Path) -> None:
    """A cached layer whose listing was changed is not believed: it is fetched again."""
    make(cache, store, ONE, TWO)
    listing = Path(cache.listing(TWO.digest))
    listing.chmod(0o644)
    listing.write_bytes(listing.read_bytes().replace(b"two.py", b"tow.py"))
    prefix = make(cache, store, TWO)
    assert (site(prefix, manifest_of(TWO)) / "two.py").read_bytes() == b"2\n"


def test_layer_without_listing_is_not_there(cache: NodeCache, store: Path) -> None:
    """A process may be killed between a layer's two renames: the layer is then made again."""
    make(cache, store, ONE, TWO)
    os.unlink(cache.listing(TWO.digest))
    os.unlink(f"{cache.layer(TWO.digest)}/purelib/two.py")
    prefix = make(cache, store, TWO)
    assert (site(prefix, manifest_of(TWO)) / "two.py").read_bytes() == b"2\n"


@pytest.mark.parametrize("helpers", [1, 2])
def test_cleaned_up_layer(cache: NodeCache, store: Path, helpers: int) -> None:
    """Where something has removed files of a layer from the cache (old ones in /tmp), the layer is fetched again."""
    make(cache, store, ONE, TWO)
    for path in ("purelib/two.py", "scripts/tool"):
        for source in (ONE, TWO):
            Path(cache.layer(source.digest), path).unlink(missing_ok=True)
    third = layer("third", {"purelib/third.py": b"3\n"})
    prefix = make(cache, store, TWO, third, helpers=helpers)
    assert (site(prefix, manifest_of(TWO)) / "two.py").read_bytes() == b"2\n"
    with pytest.raises(NodeError, match="one: No source has a sound copy"):  # found out, and there is no source now
        materialise(cache, manifest_of(ONE), [], helpers=helpers)
    assert leftovers(cache) == []


def test_cleaned_up_prefix(cache: NodeCache, store: Path) -> None:
    """A prefix from which something has removed the beginning is made again."""
    prefix = make(cache, store, ONE)
    (prefix / "launch").unlink()
    assert make(cache, store, ONE) == prefix
    assert (prefix / "launch").exists() and leftovers(cache) == []


def test_two_owners_of_the_same_content(cache: NodeCache, store: Path) -> None:
    """Two distributions may own one path, when they agree on what it holds."""
    files: dict[str, Content] = {"purelib/cv2/__init__.py": b"cv2\n", "purelib/cv2/link": "__init__.py"}
    prefix = make(cache, store, layer("opencv", files), layer("opencv-headless", {**files, "purelib/x": b""}))
    assert (prefix / "lib" / manifest_of().python / "site-packages/cv2/__init__.py").read_bytes() == b"cv2\n"


@pytest.mark.parametrize(
    "one, other",
    [
        ({"purelib/x": b"1"}, {"purelib/x": b"2"}),
        ({"purelib/x": b"1"}, {"purelib/x": (b"1", True)}),
        ({"purelib/x": b"1"}, {"purelib/x": "y", "purelib/y": b"1"}),
        ({"purelib/x": "y"}, {"purelib/x": "z"}),
        ({"purelib/x/y": b"1"}, {"purelib/x": b"1"}),
        ({"purelib/d": "e", "purelib/e/f": b"1"}, {"purelib/d/f": b"2"}),
        ({"data/pyvenv.cfg": b"home = /evil\n"}, {}),
        ({"data/launch": b"#!/bin/sh\n"}, {}),
        ({"scripts/python": b"#!/bin/sh\n"}, {}),
    ],
)
def test_contradictions_are_refused(
    cache: NodeCache, store: Path, one: dict[str, Content], other: dict[str, Content]
) -> None:
    """Layers that disagree about a path, or claim what likewise writes itself, make no prefix."""
    with pytest.raises(NodeError):
        make(cache, store, layer("a", one), layer("b", other), helpers=1)
    assert os.listdir(cache.place("prefixes")) == [] and leftovers(cache) == []


def test_content_comes_before_generated_scripts(cache: NodeCache, store: Path) -> None:
    """A file that a layer has in the place of an entry point's script stays, and the first of two entry points."""
    own = distribution("own", {"scripts/one": (b"#!/bin/sh\necho own\n", True)})
    third = distribution("third", {}, entry_points="[console_scripts]\none = third:main\nboth = third:main\n")
    fourth = distribution("fourth", {}, entry_points="[console_scripts]\nboth = fourth:main\n")
    prefix = make(cache, store, ONE, own, third, fourth)
    assert (prefix / "bin/one").read_bytes() == b"#!/bin/sh\necho own\n"
    assert b"from third import main" in (prefix / "bin/both").read_bytes()


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOSYS])
def test_copies_where_links_are_impossible(
    cache: NodeCache, store: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without hard links, or without any more for this file, files are copied."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    prefix = make(cache, store, ONE, TWO)
    assert (site(prefix, manifest_of(TWO)) / "two.py").read_bytes() == b"2\n"
    assert (prefix / "bin/other.sh").stat().st_mode & 0o777 == 0o555


def unpacked_kit(tmp_path: Path, *layers: LayerSource) -> UnpackedKit:
    """A kit of these layers (and something in the interpreter's place), unpacked."""
    python = manifest_of().python
    interpreter = layer("python", {f"interpreter/bin/{python}": (b"elf", True)}, kind=LayerKind.INTERPRETER)
    with (tmp_path / "kit.tar").open("wb") as out:
        write_kit(manifest_of(interpreter, *layers), {s.digest: s for s in (interpreter, *layers)}, out)
    (tmp_path / "kit").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "kit.tar", "-C", tmp_path / "kit"], check=True)
    return UnpackedKit(str(tmp_path / "kit"))


def test_layers_of_the_kit_are_adopted(cache: NodeCache, tmp_path: Path) -> None:
    """What came with the kit is checked and linked; no source is asked."""
    kit = unpacked_kit(tmp_path, ONE, TWO)
    prefix = Path(materialise(cache, manifest_of(ONE, TWO), [], kit=kit))
    assert (site(prefix, manifest_of(TWO)) / "two.py").samefile(f"{kit.tree}/purelib/two.py")


def test_damaged_kit_is_no_obstacle(cache: NodeCache, store: Path, tmp_path: Path) -> None:
    """A layer of the kit that was tampered with is taken from the store instead."""
    kit = unpacked_kit(tmp_path, TWO)
    victim = Path(kit.tree, "purelib/two.py")
    victim.chmod(0o644)
    victim.write_bytes(b"3\n")
    put(store, TWO)
    prefix = Path(materialise(cache, manifest_of(TWO), [DirectoryStore(str(store))], kit=kit))
    assert (site(prefix, manifest_of(TWO)) / "two.py").read_bytes() == b"2\n"


def test_manifest_is_checked(store: Path) -> None:
    """A manifest that is not what its id says is refused and removed."""
    manifest = put_manifest(store, manifest_of(ONE))
    assert DirectoryStore(str(store)).manifest(manifest.id) == manifest
    path = next((store / "manifests").iterdir())
    path.write_bytes(path.read_bytes().replace(b"one", b"eno"))
    with pytest.raises(NodeError, match="does not match its id"):
        DirectoryStore(str(store)).manifest(manifest.id)
    with pytest.raises(NodeError, match="not in the store"):
        DirectoryStore(str(store)).manifest(manifest.id)


# ---- many processes, and killed ones

MANY = [
    layer(f"many-{n}", {f"purelib/many_{n}/f{i}.py": os.urandom(2000) for i in range(60)}) for n in range(12)
]  # fmt: skip


def starter(cache: NodeCache, store: Path, manifest: Manifest) -> subprocess.Popen[bytes]:
    """A process that materialises."""
    argv = ["materialise", "--cache", cache.root, "--store", str(store), "--manifest", manifest.id]
    return subprocess.Popen(
        [sys.executable, "-m", "likewise.node", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def check_many(cache: NodeCache, manifest: Manifest) -> None:
    """Every file of the prefix is complete."""
    folder = site(Path(cache.prefix(manifest.id)), manifest)
    for source in MANY:
        for file in source.files:
            assert (folder / file.entry.path.removeprefix("purelib/")).read_bytes() == file.data


def test_many_starters_at_once(cache: NodeCache, store: Path) -> None:
    """Many processes that start at the same moment all get the same whole prefix, which is made once."""
    put(store, *MANY)
    manifest = put_manifest(store, manifest_of(*MANY))
    running = [starter(cache, store, manifest) for _ in range(6)]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.decode().strip() == cache.prefix(manifest.id)
    check_many(cache, manifest)
    assert os.listdir(cache.place("prefixes")) == [manifest.id[:16]] and leftovers(cache) == []


def test_killed_at_any_moment(cache: NodeCache, store: Path) -> None:
    """After kill -9 at whatever moment the next start makes the prefix; nothing half-made is ever visible."""
    put(store, *MANY)
    manifests = [put_manifest(store, manifest_of(*MANY[: n + 1])) for n in range(11)]
    clock = time.perf_counter()
    starter(cache, store, manifests[0]).communicate(timeout=60)
    whole = time.perf_counter() - clock
    for number, manifest in enumerate(manifests):
        process = starter(cache, store, manifest)
        time.sleep(whole * (0.5 + 0.06 * number))  # from while it is importing until it is done
        process.kill()
        process.communicate()
        for name in os.listdir(cache.place("prefixes")):
            assert os.path.exists(f"{cache.place('prefixes')}/{name}/launch")
    last = put_manifest(store, manifest_of(*MANY))
    process = starter(cache, store, last)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    check_many(cache, last)
    assert leftovers(cache) == []


def test_termination_leaves_nothing(cache: NodeCache, store: Path) -> None:
    """A terminated process removes what it was making, and its helpers end with it."""
    big = layer("big", {f"purelib/b{i}": os.urandom(1 << 20) for i in range(100)})
    put(store, big, *MANY)
    manifest = put_manifest(store, manifest_of(big, *MANY))
    process = starter(cache, store, manifest)
    wait_for(lambda: any(name.startswith("layer.") for name in leftovers(cache)))
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143 and err == b""
    assert leftovers(cache) == [] and os.listdir(cache.place("prefixes")) == []


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


# ---- disks


@pytest.fixture
def mounts(tmp_path: Path) -> object:
    """Mounts a tmpfs with some options, unmounted at the end."""
    made: list[Path] = []

    def mount(name: str, options: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "likewise-test", path], check=True)
        made.append(path)
        return path

    yield mount
    for path in made:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.root
def test_too_small_disk_is_noticed_before(mounts: Callable[..., Path], store: Path) -> None:
    """What is sure not to fit is refused before anything is written."""
    big = layer("big", {"purelib/big": b"\0" * 20_000_000})
    cache = open_cache(str(mounts("small", "size=8m") / "cache"))
    with pytest.raises(NodeError, match="20 MB are needed"):
        make(cache, store, big)
    assert leftovers(cache) == []


@pytest.mark.root
def test_too_few_inodes_are_noticed_before(mounts: Callable[..., Path], store: Path) -> None:
    """A file system can be full of files before it is full of bytes."""
    cache = open_cache(str(mounts("few", "size=50m,nr_inodes=200") / "cache"))
    with pytest.raises(NodeError, match="inodes"):
        make(cache, store, *MANY)


@pytest.mark.root
@pytest.mark.parametrize("helpers", [1, 2])
def test_disk_full_on_the_way(mounts: Callable[..., Path], store: Path, helpers: int) -> None:
    """When the disk fills up while layers are written: a clear error, nothing left, and the next try can work."""
    big = layer("big", {f"purelib/b{i}": os.urandom(1 << 20) for i in range(12)})
    small = layer("small", {"purelib/s": b"s"})
    place = mounts("full", "size=16m")
    cache = open_cache(str(place / "cache"))
    (place / "ballast").write_bytes(b"\0" * 6_000_000)
    lying = manifest_of(big, small)
    put(store, big, small)
    # the estimate is told less than there is, so that it is the disk that refuses
    refs = tuple(msgspec.structs.replace(ref, size=1) for ref in lying.layers)
    lying = msgspec.structs.replace(lying, layers=refs)
    with pytest.raises(NodeError, match="disk is full") as caught:
        materialise(cache, lying, [DirectoryStore(str(store))], helpers=helpers)
    assert "big" in caught.value.where and "Free some space" in caught.value.todo
    assert leftovers(cache) == []
    (place / "ballast").unlink()
    assert os.path.isdir(materialise(cache, lying, [DirectoryStore(str(store))], helpers=helpers))


@pytest.mark.root
def test_cache_on_another_file_system(mounts: Callable[..., Path], store: Path) -> None:
    """The store and the cache may be on different file systems."""
    cache = open_cache(str(mounts("other", "size=20m") / "cache"))
    prefix = make(cache, store, ONE, TWO)
    assert os.stat(prefix).st_dev != os.stat(store).st_dev
    assert (site(prefix, manifest_of(TWO)) / "two.py").read_bytes() == b"2\n"


@pytest.mark.root
def test_kit_on_another_file_system(mounts: Callable[..., Path], tmp_path: Path) -> None:
    """Layers are copied out of a kit that can't be linked to."""
    kit = unpacked_kit(tmp_path, TWO)
    cache = open_cache(str(mounts("other", "size=20m") / "cache"))
    prefix = Path(materialise(cache, manifest_of(TWO), [], kit=kit))
    assert (site(prefix, manifest_of(TWO)) / "two.py").read_bytes() == b"2\n"
