"""Archives are believed only as far as their digest: what is damaged or hostile leaves nothing behind that counts."""

from __future__ import annotations

import io
import os
import resource
from pathlib import Path

import pytest

from likewise.errors import NodeError
from likewise.model.digest import EMPTY, Digest, digest_bytes
from likewise.model.layer import FileEntry, encode_listing
from likewise.model.zstd import ZstdCompressor
from likewise.node.unpack import DamagedCopy, UnreadableCopy, adopt, unpack
from support.nodes import Content, archive, layer, raw_archive

FILES: dict[str, Content] = {
    "purelib/pkg/__init__.py": b"x = 1\n",
    "purelib/pkg/empty.py": b"",
    "purelib/pkg/data/big.bin": os.urandom(3 << 20),
    "purelib/pkg/näme 🚀.txt": "héllo".encode(),
    "purelib/pkg/lib.so": "data/big.bin",
    "scripts/tool": (b"#!python\n", True),
    "data/share/x": b"1",
}


def entry(path: str, content: bytes = b"x", **more: object) -> FileEntry:
    fields = {"path": path, "sha256": digest_bytes(content), "size": len(content), **more}
    return FileEntry(**fields)  # type: ignore[arg-type]


def link(path: str, target: str) -> FileEntry:
    return FileEntry(path=path, sha256=EMPTY, size=0, link=target)


def unpack_bytes(data: bytes, digest: Digest, into: Path) -> None:
    into.mkdir(exist_ok=True)
    unpack(io.BytesIO(data), digest, str(into), name="pkg")


def everything_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_round_trip(tmp_path: Path) -> None:
    """Every file comes out with its content, executable bit and link, and can't be written to."""
    source = layer("pkg", FILES)
    listing, entries = unpack(io.BytesIO(archive(source)), source.digest, str(tmp_path), name="pkg")
    assert listing == encode_listing(entries) and digest_bytes(listing) == source.digest
    assert everything_in(tmp_path) == set(FILES)
    for path, content in FILES.items():
        found = tmp_path / path
        if isinstance(content, str):
            assert os.readlink(found) == content
        else:
            data, executable = content if isinstance(content, tuple) else (content, False)
            assert found.read_bytes() == data
            assert found.stat().st_mode & 0o777 == (0o555 if executable else 0o444)


def test_layer_without_files(tmp_path: Path) -> None:
    """A layer may be empty (a metapackage whose metadata was left out)."""
    source = layer("nothing", {})
    unpack_bytes(archive(source), source.digest, tmp_path)
    assert everything_in(tmp_path) == set()


@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.3, 0.9, -1])
def test_truncated(tmp_path: Path, keep: float) -> None:
    """An archive that ends too early is refused, wherever it ends, and the error names the layer."""
    source = layer("pkg", FILES)
    data = archive(source)
    cut = data[: int(len(data) * keep) if isinstance(keep, float) else keep]
    with pytest.raises(DamagedCopy, match=r"^pkg: The copy of the layer"):
        unpack_bytes(cut, source.digest, tmp_path / "into")


@pytest.mark.parametrize("position", [0.001, 0.2, 0.5, 0.999])
def test_flipped_bit(tmp_path: Path, position: float) -> None:
    """One wrong bit anywhere is noticed."""
    source = layer("pkg", FILES)
    data = bytearray(archive(source))
    data[int(len(data) * position)] ^= 1
    with pytest.raises(DamagedCopy):
        unpack_bytes(bytes(data), source.digest, tmp_path / "into")


def test_other_layer(tmp_path: Path) -> None:
    """A sound archive of another layer is refused before anything is written."""
    wanted, other = layer("pkg", FILES), layer("other", {"purelib/evil.py": b"evil"})
    with pytest.raises(DamagedCopy, match="another digest"):
        unpack_bytes(archive(other), wanted.digest, tmp_path / "into")
    assert everything_in(tmp_path) == set()


