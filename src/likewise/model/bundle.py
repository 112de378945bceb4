"""A bundle: the files that nodes need to start in one environment, with a description of them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from likewise.model.digest import Digest
from likewise.model.keys import kit_key

SCRIPT = "bootstrap.sh"
"""Name of the script that starts a node, in a bundle's folder."""

DESCRIPTION = "bundle.json"
"""Name of the `Bundle` in a bundle's folder."""


class BootstrapFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a bundle.

    Attributes
    ----------
    name : str
        Where it lies in the bundle's folder; parts are separated by ``/``.
    size : int
        Bytes.
    sha256 : Digest
        Of the content.
    path : Path or None
        Where the content is on this machine, or
    data : bytes
        the content itself, when `path` is None.
    """

    name: str
    size: int
    sha256: Digest
    path: Path | None = None
    data: bytes = b""

    def read(self) -> bytes:
        """The whole content."""
        return self.data if self.path is None else self.path.read_bytes()


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a bundle's folder, as its ``bundle.json`` says: all that a prefix depends on, and nothing secret.

    Attributes
    ----------
    manifest : Digest
        The environment's id.
    kit_id, kit_sha256 : Digest
        The id of the kit's manifest, and the digest of the kit's file.
    need_bytes, need_files : int
        What the layers take in a node's cache, without bytecode.
    python : str
        Full version of the interpreter.
    platform : str
        What the nodes must be: ``linux-x86_64``.
    likewise : str
        The version of likewise that made it.
    files : dict
        Name → sha256 of every other file.
    stream : bool
        Whether processes start before all layers have arrived.
    first : tuple of str
        Names of the layers that are wanted first then.
    """

    manifest: Digest
    kit_id: Digest
    kit_sha256: Digest
    need_bytes: int
    need_files: int
    python: str
    platform: str
    likewise: str
    files: dict[str, Digest]
    stream: bool = False
    first: tuple[str, ...] = ()

    @property
    def kit(self) -> str:
        """Name of the kit."""
        return kit_key(self.kit_id)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What laying a bundle out in a folder did.

    Attributes
    ----------
    folder : str
        Absolute path.
    written, unchanged, removed : int
        Numbers of files.
    bytes : int
        Bytes written.
    """

    folder: str
    written: int
    unchanged: int
    removed: int
    bytes: int
