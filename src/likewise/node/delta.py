"""What was added to an environment since a running process started, in a folder of its own beside its prefix.

    <cache>/deltas/<cluster>/<16 digits of the new id>.<16 of the base's>/
        manifest.json, base.json       the two manifests; what the new one has beyond the base is laid out here
        lib/<python>/site-packages/…   bin/…   code/<root>/…   as in a prefix

A prefix never changes under its id. See `likewise.node.adopt` for how a process comes to use a delta.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from likewise.errors import UsageError
from likewise.model.manifest import LayerRef, Manifest
from likewise.node.adopt import DIGITS, delta_layers
from likewise.node.cache import NodeCache, locked, sweep
from likewise.node.disk import Tree, disk_error, remove_tree
from likewise.node.generated import Generated, Place
from likewise.node.layers import LayerShelf
from likewise.node.materialise import lay_out
from likewise.node.sources import Source

_CLUSTER = re.compile(r"[0-9a-f]{16}")


def delta_folder(cache: NodeCache, cluster: str, manifest: Manifest, base: Manifest) -> str:
    """Where the delta from `base` to `manifest` lies. It is complete when it is there.

    Raises
    ------
    UsageError
        When `cluster` is not an id of a cluster.
    """
    if not _CLUSTER.fullmatch(cluster):
        raise UsageError(f"{cluster!r} is not the id of a cluster.")
    return f"{cache.place('deltas')}/{cluster}/{manifest.id[:DIGITS]}.{base.id[:DIGITS]}"


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
        When `cluster` is no id.
    """
    folder = delta_folder(cache, cluster, manifest, base)
    refs = delta_layers(manifest, base)
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
    building = f"{cache.place('tmp')}/delta.{manifest.id[:DIGITS]}.{os.getpid()}"
    os.mkdir(building, 0o755)
    lay_out(refs, shelf, building, delta_place(folder, cache, manifest), helpers)
    with Tree(building) as tree:
        for file in delta_files(manifest, base):
            tree.write(file.path, file.data)
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


def delta_files(manifest: Manifest, base: Manifest) -> list[Generated]:
    """What belongs to the delta as a whole."""
    return [
        Generated(path="base.json", data=base.encode()),
        Generated(path="manifest.json", data=manifest.encode()),
    ]
