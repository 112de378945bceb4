"""The layer of a wheel that was not read: what its directory and its `RECORD` claim, and a few small files.

A wheel's directory stands at its end, mostly beside its dist-info: of a file of many megabytes on a server it takes
some ten thousand bytes to know name, size and sha256 of everything in it. So a client can say which layer nodes need
without having it, and whoever fetches the whole wheel can check what was claimed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import BinaryIO

from likewise.errors import LayerError
from likewise.layers.metadata import is_metadata
from likewise.layers.wheel import (
    MOST_TEXT,
    Member,
    Names,
    opened,
    plain_entry,
    read_directory,
    read_text,
    script_entry,
    telling_damage,
)
from likewise.model.digest import EMPTY, Digest, digest_bytes
from likewise.model.identity import script_from_wheel
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.outline import outlined
from likewise.model.record import parse_record

_TRUST = "The whole wheel has to be read."
_SCRIPT = b"#!python"

Claims = Mapping[str, tuple[Digest | None, int]]
"""Member → sha256 and size (bytes, -1 when not said) by the wheel's `RECORD`."""


def claimed_source(wheel: BinaryIO, *, where: str) -> LayerSource:
    """The layer of a wheel as the wheel itself describes it.

    Its digest is that of `likewise.layers.wheel.wheel_source` for every wheel whose `RECORD` (recording installed
    projects; binary distribution format) is true. Its files have no content, but for those that are read: what belongs
    to an outline (`likewise.model.outline.outlined`: dist-info, ``.pth`` files, a little data), metadata elsewhere, and
    Python scripts, whose first line is another one in a layer.

    Parameters
    ----------
    wheel : binary file
        Seekable. Its end is read first, then what lies beside it.
    where : str
        What it is called in messages.

    Raises
    ------
    LayerError
        When that is no wheel, has members that may not be shipped, or does not say enough: a file without a sha256 in
        RECORD, two that contradict each other, or more than 32 MiB to be read.
    """
    with opened(wheel, where) as archive, telling_damage(where):
        names, members = read_directory(archive, where)
        claims = _claims(archive, names, where)
        reading = _Reading(archive, where)
        wanted = _wanted(members)
        files = [_file(member, claims, reading, wanted=member.path in wanted) for member in members]
    return layer_source(LayerKind.DISTRIBUTION, names.name, names.version, files)


def _claims(archive: zipfile.ZipFile, names: Names, where: str) -> dict[str, tuple[Digest | None, int]]:
    claims: dict[str, tuple[Digest | None, int]] = {}
    try:
        for path, digest, size in parse_record(read_text(archive, f"{names.dist_info}/RECORD", where)):
            if claims.setdefault(path, (digest, size)) != (digest, size):
                raise LayerError(f"The wheel's RECORD says two things of {path}.", where=where, todo=_TRUST)
    except ValueError as error:
        raise LayerError(f"The wheel's RECORD can't be read ({error}).", where=where, todo=_TRUST) from error
    return claims


def _wanted(members: list[Member]) -> set[str]:
    """Layer paths of the files whose content has to be known before the layer is there."""
    entries = [FileEntry(path=member.path, sha256=EMPTY, size=member.info.file_size) for member in members]
    return {entry.path for entry in outlined(entries)} | {m.path for m in members if is_metadata(m.path)}


class _Reading:
    """Reads members of a wheel, `MOST_TEXT` bytes in all."""

    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self._archive, self.where, self._left = archive, where, MOST_TEXT

    def begins_as_script(self, member: Member) -> bool:
        with self._archive.open(member.info) as file:
            return file.read(len(_SCRIPT)) == _SCRIPT

    def content(self, member: Member) -> bytes:
        self._left -= member.info.file_size
        if self._left < 0:
            raise LayerError(f"The wheel has more than {MOST_TEXT} bytes of metadata.", where=self.where, todo=_TRUST)
        return self._archive.read(member.info)


def _file(member: Member, claims: Claims, reading: _Reading, *, wanted: bool) -> SourceFile:
    if member.script and reading.begins_as_script(member):
        script = script_from_wheel(reading.content(member))
        assert script is not None
        return SourceFile(entry=script_entry(member, script), data=script)
    if wanted:
        data = reading.content(member)
        return SourceFile(entry=plain_entry(member, digest_bytes(data), len(data)), data=data)
    digest, size = claims.get(member.info.filename, (None, -1))
    if digest is None or size not in (-1, member.info.file_size):
        raise LayerError(
            f"The wheel's RECORD does not say what {member.info.filename} is.", where=reading.where, todo=_TRUST
        )
    return SourceFile(entry=plain_entry(member, digest, member.info.file_size))
