"""How a launch went: what each stage did, and how long it took; where each layer's bytes came from."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from likewise.model.digest import Digest
from likewise.model.layer import LayerKind

SOURCES = ("auto", "client", "index")
"""Who gives nodes what an index offers, too: whoever is quicker, the client alone, the index wherever it can."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. `done` counts what it did (``{"packed": 3, "bytes": 81234}``); all zero when nothing was needed."""

    name: str
    seconds: float
    summary: str
    done: dict[str, int] = {}


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How one layer came into the cluster; there it went from node to node.

    Attributes
    ----------
    digest : Digest
    kind : LayerKind
    name, version : str
        Of bytecode, those of its layer.
    source : str
        Who gave it first: ``client``, ``index``, ``store`` (which nodes read by themselves), ``kit`` (from the client,
        to each node), ``cache`` (nodes had it), or "" while that is not known: it is on its way, or nobody needs it.
    size : int
        Bytes that came from there.
    """

    digest: Digest
    kind: LayerKind
    name: str
    version: str
    source: str = ""
    size: int = 0


class LaunchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The stages in the order they ran, and where the layers came from, as far as that is known by now."""

    stages: tuple[Stage, ...] = ()
    layers: tuple[Delivery, ...] = ()

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(stage.seconds for stage in self.stages)


def bytes_by_source(deliveries: Iterable[Delivery]) -> dict[str, int]:
    """How many bytes came from each source that gave any."""
    found: dict[str, int] = {}
    for one in deliveries:
        if one.size:
            found[one.source] = found.get(one.source, 0) + one.size
    return found
