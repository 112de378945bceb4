"""Where a node gets the archives of layers from."""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import time
from typing import Any, BinaryIO, Protocol

import msgspec

from likewise.errors import NodeError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.keys import LEASES, WANTED, layer_key, loose_key, loose_listing_key, manifest_key, promise_key
from likewise.model.manifest import Manifest, decode_manifest
from likewise.node.cache import is_held
from likewise.node.door import WAIT, ask

_LOOK = 0.05  # seconds between two looks for a promised layer, at most


class Source(Protocol):
    """Something that may have a layer's archive. What it gives is checked; nothing is believed."""

    def open(self, digest: Digest) -> BinaryIO:
        """The archive, for reading once. FileNotFoundError when it is not there, OSError when it can't be had."""
        ...

    def accept(self, digest: Digest) -> None:
        """The layer was unpacked from this copy and every byte of it checked."""
        ...

    def reject(self, digest: Digest) -> bool:
        """This copy is damaged: don't offer it again, and remove it if that is possible. Whether to ask once more."""
        ...

    def __str__(self) -> str: ...


class Store(Source, Protocol):
    """A source that has manifests as well."""

    def manifest(self, manifest_id: Digest) -> Manifest:
        """The manifest with this id. NodeError when it is not there, can't be read, or is not what its id says."""
        ...


class LooseLayer(msgspec.Struct, frozen=True):
    """A layer that lies unpacked in a store. Its files were hashed when they were made; nobody may change them.

    Attributes
    ----------
    folder : str
        Where its files lie, below their layer paths.
    listing : bytes
        What its digest says.
    """

    folder: str
    listing: bytes


class DirectoryStore:
    """A store in a directory that this node can read."""

    def __init__(self, root: str) -> None:
        self._root = root

    def __str__(self) -> str:
        return self._root

    def open(self, digest: Digest) -> BinaryIO:
        """The archive of the layer. Waits for the layer while a living client on this machine is about to make it."""
        self.wait(digest)
        return open(f"{self._root}/{layer_key(digest)}", "rb", buffering=0)

    def wait(self, digest: Digest, *, urgent: bool = True) -> None:
        """Wait while the layer is there in no form, and a living client on this machine is about to make it.

        The client makes what is `urgent` before all else.
        """
        pause = 0.002
        while not self.has(digest) and self._is_promised(digest):
            if urgent and pause == 0.002:
                self._wish(digest)
            time.sleep(pause)
            pause = min(1.5 * pause, _LOOK)

    def has(self, digest: Digest) -> bool:
        """Whether the layer is there, in whatever form."""
        return self.has_loose(digest) or os.path.exists(f"{self._root}/{layer_key(digest)}")

    def has_loose(self, digest: Digest) -> bool:
        """Whether the layer lies here unpacked."""
        return os.path.exists(f"{self._root}/{loose_listing_key(digest)}")

    def loose(self, digest: Digest) -> LooseLayer | None:
        """The layer where it lies unpacked, None where it does not. Counts as its use."""
        path = f"{self._root}/{loose_listing_key(digest)}"
        try:
            with open(path, "rb") as file:
                listing = file.read()
        except OSError:
            return None
        if digest_bytes(listing) != digest:
            self.reject_loose(digest)
            return None
        with contextlib.suppress(OSError):  # a store that can only be read
            os.utime(path)
        return LooseLayer(f"{self._root}/{loose_key(digest)}", listing)

    def reject_loose(self, digest: Digest) -> None:
        """The unpacked files are not what the listing says: without the listing the client makes them anew."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self._root}/{loose_listing_key(digest)}")

    def promised(self) -> frozenset[str]:
        """Digests of the layers that living clients on this machine are about to make, or have just made."""
        promise = promise_key(Digest(""))
        found: set[str] = set()
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{self._root}/{LEASES}"):
                lease = f"{self._root}/{LEASES}/{name}"
                with contextlib.suppress(OSError), open(lease, encoding="utf-8", errors="replace") as file:
                    text = file.read()
                    if promise in text and is_held(lease):
                        found.update(key[len(promise) :] for key in text.split() if key.startswith(promise))
        return frozenset(found)

    def _is_promised(self, digest: Digest) -> bool:
        return digest in self.promised()

    def _wish(self, digest: Digest) -> None:
        with contextlib.suppress(OSError):  # a store that can only be read
            os.makedirs(f"{self._root}/{WANTED}", 0o700, exist_ok=True)
            os.close(os.open(f"{self._root}/{WANTED}/{digest}", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))

    def accept(self, digest: Digest) -> None:
        """Nothing to do: nobody else is served from here."""

    def reject(self, digest: Digest) -> bool:
        """Remove the damaged copy, so that the client makes it anew the next time."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self._root}/{layer_key(digest)}")
        return False

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


class AgentSource:
    """The node's agent, which gets archives from other nodes of the cluster.

    Parameters
    ----------
    cache_root : str
        The node's cache.
    cluster : str
        The cluster's id.
    wait : float
        Seconds to wait for the agent to open its door.
    """

    def __init__(self, cache_root: str, cluster: str, *, wait: float = WAIT) -> None:
        self._folder = f"{cache_root}/agents"
        self._cluster = cluster
        self._wait = wait

    def __str__(self) -> str:
        return "the other nodes"

    def open(self, digest: Digest) -> BinaryIO:
        """The archive of the layer; waits until the agent has it.

        Raises
        ------
        FileNotFoundError
            When nobody has it.
        NodeError
            When there is no agent, or it can't keep the archive (a full disk, say).
        """
        return open(self._ask({"get": digest})["path"], "rb", buffering=0)

    def accept(self, digest: Digest) -> None:
        """From now on the agent gives this copy to others."""
        with contextlib.suppress(OSError, NodeError):  # this node has what it needs
            self._ask({"good": digest})

    def reject(self, digest: Digest) -> bool:
        """The agent drops this copy and does not ask whoever gave it again."""
        return bool(self._ask({"bad": digest}).get("again"))

    def manifest(self, manifest_id: Digest) -> Manifest:
        """The manifest with this id.

        Raises
        ------
        NodeError
            When nobody has it, or there is no agent.
        """
        try:
            data = base64.b64decode(self._ask({"manifest": manifest_id})["data"])
        except FileNotFoundError as error:
            raise NodeError(
                "The cluster does not have the manifest.", where=manifest_id[:12], todo="Start the cluster again."
            ) from error
        return decode_manifest(data, manifest_id)

    def _ask(self, question: dict[str, str]) -> dict[str, Any]:
        return ask(self._folder, self._cluster, question, wait=self._wait)
