"""The content of a layer, its listing and each file, read where it lies and checked against its entry in the same pass.

Some contents were never read before: `SourceFile.believed`. When one turns out to be another, that is noted, so that
the next scan reads what it believed, and the next start ships the file as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from likewise.errors import LayerError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerSource, SourceFile, encode_listing
from likewise.model.placeholders import original_of

CHUNK = 1 << 20
"""Files are read in pieces of this many bytes."""


def read_listing(source: LayerSource) -> bytes:
    """The listing of a layer.

    Raises
    ------
    LayerError
        When it has another digest than the layer.
    """
    listing = encode_listing([file.entry for file in source.files])
    if digest_bytes(listing) != source.digest:
        raise LayerError("The layer's digest is not the one of its listing.", where=named(source))
    return listing


def read_content(file: SourceFile, source: LayerSource) -> Iterator[bytes]:
    """The content of `file`, which is no link, in pieces. They are worth nothing before the last was taken.

    Parameters
    ----------
    file : SourceFile
    source : LayerSource
        The layer it belongs to, for messages.

    Raises
    ------
    LayerError
        After the last piece: when the file is gone, or is not what its entry says.
    """
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in [file.data] if file.data is not None else _read(file):
            size += len(chunk)
            if size > file.entry.size:
                break
            digest.update(chunk)
            yield chunk
    except OSError as error:
        raise changed(file, source, error.strerror or str(error)) from error
    if size != file.entry.size:
        raise changed(file, source, f"its size is no longer {file.entry.size} bytes")
    if Digest(digest.hexdigest()) != file.entry.sha256:
        raise differs(file, source)


def _read(file: SourceFile) -> Iterator[bytes]:
    """The file's bytes; one call more than it takes to read all of them shows whether it has grown."""
    size = file.entry.size
    if file.prefix or file.change:
        yield read_original(file)
        return
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if file.offset is not None:
            yield os.pread(descriptor, size, file.offset)
            return
        while chunk := os.read(descriptor, min(CHUNK, size + 1)):
            yield chunk
            size -= len(chunk)
            if size < 0:
                return
    finally:
        os.close(descriptor)


def read_original(file: SourceFile) -> bytes:
    """The content of a file in which a prefix stands for the placeholder, as it was before, or to which a change
    applies: what the entry says of it, or something else if that can't be had.

    Raises
    ------
    OSError
    """
    entry = file.entry
    data = Path(file.path).read_bytes()
    if file.change is not None:
        return file.change.apply(data)
    found = original_of(data, entry.placeholder, file.prefix, entry.sha256, binary=entry.binary)
    return data if found is None else found


def differs(file: SourceFile, source: LayerSource) -> LayerError:
    """The error for a file with another content, to be raised. A wrong belief is noted."""
    if not file.believed or _size(file.path) != file.entry.size:
        return changed(file, source, "its content is another")
    disbelieve(file)
    return LayerError(
        f"{file.path} does not hold what its distribution's RECORD says, although neither its size nor its time shows "
        "that it was changed.",
        where=named(source),
        todo="Start again: the files of this distribution will be read, and shipped as they are.",
        details={**_details(file, source), "disbelieved": file.path},
    )


def disbelieve(file: SourceFile) -> None:
    """Note that `file` is not what was believed of it, if anything was."""
    if file.believed:
        with contextlib.suppress(OSError):  # then the next start fails, too, and says so
            os.makedirs(os.path.dirname(file.believed), mode=0o700, exist_ok=True)
            os.close(os.open(file.believed, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def changed(file: SourceFile, source: LayerSource, reason: str) -> LayerError:
    """The error for a file that is no longer as it was when it was looked at, to be raised."""
    return LayerError(
        f"{file.path or file.entry.path} changed while it was being packed ({reason}).",
        where=named(source),
        todo="Run again.",
        details=_details(file, source),
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def named(source: LayerSource) -> str:
    """Name and version of a layer, for messages."""
    return f"{source.name} {source.version}".strip()


def _details(file: SourceFile, source: LayerSource) -> dict[str, object]:
    return {"layer": source.name, "file": file.entry.path, "path": file.path}
