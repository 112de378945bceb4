"""Where a node gets the archives of layers from."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import BinaryIO, Protocol

from likewise.errors import NodeError
from likewise.model.digest import Digest
from likewise.model.keys import layer_key, manifest_key
from likewise.model.manifest import Manifest, decode_manifest


class Source(Protocol):
    """Something that may have a layer's archive. What it gives is checked; nothing is believed."""

    def open(self, digest: Digest) -> BinaryIO:
        """The archive, for reading once. FileNotFoundError when it is not there, OSError when it can't be had."""
        ...

    def reject(self, digest: Digest) -> None:
        """This copy is damaged: don't offer it again, and remove it if that is possible."""
        ...

    def __str__(self) -> str: ...


class DirectoryStore:
    """A store in a directory that this node can read."""

    def __init__(self, root: str) -> None:
        self._root = root

    def __str__(self) -> str:
        return self._root

    def open(self, digest: Digest) -> BinaryIO:
        """The archive of the layer."""
        return open(f"{self._root}/{layer_key(digest)}", "rb", buffering=0)

    def reject(self, digest: Digest) -> None:
        """Remove the damaged copy, so that the client makes it anew the next time."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self._root}/{layer_key(digest)}")

    def manifest(self, manifest_id: Digest) -> Manifest:
        """The manifest with this id.

        Raises
        ------
        NodeError
            When it is not there, can't be read, or is not what its id says (it is then removed).
        """
        path = f"{self._root}/{manifest_key(manifest_id)}"
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            gone = error.errno == errno.ENOENT
            raise NodeError(
                f"The manifest is not in the store {self._root}." if gone else f"The manifest can't be read ({error}).",
                where=manifest_id[:12],
                todo="Start the cluster again." if gone else "Make sure that the node can read the store.",
            ) from error
        try:
            return decode_manifest(data, manifest_id)
        except NodeError:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise


class UnpackedKit:
    """The layers that bootstrap.sh unpacked with the kit: one tree of files, and a listing for each layer.

    They are as good as archives once they were checked, and cost a hard link instead of a write.
    """

    def __init__(self, root: str) -> None:
        self.tree = f"{root}/tree"
        self._listings = f"{root}/listings"

    def listing(self, digest: Digest) -> bytes | None:
        """The layer's listing, None when the kit does not have the layer."""
        try:
            with open(f"{self._listings}/{digest}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
