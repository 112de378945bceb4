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
        The node's cache, made when missing; or ``auto``: the node looks for a safe and usable place itself.
    manifest : Digest
        The environment's id.
    kit : str
        The kit's file; ``-`` for standard input. It may be missing where the kit is unpacked already. Or a folder of
        the same user where it lies unpacked: it is used there.
    kit_id, kit_sha256 : Digest
        The id of the kit's manifest, and the digest of the file; of a folder nothing is known.
    store : str
        A store's directory that the node can read; what it lacks comes from the node's agent.
    cluster : str
        The cluster's id, 16 hexadecimal digits; "" where there is no other node to fetch anything from.
    hub : str
        The address of the cluster's hub. With it and `cluster` the node starts its agent.
    ask : bool
        Whether the node asks the scheduler for the current manifest, cluster and hub before anything else.
    stream : bool
        Whether Python starts before all layers are there, when the manifest has an outline: an import waits for what
        it needs.
    first : tuple of str
        Names of the layers that are needed first, the most urgent first: they are laid out in this order.
    need_bytes, need_files : int
        The space and the number of files that a place must have room for when the node chooses it.
    """

    script: str
    cache: str
    manifest: Digest
    kit: str
    kit_id: Digest
    kit_sha256: Digest
    store: str = ""
    cluster: str = ""
    hub: str = ""
    ask: bool = False
    stream: bool = False
    first: tuple[str, ...] = ()
    need_bytes: int = 0
    need_files: int = 0

    def argv(self, command: str = "") -> list[str]:
        """The command prefix; append what Python should run: ``["-m", "distributed.cli.dask_worker", …]``.

        Parameters
        ----------
        command : str
            Another command than to start that: ``materialise`` makes the prefix and prints where it is, ``place``
            prints where the cache is, ``prune`` removes what has expired from the cache.
        """
        optional = {
            "--store": self.store,
            "--cluster": self.cluster,
            "--hub": self.hub,
            "--need-bytes": str(self.need_bytes or ""),
            "--need-files": str(self.need_files or ""),
            "--first": ",".join(self.first),
            "--command": command,
        }
        return [
            "sh", self.script, "--cache", self.cache, "--manifest", self.manifest,
            "--kit", self.kit, "--kit-id", self.kit_id, "--kit-sha256", self.kit_sha256,
            *(word for name, value in optional.items() if value for word in (name, value)),
            *(["--ask"] if self.ask else []), *(["--stream"] if self.stream else []), "--",
        ]  # fmt: skip


def bootstrap_script() -> bytes:
    """The text of ``bootstrap.sh``."""
    return (files("likewise.node") / "bootstrap.sh").read_bytes()