@pytest.mark.parametrize("extra", [b"x", b"\0" * 100, "frame", "content"])
def test_something_follows(tmp_path: Path, extra: bytes | str) -> None:
    """Nothing may follow the last file: no bytes, no second frame, no more content."""
    source = layer("pkg", FILES)
    data = archive(source)
    if extra == "content":
        files = [f for f in source.files if not f.entry.link]
        _, data = raw_archive([f.entry for f in source.files], [f.data or b"" for f in files], after=b"more")
    elif extra == "frame":
        data += ZstdCompressor().compress(b"more", ZstdCompressor.FLUSH_FRAME)
    else:
        assert isinstance(extra, bytes)
        data += extra
    with pytest.raises(DamagedCopy, match="longer"):
        unpack_bytes(data, source.digest, tmp_path / "into")


@pytest.mark.parametrize("listed", [0, 5, 20_000_000])
def test_size_is_not_what_is_listed(tmp_path: Path, listed: int) -> None:
    """A file that is longer or shorter than its entry says is refused, and no more than a block is held of it."""
    content = b"\0" * 10_000_000
    digest, data = raw_archive([entry("purelib/bomb", content, size=listed)], [content])
    with pytest.raises(DamagedCopy):
        unpack_bytes(data, digest, tmp_path / "into")
    assert (tmp_path / "into/purelib/bomb").stat().st_size <= listed


def test_memory_stays_at_a_block(tmp_path: Path) -> None:
    """A small archive of a large file of zeros does not become large in memory."""
    content = b"\0" * 300_000_000
    digest, data = raw_archive([entry("purelib/zeros", content)], [content])
    del content
    pid = os.fork()
    if pid == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.close(1)
        current = int(Path("/proc/self/statm").read_text().split()[1]) * 4
        unpack_bytes(data, digest, tmp_path / "into")
        now = int(Path("/proc/self/statm").read_text().split()[1]) * 4
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - max(before, current)
        os._exit(0 if grown < 50_000 and now - current < 50_000 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "into/purelib/zeros").stat().st_size == 300_000_000


@pytest.mark.parametrize(
    "paths",
    [
        ["purelib/../../../etc/evil"],
        ["/etc/evil"],
        ["purelib//etc/evil"],
        ["purelib/./x"],
        ["elsewhere/x"],
        ["purelib"],
        ["../purelib/x"],
        ["purelib/A/x", "purelib/a/X"],
        ["purelib/a", "purelib/a/b"],
        ["purelib/x", "purelib/x"],
        ["purelib/y", "purelib/x"],
    ],
)
def test_hostile_paths(tmp_path: Path, paths: list[str]) -> None:
    """Paths that escape, collide, lie beneath files or are out of order are refused though the digest is right."""
    digest, data = raw_archive([entry(path) for path in paths], [b"x"] * len(paths))
    with pytest.raises(NodeError, match="pkg"):
        unpack_bytes(data, digest, tmp_path / "into")
    assert everything_in(tmp_path) == set()


@pytest.mark.parametrize(
    "entries",
    [
        [link("purelib/l", "/etc")],
        [link("data/l", "../etc")],
        [link("scripts/a/l", "../../x")],
        [link("purelib/l", "../../../../etc")],
        [link("purelib/a/l", "../../../../../x")],
        [link("purelib/d", "/tmp"), entry("purelib/d/evil")],
        [link("purelib/d", "."), entry("purelib/d/evil")],
        [link("purelib/D", "."), entry("purelib/d/evil")],
        # d leads up to purelib, so that d/../.. is far above it though it does not look so
        [link("purelib/a/b/c/d", "../../.."), link("purelib/a/b/c/e", "d/../../x")],
        [link("purelib/a/b/c/d", "../../.."), link("purelib/a/b/c/e", "d"), link("purelib/a/b/c/f", "e/../..")],
        # d leads to the prefix
        [link("purelib/d", "../../.."), link("purelib/e", "d/..")],
        [link("purelib/d", "../../.."), link("purelib/a/f", "../d"), link("purelib/a/e", "f/..")],
        [link("purelib/d", "../../python3/site-packages"), link("purelib/u", "../../.."), link("purelib/e", "d/u/..")],
        [entry("purelib/l", link="y")],
    ],
)
def test_hostile_links(tmp_path: Path, entries: list[FileEntry]) -> None:
    """Links that leave the layer or the prefix, however many it takes, and files beneath links are refused."""
    digest, data = raw_archive(entries, [b"x" for e in entries if not e.link])
    with pytest.raises(NodeError, match="pkg"):
        unpack_bytes(data, digest, tmp_path / "into")
    assert everything_in(tmp_path) == set()


