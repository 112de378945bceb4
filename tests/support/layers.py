"""Layers made of files on the disk, and archives read by other means than ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from likewise.model.digest import EMPTY, digest_bytes
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, decode_listing, layer_source
from likewise.model.zstd import ZstdDecompressor


def make_source(
    folder: Path, files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None, name: str = "sample"
) -> LayerSource:
    """A layer of `files` (layer path -> content), which lie beneath `folder`, and `links`."""
    sources = []
    for number, (path, data) in enumerate(files.items()):
        place = folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        entry = FileEntry(path=path, sha256=digest_bytes(data), size=len(data))
        sources.append(SourceFile(entry=entry, path=str(place)))
    for path, target in (links or {}).items():
        sources.append(SourceFile(entry=FileEntry(path=path, sha256=EMPTY, size=0, link=target)))
    return layer_source(LayerKind.DISTRIBUTION, name, "1.0", sources)


def read_archive(data: bytes) -> tuple[tuple[FileEntry, ...], dict[str, bytes]]:
    """Entries and contents of an archive, read as its description says, all at once."""
    decompressor = ZstdDecompressor()
    plain = decompressor.decompress(data)
    assert decompressor.eof and not decompressor.unused_data
    length = int.from_bytes(plain[:8], "little")
    entries = decode_listing(plain[8 : 8 + length])
    at, contents = 8 + length, {}
    for entry in entries:
        if not entry.link:
            contents[entry.path] = plain[at : at + entry.size]
            at += entry.size
    assert at == len(plain)
    return entries, contents
