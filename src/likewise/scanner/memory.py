"""What the last scan found of each distribution: the reason why a second scan of many is a matter of milliseconds.

A distribution is as it was when its metadata folder has the names it had, and everything in that folder and every file
that its `RECORD` listed have the stat facts they had. Then its metadata need not be read, nor its file list parsed,
checked or hashed again; the list is not even made unless somebody looks at it. Only sound distributions are remembered,
those without problems and without a path that somebody else has too; all others take the long way each time.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from likewise.model import identity, layer, origins, record
from likewise.model.digest import Digest, digest_bytes
from likewise.model.identity import Layout
from likewise.model.layer import FileEntry, LayerKind, LayerSource, LazyFiles, SourceFile
from likewise.model.origins import redact, redact_requirement
from likewise.scanner import beliefs, distributions, editables, files, listing, metadata, stats, unlisted
from likewise.scanner.beliefs import Beliefs
from likewise.scanner.distributions import DIST_INFO, Installed
from likewise.scanner.facts import now_ns, read_kept, write_kept
from likewise.scanner.files import DistFiles, imports_of
from likewise.scanner.listing import Listing
from likewise.scanner.stats import facts_of, is_young, join_paths, pack, split_paths, version_of


class _File(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One file: its entry, the content of a script whose first line is another in the layer, whether it is believed."""

    path: str
    sha256: Digest
    size: int
    executable: bool
    data: bytes | None
    believed: bool


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """One distribution. Lists are packed (see `stats`), since an unchanged prefix needs few of them.

    `watched` has the paths whose stat facts `facts` are: the `count` files of the layer, then what else is in the
    metadata folder (`names`). `generated` is what it owns beside the layer's files; `claims` says what it owns in all.
    `note` names the note that says that it holds something else than was believed; "" when all of it was read.
    """

    installed: Installed
    names: tuple[str, ...]
    watched: bytes
    facts: bytes
    digest: Digest
    count: int
    size: int
    content: bytes
    generated: bytes
    claims: Digest
    pths: tuple[str, ...]
    imports: tuple[str, ...]
    modified: tuple[str, ...]
    note: str


