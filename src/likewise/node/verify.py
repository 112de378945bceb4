"""Is this prefix, byte for byte, what its manifest says?

Every file is read: those of the layers are compared with the layers' listings (whose digests the manifest has), those
that were generated are computed again, and what nobody owns is named. Then Python is asked what it sees.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from likewise.errors import LayerError, NodeError
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind, decode_listing
from likewise.model.manifest import LayerRef, Manifest, prefix_path, scheme_dirs
from likewise.model.verify import Difference, DifferenceKind, NodeReport
from likewise.node.adopt import delta_layers, read_manifests, site_directory
from likewise.node.cache import NodeCache, host_name
from likewise.node.delta import delta_files, delta_place
from likewise.node.disk import READ
from likewise.node.generated import Generated, Place, environment_files, layer_files, rewritten
from likewise.node.growing import wait_until_whole
from likewise.node.unpack import file_digest

PREFIX = "(prefix)"
"""Stands for the layer of what belongs to the prefix as a whole."""

_BATCH = 128


class Content(msgspec.Struct, frozen=True, gc=False):
    """What is, or should be, at one path: a file with this content, or a symbolic link."""

    sha256: str = ""
    executable: bool = False
    link: str = ""

    def __str__(self) -> str:
        if self.link:
            return f"link to {self.link}"
        return f"sha256 {self.sha256}{', executable' if self.executable else ''}"


class Expected(msgspec.Struct, frozen=True, gc=False):
    """The content that should be at one path, and the layer that it belongs to."""

    layer: str
    content: Content


def verify_prefix(prefix: str, *, deltas: Sequence[str] = (), node: str = "", threads: int | None = None) -> NodeReport:
    """Check a prefix in a node's cache. One that is growing is checked when it is complete.

    Parameters
    ----------
    prefix : str
        ``<cache>/prefixes/<id>``.
    deltas : sequence of str
        What a process has adopted since it started, oldest first: they are checked, too, and the report's manifest is
        what prefix and deltas amount to.
    node : str
        How the node calls itself in the report; its host name by default.
    threads : int, optional
        One for each core by default: reading and hashing release Python's lock.

    Returns
    -------
    NodeReport
        `differences` is empty when everything is as it should be. `processes` is for the caller to fill.

    Raises
    ------
    NodeError
        When there is no prefix of ours.
    """
    prefix = os.path.abspath(prefix)
    cache = NodeCache(os.path.dirname(os.path.dirname(prefix)))
    threads = threads or len(os.sched_getaffinity(0))
    check = _Check(prefix, cache)
    manifest = check.manifest()
    refs = check.without(wait_until_whole(prefix, manifest), manifest)
    started = time.perf_counter()
    place = Place(prefix=prefix, cache=cache.root, python=manifest.python)
    files, size = check.compare(refs, place, environment_files(manifest, place), threads)
    sites, found = [site_directory(prefix, manifest)], check.differences
    for folder in deltas:
        new, base = read_manifests(folder)
        if base.id == manifest.id:
            manifest = new
        beside = _Check(folder, cache)
        more = beside.compare(delta_layers(new, base), delta_place(folder, cache, new), delta_files(new, base), threads)
        files, size = files + more[0], size + more[1]
        sites.insert(0, site_directory(folder, new))  # where versions differ, it is because the newer one comes first
        found += beside.differences
    distributions = installed(*sites)
    version = python_version(prefix)
    check.versions(manifest, distributions, version)
    node = node or host_name()
    return NodeReport(
        node=node,
        prefix=prefix,
        executable=f"{prefix}/bin/python",
        python=version,
        manifest=manifest.id,
        distributions=distributions,
        files=files,
        size=size,
        seconds=time.perf_counter() - started,
        differences=tuple(msgspec.structs.replace(difference, node=node) for difference in found),
    )


class _Check:
    """One look at a prefix or a delta; what is found is collected in `differences`."""

    def __init__(self, prefix: str, cache: NodeCache) -> None:
        self._prefix = prefix
        self._cache = cache
        self._listings_sound = True
        self.differences: list[Difference] = []

    def _differs(self, kind: DifferenceKind, layer: str, subject: str, expected: str = "", actual: str = "") -> None:
        self.differences.append(
            Difference(node="", kind=kind, layer=layer, subject=subject, expected=expected, actual=actual)
        )

    def manifest(self) -> Manifest:
        """The prefix's manifest, which must be the one that the prefix is named for."""
        path = f"{self._prefix}/manifest.json"
        try:
            with open(path, "rb") as file:
                data = file.read()
            manifest = msgspec.json.decode(data, type=Manifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise NodeError(
                f"There is no prefix of likewise, or its manifest is damaged ({error}).",
                where=self._prefix,
                todo="Start the cluster again with an empty node cache.",
            ) from error
        name, digest = os.path.basename(self._prefix), digest_bytes(data)
        if digest[: len(name)] != name:
            self._differs(DifferenceKind.MANIFEST, PREFIX, "manifest.json", name, digest[: len(name)])
        return manifest

    def without(self, lacking: Mapping[str, str], manifest: Manifest) -> list[LayerRef]:
        """The layers that are there; of the others it is said why they are not (by name)."""
        for ref in manifest.layers:
            if ref.name in lacking:
                self._differs(DifferenceKind.MISSING, ref.name, "(layer)", ref.digest, lacking[ref.name])
        if lacking:
            self._listings_sound = False  # metadata and what stands for scripts is there, and it can't be said whose
        return [ref for ref in manifest.layers if ref.name not in lacking]

    def compare(
        self, refs: Sequence[LayerRef], place: Place, files: Sequence[Generated], threads: int
    ) -> tuple[int, int]:
        """Compare what is there with the layers `refs` and the generated `files`; how many files, and bytes read."""
        expected = self._expectations(refs, place, files)
        return len(expected), self._files(expected, threads)

    def _expectations(
        self, refs: Sequence[LayerRef], place: Place, files: Sequence[Generated]
    ) -> dict[bytes, Expected]:
        """Everything that should be there, by its path (bytes, since a locale may not know all names)."""
        dirs = {scheme: f"{base}/" if base else "" for scheme, base in scheme_dirs(place.python).items()}
        expected: dict[bytes, Expected] = {}
        scripts: list[tuple[str, Generated]] = []
        for ref in refs:
            for digest in filter(None, (ref.digest, ref.bytecode)):
                entries = self._listing(ref, digest)
                for entry in entries:
                    scheme, _, rest = entry.path.partition("/")
                    expected[(dirs[scheme] + rest).encode()] = Expected(ref.name, _listed(entry))
                if digest == ref.digest:
                    own, made = layer_files(ref, entries, self._reader(ref, entries, place), place)
                    expected.update((file.path.encode(), _generated(ref.name, file)) for file in own)
                    scripts += [(ref.name, file) for file in made]
        for name, file in scripts:
            expected.setdefault(file.path.encode(), _generated(name, file))
        for file in files:
            expected[file.path.encode()] = _generated(PREFIX, file)
        return expected

    def _listing(self, ref: LayerRef, digest: str) -> Sequence[FileEntry]:
        path = self._cache.listing(digest)
        try:
            data = _first_of(*self._cache.listings(digest))
            actual = digest_bytes(data)
            if actual == digest:
                return decode_listing(data, where=ref.name)
            self._differs(DifferenceKind.CHANGED, ref.name, path, digest, actual)
        except FileNotFoundError:
            self._differs(DifferenceKind.MISSING, ref.name, path)
        except (OSError, LayerError) as error:
            self._differs(DifferenceKind.CHANGED, ref.name, path, digest, str(error))
        self._listings_sound = False
        return ()

    def _reader(self, ref: LayerRef, entries: Sequence[FileEntry], place: Place) -> Callable[[str, int], bytes]:
        """Reads files of a layer whose own copies may be in a store: what the prefix has in another form is kept."""
        digests = {entry.path: entry.sha256 for entry in entries}
        other = rewritten(entries)

        def read(path: str, size: int) -> bytes:
            whole = f"{self._cache.layer(ref.digest)}/{path}"
            kept = f"{self._cache.linked(ref.digest)}/{path}"
            same = kept if path in other else f"{self._prefix}/{prefix_path(path, place.python)}"
            try:
                data = _first_of(whole, same, size)
            except OSError as error:
                self._differs(DifferenceKind.MISSING, ref.name, whole, actual=str(error))
                return b""
            if size < 0 and digest_bytes(data) != digests[path]:
                self._differs(DifferenceKind.CHANGED, ref.name, whole, digests[path], digest_bytes(data))
            return data

        return read

    def _files(self, expected: Mapping[bytes, Expected], threads: int) -> int:
        """Compare what is there with what should be; bytes read."""
        root = os.fsencode(self._prefix)
        found = set(_walk(root))
        for path in expected.keys() - found:
            self._differs(DifferenceKind.MISSING, expected[path].layer, _shown(path))
        extra = found - expected.keys() if self._listings_sound else ()  # else a whole layer would look like nobody's
        owner = _owners(expected)
        for path in extra:
            self._differs(DifferenceKind.EXTRA, owner(path), _shown(path))
        size = 0
        for path, actual, read in _contents(root, sorted(expected.keys() & found), threads):
            size += read
            wanted = expected[path]
            if actual != wanted.content:
                self._differs(DifferenceKind.CHANGED, wanted.layer, _shown(path), str(wanted.content), str(actual))
        self.differences.sort(key=lambda d: (d.kind.value, d.layer, d.subject))
        return size

    def versions(self, manifest: Manifest, distributions: Mapping[str, str], python: str) -> None:
        """Compare what Python sees with the manifest."""
        if python != manifest.target.python:
            self._differs(DifferenceKind.VERSION, "python", "python", manifest.target.python, python)
        for ref in manifest.layers:
            actual = distributions.get(ref.name, "not there")
            if ref.kind is LayerKind.DISTRIBUTION and actual != ref.version:
                self._differs(DifferenceKind.VERSION, ref.name, ref.name, ref.version, actual)


def _first_of(path: str, other: str, size: int = -1) -> bytes:
    """The first bytes, or with a negative `size` all, of the file at `path`; where there is none, of the other one."""
    try:
        fd = os.open(path.encode(), READ)
    except FileNotFoundError:
        fd = os.open(other.encode(), READ)
    with open(fd, "rb") as file:
        return file.read(size)


def installed(*sites: str) -> dict[str, str]:
    """Versions by normalized name (PEP 503) of the distributions in site directories, as Python sees them."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=list(sites)):
        name = distribution.metadata["Name"]
        if name:
            versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(versions.items()))


def python_version(prefix: str) -> str:
    """The version of the prefix's interpreter, asked of itself; "" when it does not run."""
    if sys.prefix == prefix:
        return platform.python_version()
    ask = "import platform; print(platform.python_version())"
    argv = [f"{prefix}/bin/python", "-I", "-S", "-B", "-c", ask]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _listed(entry: FileEntry) -> Content:
    return Content(link=entry.link) if entry.link else Content(sha256=entry.sha256, executable=entry.executable)


def _generated(layer: str, file: Generated) -> Expected:
    if file.link:
        return Expected(layer, Content(link=file.link))
    return Expected(layer, Content(sha256=digest_bytes(file.data), executable=file.executable))


def _walk(root: bytes) -> Iterator[bytes]:
    """Paths of everything that is not a directory, relative to `root`."""
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(root + b"/" + folder) as entries:
            for entry in entries:
                path = folder + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path + b"/")
                else:
                    yield path


