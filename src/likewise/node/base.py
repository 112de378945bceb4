"""The base of a prefix: as much of it as Python needs to start, while the rest follows (`likewise.node.filler`).

It holds the interpreter, the layers that a node needs to join a cluster, and those that every Python of the prefix
imports when it starts (a ``.pth`` file of setuptools says so); of every other layer what can be seen
without importing anything: metadata, ``.pth`` files, the folders that belong on ``sys.path``, and scripts. Whatever is
not there yet stands in ``growing/map``.

Layers of the kit are linked from where it was unpacked. The kit was checked as a whole then, and this process runs from
it; the filler compares each of its files with the layer's listing, as it does with what comes from elsewhere. Where a
store on this machine has them unpacked, the filler has nothing left to do for them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from likewise.errors import NodeError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import FileEntry, LayerKind
from likewise.model.manifest import LayerRef, Manifest, prefix_path
from likewise.model.outline import (
    OUTLINE_PATH,
    Outline,
    OutlinedLayer,
    check_layer,
    check_names,
    closure,
    decode_outline,
    pth_folders,
    pth_words,
    tops,
)
from likewise.node.cache import NodeCache
from likewise.node.disk import Tree, check_space, link_or_copy, mode
from likewise.node.generated import (
    Generated,
    Place,
    environment_files,
    gate_file,
    layer_files,
    resume_script,
    stub,
)
from likewise.node.growing import Growing, key
from likewise.node.helpers import run_forked
from likewise.node.layers import LayerShelf
from likewise.node.linking import check_file
from likewise.node.materialise import lay_part, make_prefix, write, write_scripts
from likewise.node.parts import Part, parts_of
from likewise.node.sources import Source, UnpackedKit
from likewise.node.unpack import read_listing


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """What the base needs to know of a layer that is to follow.

    Attributes
    ----------
    scripts : list of Generated
        Made from its entry points.
    names : list of str
        Top-level names of its modules; and ``bin/<file>`` for each script that is its own.
    folders : list of str
        Folders of the prefix, on ``sys.path``, that it has files in.
    """

    scripts: list[Generated]
    names: list[str]
    folders: list[str]


def make_base(
    cache: NodeCache,
    manifest: Manifest,
    sources: Sequence[Source],
    *,
    kit: UnpackedKit | None = None,
    options: Sequence[str] = (),
    helpers: int | None = None,
) -> str:
    """Make the base of the prefix of `manifest`, unless there is a prefix that can be started.

    Parameters
    ----------
    cache, manifest, sources, kit, helpers
        As in `materialise`. The manifest must have an outline, and likewise must be among what is needed to join.
    options : sequence of str
        Those of ``likewise.node fill``, for ``growing/fill``.

    Returns
    -------
    str
        The prefix.

    Raises
    ------
    NodeError
        As `materialise`, for the outline and the layers of the base; and when the outline is not the manifest's.
    """
    workers = helpers or len(os.sched_getaffinity(0))

    def fill(shelf: LayerShelf, building: str, place: Place) -> None:
        _check_space(manifest, shelf, cache)
        outline = read_outline(shelf, manifest)
        names = check_names(outline, manifest)
        early = {layer.name for layer in outline.layers if _runs_at_start(layer, names)}
        at_once = [ref for ref in manifest.layers if is_base(ref, manifest, kit) or ref.name in early]
        _lay_base(outline, names, manifest, at_once, shelf, kit, building, place, workers)
        with Tree(building) as tree:
            for file in (*environment_files(manifest, place), gate_file(place)):
                write(tree, file)
            tree.write("growing/fill", resume_script(place, options), executable=True)
            tree.write("growing/lock", b"")

    return make_prefix(cache, manifest, sources, kit, fill)


def can_stream(manifest: Manifest, kit: UnpackedKit | None) -> bool:
    """Whether a prefix of this manifest may be started before it is complete."""
    return manifest.outline is not None and any(
        ref.name == "likewise" and is_base(ref, manifest, kit) for ref in manifest.layers
    )


def is_base(ref: LayerRef, manifest: Manifest, kit: UnpackedKit | None) -> bool:
    """Whether the layer is there from the beginning."""
    has = kit is not None and kit.listing(ref.digest) is not None
    return has or ref.kind is LayerKind.INTERPRETER or ref.name in manifest.kit


def read_outline(shelf: LayerShelf, manifest: Manifest) -> Outline:
    """The outline of `manifest`, which has one; that it fits the manifest is not checked.

    Raises
    ------
    NodeError
        When it can't be had or read.
    """
    digest = manifest.outline
    assert digest is not None
    shelf.get(digest, "outline")
    try:
        return decode_outline(shelf.reader(digest)(OUTLINE_PATH, -1))
    except FileNotFoundError as error:
        shelf.forget(digest)
        raise NodeError(
            f"The outline in the node's cache is incomplete ({error}).",
            where="outline",
            todo="Start the cluster again: it will be fetched anew.",
            details={"incomplete": digest},
        ) from error


def _check_space(manifest: Manifest, shelf: LayerShelf, cache: NodeCache) -> None:
    missing = [ref for ref in manifest.layers if not shelf.has(ref.digest)]
    check_space(cache.root, size=sum(r.size for r in missing), files=sum(r.files for r in missing))


def _runs_at_start(layer: OutlinedLayer, names: frozenset[str]) -> bool:
    """Whether every start of Python imports something of the layer, because a ``.pth`` file of its own says so."""
    words = pth_words(layer.files)
    return bool(words) and not words.isdisjoint(tops(check_layer(layer, names)))


def _lay_base(
    outline: Outline,
    names: frozenset[str],
    manifest: Manifest,
    at_once: Sequence[LayerRef],
    shelf: LayerShelf,
    kit: UnpackedKit | None,
    building: str,
    place: Place,
    workers: int,
) -> None:
    """Lay out the layers `at_once`, and of the others what is to be seen of them."""
    refs = {ref.digest: ref for ref in manifest.layers}
    base = {ref.digest for ref in at_once}
    # bytecode of the kit may be nowhere near: it is not worth waiting for
    parts = [part for part in parts_of(at_once) if not part.is_bytecode or shelf.has(part.digest)]
    parts.sort(key=lambda part: -part.ref.size)
    later = [layer for layer in outline.layers if layer.digest not in base]
    in_kit = {p.digest for p in parts if kit and kit.listing(p.digest) and not shelf.has_loose(p.digest)}
    work: list[Callable[[], bytes]] = [
        partial(_lay_at_once, part, shelf, kit if part.digest in in_kit else None, building, place) for part in parts
    ]
    work += [partial(_sketch, layer, refs[layer.digest], names, building, place) for layer in later]
    made = run_forked(len(work), lambda number: work[number](), workers)
    laid, sketched = made[: len(parts)], made[len(parts) :]
    scripts = {
        p.digest: msgspec.msgpack.decode(data, type=list[Generated]) for p, data in zip(parts, laid, strict=True)
    }
    sketches = {
        layer.digest: msgspec.msgpack.decode(data, type=Sketch) for layer, data in zip(later, sketched, strict=True)
    }
    scripts.update({digest: sketch.scripts for digest, sketch in sketches.items()})
    with Tree(building) as tree:
        _write_stubs(tree, sketches.values(), place)
        write_scripts(tree, [script for ref in manifest.layers for script in scripts[ref.digest]])
    for folder in {folder for sketch in sketches.values() for folder in sketch.folders}:
        os.makedirs(f"{building}/{folder}", 0o755, exist_ok=True)
    checked = {part.digest for part in parts} - in_kit
    there = [ref.digest for ref in at_once if ref.digest in checked and (ref.bytecode or ref.digest) in checked]
    _make_growing(Growing(building), _map(outline, sketches, base), there)


def _lay_at_once(part: Part, shelf: LayerShelf, kit: UnpackedKit | None, building: str, place: Place) -> bytes:
    """Lay out a layer of the base; the scripts that its entry points ask for, encoded."""
    listing = kit.listing(part.digest) if kit else None
    if kit is None or listing is None or digest_bytes(listing) != part.digest:
        return lay_part(part, shelf, building, place)
    try:
        return _link_kit(part, read_listing(listing, name=part.ref.name), kit.tree, building, place)
    except FileNotFoundError:  # the kit is not whole any more
        return lay_part(part, shelf, building, place)


def _link_kit(part: Part, entries: Sequence[FileEntry], kit: str, building: str, place: Place) -> bytes:
    def read(path: str, size: int) -> bytes:
        with open(f"{kit}/{path}", "rb") as file:
            return file.read(size)

    own, scripts = ([], []) if part.is_bytecode else layer_files(part.ref, entries, read, place)
    instead = {file.path for file in own}
    with Tree(kit, make=False) as source, Tree(building) as target:
        for entry in entries:
            path = prefix_path(entry.path, place.python)
            if path in instead:
                continue
            into, new = target.enter(path)
            with contextlib.suppress(FileExistsError):  # two layers may own one path
                if entry.link:
                    os.symlink(entry.link, new, dir_fd=into)
                else:
                    at, old = source.enter(entry.path)
                    if check_file(entry, at, old) != mode(entry.executable):
                        os.chmod(old, mode(entry.executable), dir_fd=at)
                    link_or_copy(at, old, into, new, executable=entry.executable)
        for file in own:
            write(target, file)
    return msgspec.msgpack.encode(scripts)


def _sketch(layer: OutlinedLayer, ref: LayerRef, names: frozenset[str], building: str, place: Place) -> bytes:
    """Write what is to be seen of a layer that follows; a `Sketch` of it, encoded."""
    entries = check_layer(layer, names)

    def read(path: str, size: int) -> bytes:
        # of scripts nothing is known: RECORD is written anew when they come
        return layer.files.get(path, b"")[: size if size >= 0 else None]

    own, scripts = layer_files(ref, entries, read, place)
    instead = {file.path for file in own}
    with Tree(building) as tree:
        for entry in entries:
            if entry.path not in layer.files:
                continue
            path = prefix_path(entry.path, place.python)
            if path not in instead:
                with contextlib.suppress(FileExistsError):  # two distributions may own one path
                    tree.write(path, layer.files[entry.path], executable=entry.executable)
        for file in own:
            write(tree, file)
    bins = [prefix_path(e.path, place.python) for e in entries if e.path.startswith(("scripts/", "data/bin/"))]
    sketch = Sketch(
        scripts=scripts, names=[*sorted(tops(entries, layer.files)), *bins], folders=_folders(layer, entries, place)
    )
    return msgspec.msgpack.encode(sketch)


def _folders(layer: OutlinedLayer, entries: Iterable[FileEntry], place: Place) -> list[str]:
    """Folders on ``sys.path``: `site` passes over those that are not there when Python starts."""
    named = [f"purelib/{folder}/" for folder in pth_folders(layer.files)]
    found: dict[str, None] = {}
    for entry in entries:
        scheme, root, *_ = entry.path.split("/")
        if scheme == "code":
            found[f"code/{root}"] = None
        for folder in named:
            if entry.path.startswith(folder):
                found[prefix_path(folder.rstrip("/"), place.python)] = None
    return list(found)


def _write_stubs(tree: Tree, sketches: Iterable[Sketch], place: Place) -> None:
    for path in dict.fromkeys(name for sketch in sketches for name in sketch.names if name.startswith("bin/")):
        with contextlib.suppress(FileExistsError):  # a layer of the base has the same file
            write(tree, stub(path, place))


def _map(outline: Outline, sketches: Mapping[Digest, Sketch], base: set[Digest]) -> str:
    """The text of ``growing/map``. Layers of the base wait for nothing: they are what a node needs to join."""
    digests = {layer.name: layer.digest for layer in outline.layers}
    needs: dict[str, dict[str, None]] = {}
    closed = closure(outline)
    for layer in outline.layers:
        if layer.digest in sketches:
            keys = [key(digests[name]) for name in closed[layer.name] if digests[name] not in base]
            for name in sketches[layer.digest].names:
                needs.setdefault(name, {}).update(dict.fromkeys(keys))
    return "".join(f"{name}\t{' '.join(keys)}\n" for name, keys in sorted(needs.items()))


def _make_growing(growing: Growing, needs: str, there: Iterable[Digest]) -> None:
    for name in ("", "there", "failed", "tmp"):
        os.mkdir(growing.place(name), 0o755)
    os.mkfifo(growing.place("queue"), 0o600)
    with Tree(growing.folder) as tree:
        tree.write("map", needs.encode())
        for digest in there:
            tree.write(f"there/{key(digest)}", b"")
