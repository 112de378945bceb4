"""What a cluster's nodes run, as its users see it."""

from __future__ import annotations

import msgspec

from likewise.model.digest import Digest
from likewise.model.layer import LayerKind
from likewise.model.manifest import Manifest


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """One replicated environment.

    Attributes
    ----------
    id : Digest
        Digest of the manifest.
    python : str
        Full version of the interpreter.
    distributions : dict
        Normalized name to version.
    """

    id: Digest
    python: str
    distributions: dict[str, str]


def environment_of(manifest: Manifest) -> Environment:
    """What `manifest` amounts to."""
    distributions = {ref.name: ref.version for ref in manifest.layers if ref.kind is LayerKind.DISTRIBUTION}
    return Environment(id=manifest.id, python=manifest.target.python, distributions=distributions)