def _contents(root: bytes, paths: Sequence[bytes], threads: int) -> Iterator[tuple[bytes, Content, int]]:
    """What is at each path, and how many bytes were read for it."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]

    def read(batch: Sequence[bytes]) -> list[tuple[bytes, Content, int]]:
        return [(path, *_content(root + b"/" + path)) for path in batch]

    with ThreadPoolExecutor(threads, thread_name_prefix="likewise-verify") as pool:
        for batch in pool.map(read, batches):
            yield from batch


def _content(path: bytes) -> tuple[Content, int]:
    try:
        fd = os.open(path, READ | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Content(link=os.readlink(path).decode("utf-8", "backslashreplace")), 0
        return Content(sha256=f"can't be read: {error.strerror}"), 0
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return Content(sha256="not a regular file"), 0
        return Content(sha256=file_digest(fd), executable=bool(found.st_mode & 0o100)), found.st_size
    except OSError as error:
        return Content(sha256=f"can't be read: {error.strerror}"), 0
    finally:
        os.close(fd)


def _owners(expected: Mapping[bytes, Expected]) -> Callable[[bytes], str]:
    """Tells whose folder a path lies in: that of the layer which alone has files there."""
    owners: dict[bytes, str] = {}
    for path, wanted in expected.items():
        folder = path.rpartition(b"/")[0]
        owners[folder] = wanted.layer if owners.get(folder, wanted.layer) == wanted.layer else PREFIX

    def owner(path: bytes) -> str:
        folder = path.rpartition(b"/")[0]
        while folder and folder not in owners:
            folder = folder.rpartition(b"/")[0]
        return owners.get(folder, PREFIX)

    return owner


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
