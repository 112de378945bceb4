"""Manifest → prefix: get and check the layers that are missing, link them together, write what is generated.

One process at a time makes anything in a cache; others wait for it and then find it done. It forks helpers that take
layers from a queue, the largest first: unpacking keeps a core busy, and Python's threads would take turns.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence

import msgspec

from likewise.errors import NodeError
from likewise.model.digest import Digest
from likewise.model.manifest import LayerRef, Manifest
from likewise.node.cache import NodeCache, locked, sweep
from likewise.node.disk import Tree, check_space, disk_error, remove_tree
from likewise.node.expiry import prune
from likewise.node.generated import Generated, Place, environment_files, layer_files, rewritten
from likewise.node.growing import can_start, wait_until_whole
from likewise.node.helpers import run_forked
from likewise.node.layers import LayerShelf
from likewise.node.linking import failures_named, link_layer, twice
from likewise.node.parts import Part, parts_of
from likewise.node.sources import Source, UnpackedKit

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
    return twice(lambda: _lay(part, shelf, building, place))


def _lay(part: Part, shelf: LayerShelf, building: str, place: Place) -> bytes:
    entries = shelf.get(part.digest, part.ref.name)
    with failures_named(part, shelf, place):
        reader = shelf.reader(part.digest, rewritten(entries))
        own, scripts = ([], []) if part.is_bytecode else layer_files(part.ref, entries, reader, place)
        link_layer(entries, shelf.folder(part.digest), building, place, {file.path for file in own}, part.ref.name)
        with Tree(building) as tree:
            for file in own:
                write(tree, file)
    return msgspec.msgpack.encode(scripts)


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
