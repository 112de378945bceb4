"""The command prefix that runs Python in a replica: the same on every machine, and opaque to whoever uses it."""

from __future__ import annotations

from importlib.resources import files

import msgspec

from likewise.model.digest import Digest


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What ``bootstrap.sh`` has to be told. All paths are those of the node.

    Attributes
    ----------
    script : str
        ``bootstrap.sh``.
    cache : str
        The node's cache; made when missing.
    store : str
        A store's directory that the node can read.
    manifest : Digest
        The environment's id.
    kit : str
        The kit's file.
    kit_id, kit_sha256 : Digest
        The id of the kit's manifest, and the digest of the file.
    """

    script: str
    cache: str
    store: str
    manifest: Digest
    kit: str
    kit_id: Digest
    kit_sha256: Digest

    def argv(self) -> list[str]:
        """The command prefix; append what Python should run: ``["-m", "distributed.cli.dask_worker", …]``."""
        return [
            "sh", self.script, "--cache", self.cache, "--store", self.store, "--manifest", self.manifest,
            "--kit", self.kit, "--kit-id", self.kit_id, "--kit-sha256", self.kit_sha256, "--",
        ]  # fmt: skip


def bootstrap_script() -> bytes:
    """The text of ``bootstrap.sh``."""
    return (files("likewise.node") / "bootstrap.sh").read_bytes()
