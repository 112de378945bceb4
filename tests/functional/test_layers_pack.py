"""Archives of layers: complete, checked while they are written, of bounded memory."""

from __future__ import annotations

import io
import os
import sys
import threading
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from likewise.errors import LayerError
from likewise.layers.pack import write_archive
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind, SourceFile, layer_source
from support.layers import make_source, read_archive

FILES = {
    "purelib/sample/__init__.py": b"x = 1\n",
    "purelib/sample/empty.py": b"",
    "purelib/sample/large.bin": os.urandom(3 << 20) + b"tail",
    "purelib/sample/exact.bin": b"e" * (1 << 20),
    "scripts/🐍 tool": b"#!python\n",
}


@pytest.mark.parametrize(("level", "threads"), [(3, 0), (1, 2), (19, 0)])
def test_an_archive_holds_the_listing_and_every_content(tmp_path: Path, level: int, threads: int) -> None:
    """At any level, with and without threads: what is read back is what was on the disk, links included."""
    source = make_source(tmp_path, FILES, links={"purelib/sample/link.py": "__init__.py"})
    out = io.BytesIO()
    counted: list[int] = []
    write_archive(source, out, level=level, threads=threads, progress=counted.append)
    entries, contents = read_archive(out.getvalue())
    assert contents == FILES
    assert entries == tuple(file.entry for file in source.files)
    assert sum(counted) == source.size == sum(map(len, FILES.values()))


def test_content_made_in_memory_is_packed_like_a_file(tmp_path: Path) -> None:
    """And an archive of the same content is the same, wherever it came from."""
    from_disk = make_source(tmp_path, {"scripts/tool": b"#!python\n"})
    from_memory = layer_source(
        LayerKind.DISTRIBUTION, "sample", "1.0",
        [SourceFile(entry=from_disk.files[0].entry, data=b"#!python\n")],
    )  # fmt: skip
    outs = io.BytesIO(), io.BytesIO()
    write_archive(from_disk, outs[0])
    write_archive(from_memory, outs[1])
    assert outs[0].getvalue() == outs[1].getvalue()


def changed(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def shrunk(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def vanished(path: Path) -> None:
    path.unlink()


def turned_into_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("happening", [changed, grown, shrunk, vanished, turned_into_a_directory])
@pytest.mark.parametrize("which", ["purelib/sample/__init__.py", "purelib/sample/large.bin"])
def test_a_file_that_is_not_as_listed_stops_the_packing(tmp_path: Path, happening, which: str) -> None:  # type: ignore[no-untyped-def]
    """The error names the distribution and the file, and says to run again."""
    source = make_source(tmp_path, FILES)
    (file,) = (f for f in source.files if f.entry.path == which)
    happening(Path(file.path))
    with pytest.raises(LayerError, match="changed while it was being packed") as caught:
        write_archive(source, io.BytesIO())
    assert caught.value.where == "sample 1.0"
    assert file.path in caught.value.what
    assert caught.value.todo == "Run again."
    assert caught.value.details["file"] == which


def test_a_file_that_grows_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Reading stops one byte after the listed size."""
    os.mkfifo(tmp_path / "pipe")
    entry = FileEntry(path="purelib/endless", sha256=digest_bytes(b"x"), size=1)
    source = layer_source(LayerKind.DISTRIBUTION, "s", "1", [SourceFile(entry=entry, path=str(tmp_path / "pipe"))])

    def feed() -> None:
        with open(tmp_path / "pipe", "wb", buffering=0) as pipe:
            try:
                while True:
                    pipe.write(b"x" * 4096)
            except BrokenPipeError:
                return

    feeder = threading.Thread(target=feed)
    feeder.start()
    with pytest.raises(LayerError, match="its size is no longer 1 bytes"):
        write_archive(source, io.BytesIO())
    feeder.join(10)
    assert not feeder.is_alive()


def test_a_digest_that_is_not_of_these_files_is_refused(tmp_path: Path) -> None:
    """An archive never goes under a name that its listing does not have."""
    source = msgspec.structs.replace(make_source(tmp_path, FILES), digest=digest_bytes(b"other"))
    with pytest.raises(LayerError, match="not the one of its listing"):
        write_archive(source, io.BytesIO())


def test_what_goes_wrong_with_the_output_is_the_callers_to_tell(tmp_path: Path) -> None:
    """A full disk is an OSError of the file being written, not a fault of the layer."""
    source = make_source(tmp_path, FILES)
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        write_archive(source, full)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 64 MiB passes in pieces."""

    class Sink(io.RawIOBase):
        def write(self, data) -> int:  # type: ignore[no-untyped-def]
            return len(data)

    source = make_source(tmp_path, {"purelib/big": bytes(64 << 20)})
    tracemalloc.start()
    try:
        write_archive(source, Sink())  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_open_files_are_closed_after_an_error(tmp_path: Path) -> None:
    """A client that goes on after an error must not lose file descriptors."""
    source = make_source(tmp_path, {"purelib/a": b"a" * 100, "purelib/b": b"b"})
    grown(Path(source.files[0].path))
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(20):
        with pytest.raises(LayerError):
            write_archive(source, io.BytesIO())
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_empty_layer_is_an_archive_too(tmp_path: Path) -> None:
    """Of nothing but its listing."""
    source = make_source(tmp_path, {})
    out = io.BytesIO()
    write_archive(source, out)
    assert read_archive(out.getvalue()) == ((), {})
