"""The files of installed distributions, with the sha256 of what is on the disk.

Three steps, so that all distributions of a prefix are read by one pool of threads with one progress bar::

    listings = [list_files(d, layout=layout) for d in dist_infos]      # RECORD and lstat; nothing is read
    unowned = find_unlisted(listings)                                  # files that no RECORD names
    results = settle(listings, facts, progress=…)                      # hashes what is neither known nor believed

`dist_files` does them for a single distribution. `layer_source(LayerKind.DISTRIBUTION, name, version, result.files)`
then makes the layer; it raises LayerError for names that collide when case is ignored.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import msgspec

from likewise.model.digest import EMPTY, Digest, digest_bytes
from likewise.model.identity import Layout, layout_for, script_from_prefix
from likewise.model.layer import FileEntry, LayerSource, SourceFile, layer_digest
from likewise.model.snapshot import Problem, Severity
from likewise.scanner.listing import Found, Listing, list_files, refuse_shortage, settle_links
from likewise.scanner.unlisted import find_unlisted

__all__ = [
    "DistFiles",
    "Facts",
    "Layout",
    "Listing",
    "dist_files",
    "find_unlisted",
    "hash_file",
    "hash_files",
    "layout_for",
    "list_files",
    "record_digest",
    "settle",
]

CHUNK = 1 << 20
SHEBANG_ROOM = 4096  # a path is at most this long
Progress = Callable[[int, int], None]


class Facts(Protocol):
    """What is known of files from earlier scans."""

    def digest(self, path: str, stat: os.stat_result) -> Digest | None: ...
    def remember(self, path: str, stat: os.stat_result, digest: Digest) -> None: ...


class DistFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one installed distribution.

    Attributes
    ----------
    files : sequence of SourceFile
        Sorted by path.
    modified : tuple of str
        Layer paths whose content is not what `RECORD` claims.
    missing : tuple of str
        Layer paths that `RECORD` claims and that are not there.
    unlisted : tuple of str
        Layer paths that `RECORD` does not name.
    problems : tuple of Problem
        With severity ERROR where a file had to be left out.
    """

    files: Sequence[SourceFile]
    modified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def dist_files(dist_info: Path, *, layout: Layout, facts: Facts, owned: Sequence[str] | None = None) -> DistFiles:
    """All three steps for one distribution that shares its directories with no other. See `list_files`, `settle`."""
    listing = list_files(dist_info, layout=layout, owned=owned)
    find_unlisted([listing])
    return settle([listing], facts)[0]


def settle(
    listings: Sequence[Listing], facts: Facts, *, progress: Progress | None = None, threads: int = 0
) -> list[DistFiles]:
    """Make sure of the content of every listed file.

    Parameters
    ----------
    listings : sequence of Listing
    facts : Facts
        Files it knows are not read; what is read it is told. Of what is believed (`Found.believed`) it is only asked.
    progress : callable, optional
        Called with (bytes read so far, bytes to read in all) from any thread; never when there is nothing to read.
    threads : int, default 0
        0 for one per processor, at most 8.

    Returns
    -------
    list of DistFiles
        In the order of `listings`.
    """
    for listing in listings:
        settle_links(listing)
    digests, believed, pending = _known(listings, facts)
    failures = _read(pending, digests, facts, progress, threads or min(8, os.cpu_count() or 1))
    digests.update(believed)
    return [_result(listing, digests, believed, failures) for listing in listings]


def _known(listings: Sequence[Listing], facts: Facts) -> tuple[dict[str, Digest], dict[str, Digest], dict[str, Found]]:
    """By path: what is known, what is believed since nobody says otherwise, and what has to be read."""
    digests: dict[str, Digest] = {}
    believed: dict[str, Digest] = {}
    pending: dict[str, Found] = {}
    for listing in listings:
        for found in listing.files.values():
            path, claim = found.path, found.claim if found.believed else None
            if found.link or path in digests or path in pending:
                continue
            if path in believed:
                if claim != believed[path]:  # two distributions claim it, and not the same
                    del believed[path]
                    pending[path] = found
                continue
            digest = facts.digest(path, found.stat)
            if digest is not None:
                digests[path] = digest
            elif claim is not None:
                believed[path] = claim
            else:
                pending[path] = found
    return digests, believed, pending