class _Kept(msgspec.Struct, frozen=True):
    """The content of the file. `layouts` by site directory, distributions by metadata folder."""

    rules: str
    layouts: dict[str, Layout]
    known: dict[str, _Known]


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution that is as it was.

    Attributes
    ----------
    site : str
    claims : Digest
        Says what it owns; see `claims_of`.
    pths : tuple of str
        Its ``.pth`` files in the site directory.
    imports : tuple of str
        See `imports_of`.
    files : DistFiles
    source : LayerSource
    listing : callable
        Makes a `Listing` without files, which only claims what is the distribution's.
    paths : callable
        Lists the layer paths of its files, at less cost than making `files` would.
    """

    site: str
    claims: Digest
    pths: tuple[str, ...]
    imports: tuple[str, ...]
    files: DistFiles
    source: LayerSource
    listing: Callable[[], Listing]
    paths: Callable[[], list[str]]


class Memory:
    """What is known of the distributions of one prefix, kept in one file of `folder` (see `Facts`).

    Parameters
    ----------
    folder : Path
    prefix : str
    believed : Beliefs
        What they were is forgotten when it was believed and is wrong.

    Attributes
    ----------
    rules : str
        Changes with the modules that say what a distribution and its files are.
    """

    def __init__(self, folder: Path, prefix: str, believed: Beliefs) -> None:
        self._file = folder / f"{digest_bytes(os.fsencode(prefix))[:32]}.memory"
        self._believed = believed
        self._began = now_ns()
        self.rules = _rules()
        kept = read_kept(self._file, _Kept)
        self._kept = kept if kept and kept.rules == self.rules else _Kept(self.rules, {}, {})
        self._same: dict[str, _Known] = {}
        self._next: dict[str, _Known] = {}
        self._layouts: dict[str, Layout] = {}
        self._changed = False

    def installed(self, folder: str) -> Installed | None:
        """What the metadata folder says, when the distribution is as it was; else None."""
        known = self._kept.known.get(folder)
        if known is None or not self._believed.hold(known.note) or not _unchanged(folder, known):
            return None
        self._same[folder] = known
        return known.installed

    def is_plain(self, one: Installed) -> bool:
        """Whether `one` is known to be no editable: it is as it was, says nothing of it, and has no ``.pth`` file."""
        known = self._same.get(one.folder)
        declared = one.direct is not None and one.direct.dir_info is not None and one.direct.dir_info.editable
        return known is not None and not known.pths and not declared and not one.link

    def recall(self, one: Installed, layout: Layout) -> Recalled | None:
        """The distribution as it was found last time, when it still is; else None."""
        known = self._same.get(one.folder)
        if known is None or self._kept.layouts.get(one.home) != layout:
            return None
        self._next[one.folder] = known
        self._layouts[one.home] = layout
        note = self._believed.note(known.note)
        found = LazyFiles(partial(_source_files, known, layout, note), count=known.count, size=known.size)
        return Recalled(
            site=one.site,
            claims=known.claims,
            pths=tuple(path for path in known.pths if os.path.dirname(path) == layout.purelib),
            imports=known.imports,
            files=DistFiles(files=found, modified=known.modified),
            source=LayerSource(
                kind=LayerKind.DISTRIBUTION, name=one.name, version=one.version, files=found, digest=known.digest
            ),
            listing=partial(_listing, known, layout),
            paths=partial(_layer_paths, known),
        )

    def remember(
        self,
        installed: Iterable[Installed],
        listings: Mapping[str, Listing],
        settled: Mapping[str, DistFiles],
        sources: Mapping[str, LayerSource],
    ) -> dict[str, tuple[str, ...]]:
        """Keep what was found of those of `installed` that are sound. Mappings are by name of distribution.

        Returns what those that are kept have to be imported (see `imports_of`).
        """
        counted = Counter([file.entry.path for source in sources.values() for file in source.files])
        shared = {path for path, count in counted.items() if count > 1}
        kept: dict[str, tuple[str, ...]] = {}
        for one in installed:
            if one.name not in settled:
                continue
            self._next.pop(one.folder, None)
            if one.name in sources and _may_be_kept(one):
                known = self._known_of(one, listings[one.name], settled[one.name], sources[one.name], shared)
                if known:
                    self._next[one.folder] = known
                    self._layouts[one.home] = listings[one.name].layout
                    self._changed = True
                    kept[one.name] = known.imports
        return kept

    def save(self) -> None:
        """Write what changed, atomically; what was neither recalled nor remembered is forgotten."""
        if self._changed or self._next.keys() != self._kept.known.keys():
            write_kept(self._file, _Kept(self.rules, self._layouts, self._next))

    def _known_of(
        self, one: Installed, owner: Listing, settled: DistFiles, source: LayerSource, shared: Collection[str]
    ) -> _Known | None:
        if settled.problems or settled.missing or settled.unlisted or owner.problems or owner.tops or owner.linked:
            return None
        paths = _paths(owner, source, shared)
        names = _names(one.folder)
        others = _beside(one.folder, names, paths)
        facts = self._facts(owner, source, others) if paths and others else b""
        if not facts:
            return None
        return _Known(
            installed=one,
            names=names,
            watched=join_paths([*paths, *others], one.site),
            facts=facts,
            digest=source.digest,
            count=len(paths),
            size=source.size,
            content=msgspec.msgpack.encode([_row_of(file) for file in source.files]),
            generated=join_paths(sorted(owner.claimed.difference(paths)), one.site),
            claims=claims_of(owner),
            pths=tuple(sorted(path for path in owner.claimed if path.endswith(".pth"))),
            imports=imports_of(source),
            modified=settled.modified,
            note=next((os.path.basename(file.believed) for file in source.files if file.believed), ""),
        )

    def _facts(self, owner: Listing, source: LayerSource, others: Sequence[str]) -> bytes:
        """The facts of the layer's files and of `others`; b"" when they can't be relied on.

        Those of the layer's files are from before it was read. `others` were read before this, which is as good, for
        what is written during a scan is too young to be remembered.
        """
        try:
            facts = pack([owner.files[file.entry.path].stat for file in source.files])
        except OverflowError:
            return b""
        beside = facts_of(owner.site, others)
        return facts + beside if beside and not is_young(facts + beside, self._began) else b""


def claims_of(owner: Listing) -> Digest:
    """Identifies what a listing says about whose files are whose."""
    return digest_bytes(join_paths([owner.site, owner.name, "", *sorted(owner.tops), "", *sorted(owner.claimed)]))


def _may_be_kept(one: Installed) -> bool:
    """Whether `one` says all that there is to be said of it, and no credential that would be written down once more."""
    private = one.direct is not None and redact(one.direct.url) != one.direct.url
    private = private or any(redact_requirement(text) != text for text in one.metadata.requires)
    return one.has_record and not one.flawed and not private and one.folder.endswith(DIST_INFO)


def _unchanged(folder: str, known: _Known) -> bool:
    return _names(folder) == known.names and facts_of(known.installed.site, split_paths(known.watched)) == known.facts


def _names(folder: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError:
        return ()


def _paths(owner: Listing, source: LayerSource, shared: Collection[str]) -> list[str]:
    """Where the layer's files lie; [] when that can't be told from their names alone, or one of them is `shared`."""
    paths: list[str] = []
    for file in source.files:
        entry = file.entry
        disk = owner.files.get(entry.path)
        if disk is None or entry.link or entry.path in shared or _path_of(entry.path, owner.layout) != disk.path:
            return []
        paths.append(disk.path)
    return paths


def _beside(folder: str, names: Iterable[str], paths: Iterable[str]) -> list[str]:
    """What else is in the metadata folder; [] when one of it is a link, whose facts are not those of its content."""
    taken = set(paths)
    others = [path for name in names if (path := os.path.join(folder, name)) not in taken]
    return [] if any(map(os.path.islink, others)) else others


def _listing(known: _Known, layout: Layout) -> Listing:
    site = known.installed.site
    owner = Listing(name=os.path.basename(known.installed.folder), site=site, layout=layout)
    names = split_paths(known.watched)[: known.count] + split_paths(known.generated)
    base = site.rstrip("/") + "/"
    owner.claimed = {name if name.startswith("/") else base + name for name in names}
    return owner


def _layer_paths(known: _Known) -> list[str]:
    return [file.path for file in msgspec.msgpack.decode(known.content, type=list[_File])]


def _source_files(known: _Known, layout: Layout, note: str) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(
            entry=FileEntry(path=file.path, sha256=file.sha256, size=file.size, executable=file.executable),
            path="" if file.data is not None else _path_of(file.path, layout),
            data=file.data,
            believed=note if file.believed else "",
        )
        for file in msgspec.msgpack.decode(known.content, type=list[_File])
    )


def _row_of(file: SourceFile) -> tuple[object, ...]:
    """`file` as a `_File` is written: making one for each would take as long as writing it."""
    entry = file.entry
    return entry.path, entry.sha256, entry.size, entry.executable, file.data, file.believed != ""


def _path_of(layer_path: str, layout: Layout) -> str:
    """Where a file of a layer lies on the disk: the way back from `identity.installed_path`."""
    if layer_path.startswith("purelib/"):
        return layout.purelib + layer_path[7:]
    scheme, _, rest = layer_path.partition("/")
    bases = {"scripts": layout.scripts, "headers": layout.headers, "data": layout.prefix}
    return f"{bases[scheme]}/{rest}"


def _rules() -> str:
    """Changes with every change of the modules that say what a distribution and its files are."""
    return version_of(
        identity, layer, beliefs, distributions, editables, files, listing, metadata, origins, record, stats, unlisted,
        sys.modules[__name__],
    )  # fmt: skip
