"""Manifest → prefix: get and check the layers that are missing, link them together, write what is generated.

One process at a time makes anything in a cache; others wait for it and then find it done. It forks helpers that take
layers from a queue, the largest first: unpacking keeps a core busy, and Python's threads would take turns.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from likewise.errors import NodeError
from likewise.model.digest import Digest
from likewise.model.layer import FileEntry
from likewise.model.manifest import LayerRef, Manifest, scheme_dirs
from likewise.node.cache import NodeCache, locked, sweep
from likewise.node.disk import READ, Tree, check_space, disk_error, link_or_copy, remove_tree
from likewise.node.expiry import prune
from likewise.node.generated import Generated, Place, environment_files, layer_files
from likewise.node.growing import can_start, wait_until_whole
from likewise.node.helpers import run_forked
from likewise.node.layers import LayerShelf
from likewise.node.sources import Source, UnpackedKit
from likewise.node.unpack import file_digest

_SCRIPTS = msgspec.msgpack.Decoder(list[Generated])


def materialise(
    cache: NodeCache,
    manifest: Manifest,
    sources: Sequence[Source],
    *,
    kit: UnpackedKit | None = None,
    helpers: int | None = None,
) -> str:
    """Make the prefix of `manifest` unless it is there.

    Parameters
    ----------
    cache : NodeCache
    manifest : Manifest
    sources : sequence of Source
        Asked in this order for each layer that the cache lacks; a damaged copy is rejected and the next one asked.
    kit : UnpackedKit, optional
        Asked first.
    helpers : int, optional
        Processes to work with; as many as this process may use cores by default.

    Returns
    -------
    str
        The prefix.

    Raises
    ------
    NodeError
        When a layer can't be had (it is named), two layers contradict each other, or the disk can't take it. Nothing
        half-made is visible then, and the cache stays usable.
    """
    workers = helpers or len(os.sched_getaffinity(0))

    def fill(shelf: LayerShelf, building: str, place: Place) -> None:
        lay_out(manifest.layers, shelf, building, place, workers)
        with Tree(building) as tree:
            for file in environment_files(manifest, place):
                write(tree, file)

    prefix = make_prefix(cache, manifest, sources, kit, fill)
    problems = wait_until_whole(prefix, manifest)  # somebody may have started with it while it grows
    if problems:
        raise NodeError(
            "The prefix can't be completed: " + "; ".join(f"{n}: {p}" for n, p in sorted(problems.items())),
            where=prefix,
            todo="Start the cluster again.",
            details={"layers": problems},
        )
    return prefix


def make_prefix(
    cache: NodeCache,
    manifest: Manifest,
    sources: Sequence[Source],
    kit: UnpackedKit | None,
    fill: Callable[[LayerShelf, str, Place], None],
) -> str:
    """Have `fill` lay out a prefix in a new directory, and rename that; unless there is one that can be started.

    Parameters
    ----------
    cache, manifest, sources, kit
        As in `materialise`.
    fill : callable
        Called with a shelf of layers, the directory, and the place where its content will be.

    Raises
    ------
    NodeError
        As `materialise`.
    """
    prefix = cache.prefix(manifest.id)
    if can_start(prefix):
        return prefix
    try:
        with locked(cache):
            if not can_start(prefix):
                prune(cache, have_lock=True)
                _make_or_sweep(cache, manifest, LayerShelf(cache, sources, kit), fill)
    except OSError as error:
        raise disk_error(error, cache.root) from error
    return prefix


def _make_or_sweep(
    cache: NodeCache, manifest: Manifest, shelf: LayerShelf, fill: Callable[[LayerShelf, str, Place], None]
) -> None:
    for retry in (True, False):
        try:
            place = Place(prefix=cache.prefix(manifest.id), cache=cache.root, python=manifest.python)
            building = f"{cache.place('tmp')}/prefix.{manifest.id[:16]}.{os.getpid()}"
            os.mkdir(building, 0o755)
            fill(shelf, building, place)
            if os.path.lexists(place.prefix):
                os.rename(place.prefix, f"{building}.old")
            os.rename(building, place.prefix)
            remove_tree(f"{building}.old")
            return
        except BaseException as error:
            sweep(cache)  # what was being made, by the helpers too, which are gone by now
            if not (retry and isinstance(error, NodeError) and error.details.get("incomplete")):
                raise


class Part(msgspec.Struct, frozen=True):
    """A layer to lay out: that of `ref`, or its bytecode."""

    ref: LayerRef
    digest: Digest

    @property
    def is_bytecode(self) -> bool:
        """Which of the two."""
        return self.digest == self.ref.bytecode


def lay_out(refs: Sequence[LayerRef], shelf: LayerShelf, building: str, place: Place, helpers: int) -> None:
    """Get layers with their bytecode, link them into the directory `building`, write what is generated for each.

    Raises
    ------
    NodeError
        See `materialise`.
    """
    scripts = lay_parts(parts_of(refs), shelf, building, place, helpers)
    with Tree(building) as tree:
        write_scripts(tree, [script for ref in refs for script in scripts[ref.digest]])


def parts_of(refs: Sequence[LayerRef]) -> list[Part]:
    """The layers and their bytecode, each once."""
    parts = {ref.digest: Part(ref, ref.digest) for ref in refs}
    parts.update({ref.bytecode: Part(ref, ref.bytecode) for ref in refs if ref.bytecode})
    return list(parts.values())


def lay_parts(
    parts: Sequence[Part], shelf: LayerShelf, building: str, place: Place, helpers: int
) -> dict[Digest, list[Generated]]:
    """Get layers and link them into the directory `building`; the scripts that the entry points of each ask for.

    Raises
    ------
    NodeError
        See `materialise`.
    """
    missing = [part.ref for part in parts if not part.is_bytecode and not shelf.has(part.digest)]
    check_space(place.cache, size=sum(r.size for r in missing), files=sum(r.files for r in missing))
    # bytecode is about as much as the sources, and those are a part of the layer
    queue = sorted(parts, key=lambda part: -part.ref.size // (4 if part.is_bytecode else 1))
    laid = run_forked(len(queue), lambda number: lay_part(queue[number], shelf, building, place), helpers)
    return {part.digest: _SCRIPTS.decode(made) for part, made in zip(queue, laid, strict=True)}


def lay_part(part: Part, shelf: LayerShelf, building: str, place: Place) -> bytes:
    """Get one layer and link it into the prefix; the scripts that its entry points ask for, encoded."""
    entries = shelf.get(part.digest, part.ref.name)
    with failures_named(part, shelf, place):
        reader = shelf.reader(part.digest)
        own, scripts = ([], []) if part.is_bytecode else layer_files(part.ref, entries, reader, place)
        _link(entries, shelf.folder(part.digest), building, place, {file.path for file in own}, part.ref.name)
        with Tree(building) as tree:
            for file in own:
                write(tree, file)
    return msgspec.msgpack.encode(scripts)


@contextlib.contextmanager
def failures_named(part: Part, shelf: LayerShelf, place: Place) -> Iterator[None]:
    """What goes wrong while a layer is laid out, as an error that names it; what is incomplete will be fetched anew.

    Raises
    ------
    NodeError
    """
    try:
        yield
    except FileNotFoundError as error:
        shelf.forget(part.digest)
        raise NodeError(
            f"The layer in the node's cache is incomplete ({error}).",
            where=part.ref.name,
            todo="It will be fetched anew at the next try: start the cluster again.",
            details={"incomplete": part.digest},
        ) from error
    except OSError as error:
        raise disk_error(error, f"{part.ref.name}, in {place.prefix}") from error


def _link(entries: Sequence[FileEntry], folder: str, building: str, place: Place, instead: set[str], name: str) -> None:
    dirs = {scheme: f"{base}/" if base else "" for scheme, base in scheme_dirs(place.python).items()}
    with Tree(folder, make=False) as source, Tree(building) as target:
        for entry in entries:
            scheme, _, rest = entry.path.partition("/")
            path = dirs[scheme] + rest
            if path in instead:
                continue
            try:
                into, new = target.enter(path)
                if entry.link:
                    os.symlink(entry.link, new, dir_fd=into)
                else:
                    at, old = source.enter(entry.path)
                    link_or_copy(at, old, into, new, executable=entry.executable)
            except FileExistsError as error:
                if not same_content(entry, source, into, new):
                    raise contradiction(name, path, "holds something else") from error
            except NotADirectoryError as error:
                raise contradiction(name, path, "has a file where a folder is needed") from error


def contradiction(name: str, path: str, reason: str) -> NodeError:
    """The refusal of the layer `name`: another one has something else at `path`."""
    return NodeError(
        f"Two layers claim {path}, and the other one {reason}.",
        where=name,
        todo="This is a fault in likewise, please report it.",
        details={"layer": name, "path": path},
    )


def same_content(entry: FileEntry, source: Tree, into: int, name: str) -> bool:
    """Whether the file that is there already is what `entry` wants there (two distributions may own one path)."""
    found = os.lstat(name, dir_fd=into)
    if entry.link:
        return stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=into) == entry.link
    if not stat.S_ISREG(found.st_mode) or bool(found.st_mode & 0o100) != entry.executable:
        return False
    at, ours = source.enter(entry.path)
    with open(os.open(name, READ, dir_fd=into), "rb") as one, open(os.open(ours, READ, dir_fd=at), "rb") as other:
        return file_digest(one.fileno()) == file_digest(other.fileno())


def write_scripts(tree: Tree, scripts: Iterable[Generated]) -> None:
    """Write the scripts of entry points, where there is not yet content of a layer, or another one of that name."""
    for script in scripts:
        with contextlib.suppress(FileExistsError):
            write(tree, script)


def write(tree: Tree, file: Generated) -> None:
    """Make a generated file; it must not exist."""
    if file.link:
        tree.symlink(file.path, file.link)
    else:
        tree.write(file.path, file.data, executable=file.executable)
