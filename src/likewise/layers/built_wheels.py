"""The wheels built so far, each beneath ``work/wheels/<key>`` with its files unpacked, so that they can be packed.

A folder appears whole or not at all (a rename); what vanished from it later is found out and means: not built.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from likewise.layers.wheel import wheel_source
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.snapshot import Problem

KEEP_SECONDS = 7 * 86400
"""Wheels that nobody asked for in this time are removed."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a built wheel. `prefix_state` is that of the prefix it was built in, "" when isolated."""

    name: str
    version: str
    entries: tuple[FileEntry, ...]
    problems: tuple[Problem, ...] = ()
    prefix_state: str = ""


class BuiltWheels:
    """The built wheels beneath `work`."""

    def __init__(self, work: Path) -> None:
        self._root = work / "wheels"

    def load(self, key: Digest) -> tuple[LayerSource, Record] | None:
        """The layer built under `key`, None when there is none or any of its files vanished."""
        folder = self._root / key
        try:
            record = msgspec.json.decode((folder / "record.json").read_bytes(), type=Record)
            source = _source(record, folder)
            whole = all(os.lstat(f.path).st_size == f.entry.size for f in source.files if not f.entry.link)
            os.utime(folder / "record.json")
        except (OSError, msgspec.MsgspecError):
            return None
        return (source, record) if whole else None

    def keep(self, key: Digest, staged: Path, record: Record) -> LayerSource:
        """Move the folder `staged` (a wheel, and its files unpacked) to its place; the layer as it lies there.

        Raises
        ------
        OSError
            When the place can't be written to.
        """
        (staged / "record.json").write_bytes(msgspec.json.encode(record))
        folder = self._root / key
        self._root.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            os.rename(staged, folder)
            return _source(record, folder)
        known = self.load(key)
        if known and known[1].prefix_state == record.prefix_state:
            return known[0]  # another process was quicker
        with suppress(FileNotFoundError):  # damaged, or built with what was installed then: out of the way
            os.rename(folder, staged.with_name("replaced"))
        os.rename(staged, folder)
        return _source(record, folder)

    def sweep(self) -> None:
        """Remove what was not used for `KEEP_SECONDS`."""
        with suppress(OSError):
            for entry in list(os.scandir(self._root)):
                with suppress(OSError):
                    if time.time() - os.stat(Path(entry.path, "record.json")).st_mtime > KEEP_SECONDS:
                        shutil.rmtree(entry.path, ignore_errors=True)


def unpack(wheel: Path, staged: Path) -> LayerSource:
    """Put `wheel` into the empty folder `staged`, with its files unpacked."""
    staged.mkdir()
    shutil.move(wheel, staged / wheel.name)
    return wheel_source(staged / wheel.name, unpack_to=staged / "files")


def prefix_state(site_dirs: Iterable[str]) -> Digest:
    """Digest of what is installed in these directories: an unisolated build depends on it."""
    names: list[str] = []
    for folder in sorted(set(site_dirs)):
        with suppress(OSError):
            names += sorted(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
    return digest_bytes(os.fsencode("\n".join(names)))


def _source(record: Record, folder: Path) -> LayerSource:
    files = [SourceFile(entry=entry, path=str(folder / "files" / entry.path)) for entry in record.entries]
    return layer_source(LayerKind.DISTRIBUTION, record.name, record.version, files)
