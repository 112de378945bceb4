"""A running process takes a delta on: what it has becomes importable here, and in the processes started from here."""

from __future__ import annotations

import importlib
import os
import sys

import msgspec

from likewise.errors import NodeError, UsageError
from likewise.model.digest import digest_bytes
from likewise.model.manifest import LayerRef, Manifest, scheme_dirs
from likewise.node.cache import host_name, start_time

VARIABLE = "LIKEWISE_DELTAS"
"""The folders that a process and its children have adopted, separated by colons, oldest first."""

DIGITS = 16
"""How much of a manifest's id is in the names of folders."""


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


def search_paths(folder: str, manifest: Manifest, base: Manifest) -> tuple[str, ...]:
    """What the delta adds to ``sys.path``: its site directory, and its roots of loose code."""
    names = [ref.name for ref in added_layers(manifest, base)]
    roots = [name for name in (*manifest.before, *manifest.after) if name in names]
    site = [f"{folder}/{scheme_dirs(manifest.python)['purelib']}"] if len(roots) < len(names) else []
    return (*site, *(f"{folder}/code/{name}" for name in roots))


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
        if digest_bytes(data)[:DIGITS] != digits:
            raise NodeError(f"The delta's {name} is not the one that it is named for.", where=folder)
        found.append(manifest)
    new, base = found
    return new, base


def hold(cluster: str) -> None:
    """Lease the deltas of the cluster, and this process's prefix, for as long as this process lives."""
    cache = os.path.dirname(os.path.dirname(sys.prefix))
    pid = str(os.getpid())
    fields = (own_manifest(), start_time(pid) or "0", cluster)
    with open(f"{cache}/leases/{host_name()}.{pid}", "w", encoding="ascii") as file:
        file.write(" ".join(fields) + "\n")


def own_manifest() -> str:
    """The id of the manifest that this process's prefix was made from; "" when it is none of ours."""
    try:
        with open(f"{sys.prefix}/manifest.json", "rb") as file:
            return digest_bytes(file.read())
    except OSError:
        return ""


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


def effective() -> str:
    """The first digits of the manifest that prefix and deltas of this process amount to; "" without a replica."""
    manifest = own_manifest()[:DIGITS]
    for folder in adopted():
        new, _, base = os.path.basename(folder).partition(".")
        if base == manifest:
            manifest = new
    return manifest
