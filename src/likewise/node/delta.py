"""What was added to an environment since a running process started, in a folder of its own beside its prefix.

    <cache>/deltas/<cluster>/<16 digits of the new id>.<16 of the base's>/
        manifest.json, base.json       the two manifests; the layers that only the new one has are laid out here
        lib/<python>/site-packages/…   bin/…   code/<root>/…   as in a prefix

A prefix never changes under its id, and nothing in a delta overlaps it: the client made sure of that. A process
*adopts* the folder: it goes to the end of ``sys.path``, and to the variables that the process's children inherit.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence

import msgspec

from likewise.errors import NodeError, UsageError
from likewise.model.digest import digest_bytes
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest, scheme_dirs
from likewise.node.cache import NodeCache, locked, sweep
from likewise.node.disk import Tree, disk_error, remove_tree
from likewise.node.generated import Place
from likewise.node.layers import LayerShelf
from likewise.node.materialise import lay_out
from likewise.node.sources import Source

VARIABLE = "LIKEWISE_DELTAS"
"""The folders that a process and its children have adopted, separated by colons, oldest first."""

_CLUSTER = re.compile(r"[0-9a-f]{16}")
_DIGITS = 16


def added_layers(manifest: Manifest, base: Manifest) -> tuple[LayerRef, ...]:
    """The layers that `manifest` has beyond those of `base`, in its order.

    Raises
    ------
    UsageError
        When it lacks any of them, or has another content for one: that can't be laid beside a prefix.
    """
    known = {(ref.kind, ref.name): ref for ref in manifest.layers}
    for ref in base.layers:
        found = known.get((ref.kind, ref.name))
        if found is None or (found.digest, found.bytecode) != (ref.digest, ref.bytecode):
            raise UsageError(
                f"{ref.name} is not the same in both manifests, so a running process can't get along with it.",
                where=manifest.id[:12],
                todo="Replace the workers.",
            )
    there = {(ref.kind, ref.name) for ref in base.layers}
    return tuple(ref for ref in manifest.layers if (ref.kind, ref.name) not in there)


def delta_folder(cache: NodeCache, cluster: str, manifest: Manifest, base: Manifest) -> str:
    """Where the delta from `base` to `manifest` lies. It is complete when it is there.

    Raises
    ------
    UsageError
        When `cluster` is not an id of a cluster.
    """
    if not _CLUSTER.fullmatch(cluster):
        raise UsageError(f"{cluster!r} is not the id of a cluster.")
    return f"{cache.place('deltas')}/{cluster}/{manifest.id[:_DIGITS]}.{base.id[:_DIGITS]}"


def make_delta(
    cache: NodeCache,
    cluster: str,
    manifest: Manifest,
    base: Manifest,
    sources: Sequence[Source],
    *,
    helpers: int | None = None,
) -> str:
    """Lay out what `manifest` adds to `base`, unless that is done.

    Parameters
    ----------
    cache : NodeCache
    cluster : str
        Id of the cluster whose processes will use it: 16 hexadecimal digits.
    manifest, base : Manifest
    sources : sequence of Source
        As in `materialise`.
    helpers : int, optional
        As in `materialise`.

    Returns
    -------
    str
        The folder.

    Raises
    ------
    NodeError
        As `materialise`; nothing half-made is visible then.
    UsageError
        When `manifest` does more than adding to `base`.
    """
    folder = delta_folder(cache, cluster, manifest, base)
    refs = added_layers(manifest, base)
    if is_whole(folder):
        return folder
    try:
        with locked(cache):
            if not is_whole(folder):
                try:
                    shelf = LayerShelf(cache, sources)
                    _make(cache, folder, manifest, base, refs, shelf, helpers or len(os.sched_getaffinity(0)))
                except BaseException:
                    sweep(cache)
                    raise
    except OSError as error:
        raise disk_error(error, cache.root) from error
    return folder


def is_whole(folder: str) -> bool:
    """Whether the delta is there; it appears whole."""
    return os.path.isfile(f"{folder}/manifest.json")


def _make(
    cache: NodeCache,
    folder: str,
    manifest: Manifest,
    base: Manifest,
    refs: Sequence[LayerRef],
    shelf: LayerShelf,
    helpers: int,
) -> None:
    building = f"{cache.place('tmp')}/delta.{manifest.id[:_DIGITS]}.{os.getpid()}"
    os.mkdir(building, 0o755)
    lay_out(refs, shelf, building, delta_place(folder, cache, manifest), helpers)
    with Tree(building) as tree:
        tree.write("base.json", base.encode())
        tree.write("manifest.json", manifest.encode())
    os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
    if os.path.lexists(folder):  # something else was at it
        os.rename(folder, f"{building}.old")
    os.rename(building, folder)
    remove_tree(f"{building}.old")


def delta_place(folder: str, cache: NodeCache, manifest: Manifest) -> Place:
    """The place that the delta's generated files are made for.

    Processes of several prefixes share a delta, so its scripts run whatever ``python`` comes first on the ``PATH``.
    """
    return Place(prefix=folder, cache=cache.root, python=manifest.python, interpreter="python")


def search_paths(folder: str, manifest: Manifest, base: Manifest) -> tuple[str, ...]:
    """What the delta adds to ``sys.path``: its site directory, and its roots of loose code."""
    refs = added_layers(manifest, base)
    site = [f"{folder}/{scheme_dirs(manifest.python)['purelib']}"]
    code = [f"{folder}/code/{ref.name}" for ref in refs if ref.kind is LayerKind.CODE]
    return (*(site if len(code) < len(refs) else []), *code)


def read_manifests(folder: str) -> tuple[Manifest, Manifest]:
    """The new manifest and the base of a delta, which must be those that the folder is named for.

    Raises
    ------
    NodeError
        When they are not, or there is no delta.
    """
    found = []
    for name, digits in zip(("manifest", "base"), os.path.basename(folder).split("."), strict=False):
        try:
            with open(f"{folder}/{name}.json", "rb") as file:
                data = file.read()
            manifest = msgspec.json.decode(data, type=Manifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise NodeError(
                f"There is no delta, or its {name} can't be read ({error}).", where=folder, todo="Call sync() again."
            ) from error
        if digest_bytes(data)[:_DIGITS] != digits:
            raise NodeError(f"The delta's {name} is not the one that it is named for.", where=folder)
        found.append(manifest)
    new, base = found
    return new, base


def adopt(folder: str) -> None:
    """Let this process, and those that it starts from now on, import what the delta has. Doing it again is harmless.

    Raises
    ------
    NodeError
        When the folder is not a whole delta; nothing is changed then.
    """
    manifest, base = read_manifests(folder)
    if folder in adopted():
        return
    paths = search_paths(folder, manifest, base)
    sys.path += [path for path in paths if path not in sys.path]
    importlib.invalidate_caches()
    os.environ["PYTHONPATH"] = ":".join(filter(None, (os.environ.get("PYTHONPATH", ""), *paths)))
    first, *rest = os.environ.get("PATH", os.defpath).split(":")  # the first one is the prefix's own
    os.environ["PATH"] = ":".join((first, f"{folder}/bin", *rest))
    os.environ[VARIABLE] = ":".join((*adopted(), folder))


def adopted() -> tuple[str, ...]:
    """The deltas that this process has adopted or inherited, oldest first."""
    return tuple(filter(None, os.environ.get(VARIABLE, "").split(":")))
