"""The kit: one tar file that starts a node which has nothing but sh, tar and gzip.

::

    python              one line: the interpreter, relative to the kit
    manifest.json       the kit's manifest; its digest is the kit's id
    listings/<digest>   of each layer, bytecode too
    tree/<layer path>   the files of all of them in one tree, so that it runs as it is and needs one search path

The same manifest gives the same bytes. The first member's name begins with ``listings/``, which tells bootstrap.sh
that the file is not compressed.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

from likewise.errors import LayerError
from likewise.layers.content import disbelieve, read_original
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerKind, LayerSource, SourceFile, decode_listing, encode_listing
from likewise.model.manifest import Manifest
from likewise.model.zstd import ZstdDecompressor, ZstdError

_CHUNK = 4 << 20


def write_kit(
    manifest: Manifest,
    sources: Mapping[Digest, LayerSource],
    out: BinaryIO,
    *,
    archive: Callable[[Digest], BinaryIO] | None = None,
    level: int = 0,
) -> Digest:
    """Write the kit to `out`.

    Parameters
    ----------
    manifest : Manifest
        The kit's: the interpreter and the distributions that a node needs to join.
    sources : mapping
        By digest, where the files of each layer are.
    out : binary file
    archive : callable, optional
        Opens the archive of a layer that is not among `sources`: bytecode is compiled once, and later only its archive
        is there. Without it such bytecode is left out (a node then takes it from the store, and starts slower).
    level : int, default 0
        0 writes a plain tar: for a node that reads the client's disk, gzip costs a second on either side. 1 (fast) to
        9 (small) compress, for a slow way.

    Returns
    -------
    Digest
        sha256 of what was written.

    Raises
    ------
    LayerError
        When a layer or a file is missing, or a file is not what its layer says.
    """
    members = _members(manifest, sources, archive)
    with _Output(out, level) as output:
        with tarfile.open(fileobj=output, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 16) as tar:
            for name in sorted(members):
                _add(tar, name, members[name])
        return output.finish()


def _members(
    manifest: Manifest, sources: Mapping[Digest, LayerSource], archive: Callable[[Digest], BinaryIO] | None
) -> dict[str, bytes | SourceFile]:
    """What the kit contains, by name. Where two layers own one path they hold the same content."""
    interpreter = f"tree/{manifest.interpreter}"
    members: dict[str, bytes | SourceFile] = {
        "manifest.json": manifest.encode(),
        "python": f"{interpreter}\n".encode(),
    }
    for ref in manifest.layers:
        for digest in filter(None, (ref.digest, ref.bytecode)):
            files = _files(digest, ref.name, sources, archive)
            if files is None and digest == ref.bytecode:
                continue
            if files is None:
                raise LayerError("The layer belongs to the kit and its files are not known.", where=ref.name)
            members[f"listings/{digest}"] = encode_listing([file.entry for file in files])
            for file in files:
                members.setdefault(f"tree/{file.entry.path}", file)
    if interpreter not in members:
        raise LayerError(f"The interpreter's layer has no {interpreter}.", where="kit")
    return members


def _files(
    digest: Digest,
    name: str,
    sources: Mapping[Digest, LayerSource],
    archive: Callable[[Digest], BinaryIO] | None,
) -> Sequence[SourceFile] | None:
    if digest in sources:
        return sources[digest].files
    if archive is None:
        return None
    with archive(digest) as stream:
        return _read_archive(stream.read(), digest, name)


def archived_source(kind: LayerKind, name: str, version: str, digest: Digest, data: bytes) -> LayerSource:
    """A small layer with the files of its archive: those it was made of may be gone.

    Raises
    ------
    LayerError
        When the archive is damaged.
    """
    files = tuple(_read_archive(data, digest, name))
    return LayerSource(kind=kind, name=name, version=version, files=files, digest=digest)


def _read_archive(data: bytes, digest: Digest, name: str) -> list[SourceFile]:
    """The files of an archive (see `layers.pack`), in memory: those of a kit are small."""
    try:
        content = ZstdDecompressor().decompress(data)
    except ZstdError as error:
        raise LayerError(f"The layer's archive is damaged ({error}).", where=name) from error
    end = 8 + int.from_bytes(content[:8], "little")
    listing = content[8:end]
    if digest_bytes(listing) != digest:
        raise LayerError("The layer's archive is damaged (it has another digest).", where=name)
    files = []
    for entry in decode_listing(listing, where=name):
        files.append(SourceFile(entry=entry, data=content[end : end + entry.size]))
        end += entry.size
    return files


def _add(tar: tarfile.TarFile, name: str, member: bytes | SourceFile) -> None:
    info = tarfile.TarInfo(name)  # owner, group and times are 0
    info.mode = 0o444
    if isinstance(member, SourceFile) and member.entry.link:
        info.type, info.linkname = tarfile.SYMTYPE, member.entry.link
        tar.addfile(info)
        return
    if isinstance(member, SourceFile):
        info.mode = 0o555 if member.entry.executable else 0o444
    data = member if isinstance(member, bytes) else _content(member)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _content(file: SourceFile) -> bytes:
    data = file.data
    if data is None:
        try:
            data = read_original(file) if file.prefix or file.change else _read(file)
        except OSError as error:
            raise LayerError(f"A file of the kit can't be read ({error}).", where=file.path) from error
    if digest_bytes(data) != file.entry.sha256:
        disbelieve(file)
        raise LayerError(
            "A file changed while it was being packed.",
            where=file.path or file.entry.path,
            todo="Wait until nothing is being installed any more, and start again.",
        )
    return data


def _read(file: SourceFile) -> bytes:
    with open(file.path, "rb") as stream:
        stream.seek(file.offset or 0)
        return stream.read(-1 if file.offset is None else file.entry.size)


class _Output(io.RawIOBase):
    """Hashes what it writes, and compresses it when asked to.

    It compresses members of a fixed size, which threads do side by side (zlib releases Python's lock).

    A file of several members is as good as one of a single member for every gzip (RFC 1952, 2.2).
    """

    def __init__(self, out: BinaryIO, level: int) -> None:
        super().__init__()
        self._out = out
        self._level = level
        self._hash = hashlib.sha256()
        self._pending = bytearray()
        self._workers = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="likewise-gzip")
        self._running: deque[Future[bytes]] = deque()

    def close(self) -> None:
        """Stop the threads; nothing more is written."""
        self._pool.shutdown(cancel_futures=True)
        super().close()

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any) -> int:
        """Take some of the content."""
        self._pending += data
        while len(self._pending) >= _CHUNK:
            self._submit(bytes(self._pending[:_CHUNK]))
            del self._pending[:_CHUNK]
        return len(data)

    def finish(self) -> Digest:
        """Write what is left; sha256 of everything written."""
        self._submit(bytes(self._pending))
        while self._running:
            self._emit()
        return Digest(self._hash.hexdigest())

    def _submit(self, chunk: bytes) -> None:
        if len(self._running) > self._workers:
            self._emit()
        self._running.append(self._pool.submit(self._compress, chunk))

    def _emit(self) -> None:
        data = self._running.popleft().result()
        self._hash.update(data)
        self._out.write(data)

    def _compress(self, chunk: bytes) -> bytes:
        if not self._level:
            return chunk
        compressor = zlib.compressobj(self._level, zlib.DEFLATED, 31)  # 31: a gzip header, with time 0
        return compressor.compress(chunk) + compressor.flush()
