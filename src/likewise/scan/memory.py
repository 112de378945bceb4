"""What the last scan found of each distribution: the reason why a second scan of many is a matter of milliseconds.

A distribution is as it was when its `RECORD`, and every file that it listed then, have the stat facts they had. Then
its file list needs neither be parsed nor checked nor hashed again. Only sound ones are remembered, those without
problems and without a path that somebody else has too; all others take the long way each time.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from likewise.model import identity, layer
from likewise.model.digest import Digest, digest_bytes
from likewise.model.identity import Layout
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile
from likewise.scan import files, listing, record, unlisted
from likewise.scan.distributions import Installed
from likewise.scan.facts import RACY_NS, now_ns, read_kept, write_kept
from likewise.scan.files import DistFiles
from likewise.scan.listing import Listing


class _File(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One file: its entry, its stat facts, and the content of a script whose first line is another in the layer."""

    path: str
    sha256: Digest
    size: int
    executable: bool
    stat_size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    data: bytes | None


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """One distribution. `basis` is what else its file list depends on; `generated` what it owns beside `files`."""

    basis: str
    digest: Digest
    files: list[_File]
    modified: tuple[str, ...]
    generated: list[str]


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution that is as it was.

    Attributes
    ----------
    listing : Listing
        Without files: it only claims what is the distribution's.
    files : DistFiles
    source : LayerSource
    """

    listing: Listing
    files: DistFiles
    source: LayerSource


class Memory:
    """What is known of the distributions of one prefix, kept in one file of `folder` (see `Facts`).

    Parameters
    ----------
    folder : Path
    prefix : str
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._file = folder / f"{digest_bytes(os.fsencode(prefix))[:32]}.memory"
        self._began = now_ns()
        self._rules = _rules()
        self._known = read_kept(self._file, dict[str, _Known]) or {}
        self._next: dict[str, _Known] = {}
        self._changed = False

    def recall(self, one: Installed, layout: Layout) -> Recalled | None:
        """The distribution as it was found last time, when it still is; else None."""
        known = self._known.get(one.folder)
        if known is None or known.basis != self._basis(one, layout):
            return None
        paths = [_path_of(file.path, layout) for file in known.files]
        if not all(map(_unchanged, paths, known.files)):
            return None
        self._next[one.folder] = known
        owner = Listing(name=os.path.basename(one.folder), site=one.site, layout=layout)
        owner.claimed = {*paths, *known.generated}
        found = tuple(map(_source_file, paths, known.files))
        return Recalled(
            listing=owner,
            files=DistFiles(files=found, modified=known.modified),
            source=LayerSource(
                kind=LayerKind.DISTRIBUTION, name=one.name, version=one.version, files=found, digest=known.digest
            ),
        )

    def remember(
        self,
        installed: Iterable[Installed],
        listings: Mapping[str, Listing],
        settled: Mapping[str, DistFiles],
        sources: Mapping[str, LayerSource],
    ) -> None:
        """Keep what was found of those of `installed` that are sound. Mappings are by name of distribution."""
        claims = Counter(file.entry.path for source in sources.values() for file in source.files)
        for one in installed:
            if one.name in settled:
                self._next.pop(one.folder, None)
            if one.name in settled and one.name in sources and one.has_record:
                known = self._known_of(one, listings[one.name], settled[one.name], sources[one.name], claims)
                if known:
                    self._next[one.folder] = known
                    self._changed = True

    def save(self) -> None:
        """Write what changed, atomically; what was neither recalled nor remembered is forgotten."""
        if self._changed or self._next.keys() != self._known.keys():
            write_kept(self._file, self._next)

    def _basis(self, one: Installed, layout: Layout) -> str:
        path = os.path.join(one.folder, "RECORD")
        try:
            facts = os.stat(path)
        except OSError:
            return ""
        return repr((self._rules, _facts(facts), msgspec.structs.astuple(layout)))

    def _known_of(
        self, one: Installed, owner: Listing, settled: DistFiles, source: LayerSource, claims: Counter[str]
    ) -> _Known | None:
        if settled.problems or settled.missing or settled.unlisted or owner.problems:
            return None
        found: list[_File] = []
        for file in source.files:
            entry = file.entry
            disk = owner.files.get(entry.path)
            if disk is None or entry.link or claims[entry.path] > 1 or _path_of(entry.path, owner.layout) != disk.path:
                return None
            if max(disk.stat.st_mtime_ns, disk.stat.st_ctime_ns) > self._began - RACY_NS:
                return None
            facts = _facts(disk.stat)
            found.append(_File(entry.path, entry.sha256, entry.size, entry.executable, *facts, file.data))
        generated = owner.claimed - {disk.path for disk in owner.files.values()}
        basis = self._basis(one, owner.layout)
        return _Known(basis, source.digest, found, settled.modified, sorted(generated)) if basis else None


def _path_of(layer_path: str, layout: Layout) -> str:
    """Where a file of a layer lies on the disk: the way back from `identity.installed_path`."""
    if layer_path.startswith("purelib/"):
        return layout.purelib + layer_path[7:]
    scheme, _, rest = layer_path.partition("/")
    bases = {"scripts": layout.scripts, "headers": layout.headers, "data": layout.prefix}
    return f"{bases[scheme]}/{rest}"


def _unchanged(path: str, file: _File) -> bool:
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    return (
        facts.st_mtime_ns == file.mtime_ns
        and facts.st_ctime_ns == file.ctime_ns
        and facts.st_ino == file.inode
        and facts.st_size == file.stat_size
    )


def _source_file(path: str, file: _File) -> SourceFile:
    entry = FileEntry(path=file.path, sha256=file.sha256, size=file.size, executable=file.executable)
    return SourceFile(entry=entry, path="" if file.data is not None else path, data=file.data)


def _facts(facts: os.stat_result) -> tuple[int, int, int, int]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _rules() -> str:
    """Changes with every change of the modules that say what a distribution's files are."""
    modules = (identity, layer, files, listing, record, unlisted, sys.modules[__name__])
    try:
        return repr([_facts(os.stat(module.__file__ or "")) for module in modules])
    except OSError:  # imported from an archive
        return "unknown"