def _read(
    pending: dict[str, Found], digests: dict[str, Digest], facts: Facts, progress: Progress | None, threads: int
) -> dict[str, str]:
    """Hash `pending` into `digests`; returns the reason for each file that could not be read."""
    failures: dict[str, str] = {}
    if not pending:
        return failures
    total = sum(found.stat.st_size for found in pending.values())
    lock, done = threading.Lock(), 0

    def work(batch: list[Found]) -> None:
        nonlocal done
        for found in batch:
            try:
                digest = hash_file(found.path)
            except OSError as error:
                refuse_shortage(error, found.path)
                failures[found.path] = error.strerror or str(error)
                continue
            digests[found.path] = digest
            facts.remember(found.path, found.stat, digest)
        if progress:
            with lock:
                done += sum(found.stat.st_size for found in batch)
                progress(done, total)

    pool = ThreadPoolExecutor(threads)
    try:
        for _ in pool.map(work, _batches(pending)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for gigabytes
    return failures


def hash_files(
    stats: Mapping[str, os.stat_result], facts: Facts, *, progress: Progress | None = None, threads: int = 0
) -> tuple[dict[str, Digest], dict[str, str]]:
    """The sha256 of each of these files, by path, and the reason for each that could not be read.

    Parameters
    ----------
    stats : mapping
        By path.
    facts, progress, threads
        As for `settle`.
    """
    digests: dict[str, Digest] = {}
    pending: dict[str, Found] = {}
    for path, found in stats.items():
        digest = facts.digest(path, found)
        if digest is None:
            pending[path] = Found(path, found)
        else:
            digests[path] = digest
    failures = _read(pending, digests, facts, progress, threads or min(8, os.cpu_count() or 1))
    return digests, failures


def _batches(pending: dict[str, Found]) -> Iterator[list[Found]]:
    """Up to 64 files or 8 MiB each: a task per file would cost more than reading it."""
    batch: list[Found] = []
    size = 0
    for found in pending.values():
        batch.append(found)
        size += found.stat.st_size
        if len(batch) >= 64 or size >= 8 << 20:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def hash_file(path: str) -> Digest:
    """The sha256 of the file at `path`, read in chunks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, CHUNK)
        digest = hashlib.sha256(data)
        while data:
            data = os.read(descriptor, CHUNK)
            digest.update(data)
        return Digest(digest.hexdigest())
    finally:
        os.close(descriptor)


def _result(
    listing: Listing, digests: dict[str, Digest], believed: Container[str], failures: dict[str, str]
) -> DistFiles:
    note = listing.voucher.note if listing.voucher else ""
    files: list[SourceFile] = []
    modified: list[str] = []
    for layer_path, found in sorted(listing.files.items()):
        if found.link:
            files.append(SourceFile(entry=FileEntry(path=layer_path, sha256=EMPTY, size=0, link=found.link)))
            continue
        digest = digests.get(found.path)
        if digest is None:
            why = failures.get(found.path, "it vanished")
            listing.problem("unreadable-file", f"{found.path} can't be read ({why}); it is not shipped.")
            continue
        if found.claim is not None and digest != found.claim:
            modified.append(layer_path)
        files.append(
            _script(layer_path, found, listing.layout)
            or SourceFile(
                entry=_entry(layer_path, found, digest),
                path=found.path,
                believed=note if found.path in believed else "",
            )
        )
    if listing.unlisted:
        shown = ", ".join(sorted(listing.unlisted)[:3]) + (", …" if len(listing.unlisted) > 3 else "")
        listing.problem("unlisted-files", f"RECORD does not list {len(listing.unlisted)} of its files ({shown}); "
                        "they are shipped as they are.", Severity.NOTE)  # fmt: skip
    return DistFiles(
        files=tuple(files),
        modified=tuple(modified),
        missing=tuple(sorted(set(listing.missing))),
        unlisted=tuple(sorted(listing.unlisted)),
        problems=tuple(listing.problems),
    )


def _entry(layer_path: str, found: Found, digest: Digest) -> FileEntry:
    executable = found.stat.st_mode & 0o111 != 0
    return FileEntry(path=layer_path, sha256=digest, size=found.stat.st_size, executable=executable)


def _script(layer_path: str, found: Found, layout: Layout) -> SourceFile | None:
    """A script whose first line names this prefix's interpreter, with the neutral line in its place; else None."""
    if not layer_path.startswith("scripts/"):
        return None
    try:
        with open(found.path, "rb") as file:
            head = file.read(SHEBANG_ROOM)
            if script_from_prefix(head, lambda path: _is_own(path, layout)) is None:
                return None
            data = script_from_prefix(head + file.read(), lambda path: _is_own(path, layout)) or b""
    except OSError:
        return None
    entry = FileEntry(path=layer_path, sha256=digest_bytes(data), size=len(data), executable=True)
    return SourceFile(entry=entry, data=data)


def _is_own(path: str, layout: Layout) -> bool:
    folder = os.path.dirname(path)
    return (
        folder == layout.scripts
        or path in layout.executables
        or os.path.realpath(folder) == os.path.realpath(layout.scripts)
    )


def imports_of(source: LayerSource) -> tuple[str, ...]:
    """Names of the modules, packages and namespace packages that a layer has directly in the site directory."""
    paths = [file.entry.path for file in source.files]
    tops = {p[8:].partition("/")[0].partition(".")[0] for p in paths if p.endswith((".py", ".so", ".pyc"))
            and p.startswith("purelib/")}  # fmt: skip
    return tuple(sorted(name for name in tops if name.isidentifier()))


def record_digest(dist_info: Path, *, layout: Layout) -> Digest:
    """The identity that an installed distribution's `RECORD` claims; only scripts, and files without a hash, are read.

    What `settle` finds is the truth; this is how quickly it can be known when the truth is what `RECORD` says.
    """
    listing = list_files(dist_info, layout=layout)
    settle_links(listing)
    entries: list[FileEntry] = []
    for layer_path, found in sorted(listing.files.items()):
        if found.link:
            entries.append(FileEntry(path=layer_path, sha256=EMPTY, size=0, link=found.link))
            continue
        script = _script(layer_path, found, layout)
        entries.append(script.entry if script else _entry(layer_path, found, found.claim or hash_file(found.path)))
    return layer_digest(entries)