def test_harmless_links(tmp_path: Path) -> None:
    """Links that stay inside are made, loops among them."""
    files: dict[str, Content] = {
        "purelib/a/real.so": b"elf", "purelib/a/one.so": "real.so", "purelib/b/two.so": "../a/one.so",
        "purelib/b/up": "..", "purelib/b/loop": "loop", "purelib/a/there.so": "../../../there.so",
    }  # fmt: skip
    source = layer("pkg", files)
    unpack_bytes(archive(source), source.digest, tmp_path)
    assert (tmp_path / "purelib/b/two.so").read_bytes() == b"elf"
    assert everything_in(tmp_path) == set(files)


def test_existing_links_are_not_followed(tmp_path: Path) -> None:
    """Where somebody put a link into the directory to unpack into, nothing is written through it."""
    outside, into = tmp_path / "outside", tmp_path / "into"
    outside.mkdir()
    into.mkdir()
    (into / "purelib").symlink_to(outside)
    source = layer("pkg", FILES)
    with pytest.raises(OSError):
        unpack_bytes(archive(source), source.digest, into)
    assert everything_in(outside) == set()


def test_listing_that_claims_to_be_huge(tmp_path: Path) -> None:
    """The length of the listing is not believed either."""
    compressor = ZstdCompressor()
    data = compressor.compress((1 << 60).to_bytes(8, "little") + b"likewise") + compressor.flush()
    with pytest.raises(DamagedCopy, match="no listing"):
        unpack_bytes(data, EMPTY, tmp_path / "into")


def test_unreadable_source_is_not_damaged(tmp_path: Path) -> None:
    """An input error says nothing against the copy, so it is told apart from damage."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    (tmp_path / "into").mkdir()
    with pytest.raises(UnreadableCopy, match="Input/output error"):
        unpack(Failing(), EMPTY, str(tmp_path / "into"), name="pkg")


def adopt_files(tmp_path: Path, change: str = "") -> Path:
    """Unpack a layer, change something, and adopt it from there."""
    source = layer("pkg", FILES)
    tree, into = tmp_path / "tree", tmp_path / "into"
    unpack_bytes(archive(source), source.digest, tree)
    into.mkdir()
    victim = tree / "purelib/pkg/__init__.py"
    if change:
        victim.unlink()
    if change == "content":
        victim.write_bytes(b"x = 2\n")
    elif change == "link":
        victim.symlink_to("empty.py")
    elif change == "folder":
        (tree / "purelib/pkg").rename(tree / "purelib/moved")
        (tree / "purelib/pkg").symlink_to("moved")
    listing = encode_listing([file.entry for file in source.files])
    adopt(str(tree), listing, source.digest, str(into), name="pkg")
    return into


def test_adopt_links_what_it_checked(tmp_path: Path) -> None:
    """Files that lie unpacked already are checked and then shared, not written again."""
    into = adopt_files(tmp_path)
    assert everything_in(into) == set(FILES)
    one, other = into / "scripts/tool", tmp_path / "tree/scripts/tool"
    assert one.samefile(other) and one.stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize("change", ["missing", "content", "link", "folder"])
def test_adopt_refuses_what_was_changed(tmp_path: Path, change: str) -> None:
    """A file that is gone, changed or reached over a link is not adopted, and the layer is named."""
    with pytest.raises(DamagedCopy, match=r"^pkg: "):
        adopt_files(tmp_path, change)
