"""What an agent gives to others: archives that were checked, in pieces."""

from __future__ import annotations

import asyncio
from typing import Any

from likewise.model.digest import Digest, is_digest
from likewise.node.unpack import DamagedCopy
from likewise.transport.archives import Archive, Archives
from likewise.transport.fetch import CHUNK
from likewise.transport.tasks import end, in_thread

_ANSWER = 2.0  # seconds after which whoever asks hears how far the packing is


class Serving:
    """The handlers ``layer_info`` and ``layer_read``.

    Parameters
    ----------
    archives : Archives
    """

    def __init__(self, archives: Archives) -> None:
        self._archives = archives
        self._known: dict[Digest, Archive] = {}
        self._packing: dict[Digest, asyncio.Task[Archive | None]] = {}
        self._beats = 0

    def handlers(self) -> dict[str, Any]:
        """By name, for a Dask server."""
        return {"layer_info": self.layer_info, "layer_read": self.layer_read}

    async def layer_info(self, digest: str) -> dict[str, Any] | None:
        """``{"sha256": …, "size": bytes}`` of the archive, ``{"packing": number}`` while it is made, or None."""
        if not is_digest(digest):
            return None
        task = self._packing.get(Digest(digest))
        if task is None:
            task = self._packing[Digest(digest)] = asyncio.create_task(self._find(Digest(digest)))
            task.add_done_callback(lambda _: self._packing.pop(Digest(digest), None))
        done, _ = await asyncio.wait([task], timeout=_ANSWER)
        if not done:
            self._beats += 1
            return {"packing": self._beats}
        archive = task.result()
        return {"sha256": archive.sha256, "size": archive.size} if archive else None

    async def layer_read(self, digest: str, offset: int, size: int, sha256: str) -> bytes | None:
        """Some bytes of that very archive; None when it is not here (any more)."""
        archive = self._known.get(Digest(digest))
        if archive is None or archive.sha256 != sha256 or not 0 < size <= CHUNK:
            return None
        try:
            return await in_thread(self._archives.read, archive, offset, size)
        except OSError:
            self.forget(Digest(digest))
            return None

    def forget(self, digest: Digest) -> None:
        """The archive is not to be served any more."""
        self._known.pop(digest, None)

    async def close(self) -> None:
        """End what is being packed."""
        await end(list(self._packing.values()))

    async def _find(self, digest: Digest) -> Archive | None:
        try:
            archive = await in_thread(self._archives.find, digest) or await in_thread(self._archives.pack, digest)
        except (OSError, DamagedCopy):
            archive = None
        if archive is not None:
            self._known[digest] = archive
        return archive
