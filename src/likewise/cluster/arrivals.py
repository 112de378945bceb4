"""Where the layers of an environment came from, out of what the hub knows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from likewise.model.digest import Digest
from likewise.model.layer import LayerKind
from likewise.model.manifest import Manifest
from likewise.model.report import Delivery


def deliveries(
    manifest: Manifest, kit: frozenset[str], pushed: int, status: Mapping[str, Any], sizes: Mapping[Digest, int]
) -> tuple[Delivery, ...]:
    """One for each layer of the manifest, bytecode and outline among them.

    Parameters
    ----------
    manifest : Manifest
    kit : frozenset of str
        Names of the layers in the kit, without the interpreter, which always is.
    pushed : int
        Bytes of the kit that were pushed to nodes; 0 when all of them had it.
    status : mapping
        See `likewise.transport.hub.Hub.hub_status`.
    sizes : mapping
        Bytes of what was given.
    """
    given: Mapping[Digest, str] = status["given"]
    settled = is_settled(status)

    def came(digest: Digest, name: str) -> tuple[str, int]:
        if digest in given:
            return given[digest], sizes.get(digest, 0)
        if name in kit or name == manifest.layers[0].name:
            return ("kit" if pushed else "cache"), 0
        return ("cache" if settled else ""), 0

    return tuple(
        Delivery(digest=digest, kind=kind, name=name, version=version, source=source, size=size)
        for kind, name, version, digest in _described(manifest)
        for source, size in [came(digest, name)]
    )


def deliveries_from_store(manifest: Manifest) -> tuple[Delivery, ...]:
    """As `deliveries`, where every node reads all of them from a store."""
    sizes = {ref.digest: ref.size for ref in manifest.layers}
    return tuple(
        Delivery(digest=digest, kind=kind, name=name, version=version, source="store", size=sizes.get(digest, 0))
        for kind, name, version, digest in _described(manifest)
    )


def is_settled(status: Mapping[str, Any]) -> bool:
    """Whether there are nodes, and none of them lacks anything that it wants."""
    nodes = status["nodes"].values()
    return bool(nodes) and not any(node["wants"] for node in nodes)


def _described(manifest: Manifest) -> Iterator[tuple[LayerKind, str, str, Digest]]:
    for ref in manifest.layers:
        yield ref.kind, ref.name, ref.version, ref.digest
        if ref.bytecode:
            yield LayerKind.BYTECODE, ref.name, ref.version, ref.bytecode
    if manifest.outline:
        yield LayerKind.OUTLINE, "outline", "", manifest.outline
