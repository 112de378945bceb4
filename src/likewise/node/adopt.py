"""A running process takes a delta on: what it has becomes importable here, and in the processes started from here."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection

import msgspec

from likewise.errors import NodeError
from likewise.model.digest import digest_bytes
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest, scheme_dirs
from likewise.node.cache import host_name, start_time

VARIABLE = "LIKEWISE_DELTAS"
"""The folders that a process and its children have adopted, separated by colons, oldest first."""

_BESIDE = frozenset({LayerKind.DISTRIBUTION, LayerKind.CODE})

DIGITS = 16
"""How much of a manifest's id is in the names of folders."""


def delta_layers(manifest: Manifest, base: Manifest) -> tuple[LayerRef, ...]:
    """The layers that `manifest` has and `base` has not, or not with the same content; in its order.

    Interpreter and native libraries are not among them: a running process has them loaded.
    """
    there = {(ref.kind, ref.name, ref.digest, ref.bytecode) for ref in base.layers}
    return tuple(
        ref
        for ref in manifest.layers
        if ref.kind in _BESIDE and (ref.kind, ref.name, ref.digest, ref.bytecode) not in there
    )


def search_paths(folder: str, manifest: Manifest, base: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the delta has for ``sys.path``: its roots of loose code, and its site directory if there is any need."""
    names = [ref.name for ref in delta_layers(manifest, base)]
    roots = [name for name in (*manifest.before, *manifest.after) if name in names]
    site = (site_directory(folder, manifest),) if len(roots) < len(names) else ()
    return tuple(f"{folder}/code/{name}" for name in roots), site


def site_directory(root: str, manifest: Manifest) -> str:
    """The site directory of a prefix or a delta."""
    return f"{root}/{scheme_dirs(manifest.python)['purelib']}"


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


def adopt(folder: str, *, instead: Collection[str] | None = None) -> None:
    """Let this process, and those that it starts from now on, import what the delta has. Doing it again is harmless.

    Parameters
    ----------
    folder : str
    instead : collection of str, optional
        The delta comes before the prefix, not after it: what was changed is imported from there, also the loaded
        modules with these top-level names, which are forgotten. That is for schedulers: they don't run the user's
        code, they only have to know it by name.

    Raises
    ------
    NodeError
        When the folder is not a whole delta; nothing is changed then.
    """
    manifest, base = read_manifests(folder)
    if folder in adopted():
        return
    roots, site = search_paths(folder, manifest, base)
    for path in (*roots, *site):
        sys.path.insert(len(sys.path) if instead is None else _place(path, folder), path)
    for name in [name for name in sys.modules if name.partition(".")[0] in (instead or ())]:
        del sys.modules[name]
    importlib.invalidate_caches()
    os.environ["PYTHONPATH"] = ":".join(filter(None, (os.environ.get("PYTHONPATH", ""), *roots, *site)))
    first, *rest = os.environ.get("PATH", os.defpath).split(":")  # the first one is the prefix's own
    os.environ["PATH"] = ":".join((first, f"{folder}/bin", *rest))
    os.environ[VARIABLE] = ":".join((*adopted(), folder))


def _place(path: str, folder: str) -> int:
    """Where on ``sys.path`` the prefix, or an older delta, has what `path` is in the delta `folder`; else the end."""
    cache, inside = os.path.dirname(os.path.dirname(sys.prefix)), path.removeprefix(folder)
    found = [i for i, entry in enumerate(sys.path) if entry.startswith(f"{cache}/") and entry.endswith(inside)]
    return found[0] if found else len(sys.path)


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
