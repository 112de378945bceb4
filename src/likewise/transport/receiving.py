"""The hub's end of the client's upload: which layers it should send, and what came of them so far."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

from likewise.errors import NodeError
from likewise.model.digest import Digest, is_digest
from likewise.node.cache import host_name
from likewise.node.disk import disk_error
from likewise.transport.archives import Archive, Archives, Part
from likewise.transport.tasks import happens, in_thread


class Receiving:
    """What the client uploads.

    Parameters
    ----------
    archives : Archives
        Where it goes.
    took : callable
        Called with a layer's digest, the number of bytes that came, and how many of its bytes are here now.
    arrived : callable
        Called with each archive that is whole.
    refused : callable
        Called with the digest of a layer that the client can't give, or that can't be kept here.
    poll : float
        Seconds for which a question is kept open.
    """

    def __init__(
        self,
        archives: Archives,
        took: Callable[[Digest, int, int], None],
        arrived: Callable[[Archive], None],
        refused: Callable[[Digest], None],
        poll: float,
    ) -> None:
        self._archives, self._took, self._arrived, self._refused, self._poll = archives, took, arrived, refused, poll
        self._wanted: dict[Digest, int] = {}
        self._numbers = itertools.count(1)
        self._damaged: set[Digest] = set()
        self._parts: dict[Digest, Part] = {}
        self._locks: defaultdict[Digest, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._news = asyncio.Event()

    def want(self, digest: Digest) -> None:
        """The client should send this layer."""
        self._wanted[digest] = next(self._numbers)
        self._news.set()

    def withdraw(self, digest: Digest) -> None:
        """The client need not send it any more; what came of it stays for another time."""
        self._wanted.pop(digest, None)
        self._let_go(digest)

    def doubt(self, digest: Digest) -> None:
        """The copy here turned out to be damaged: when the client is asked for another, it hears that."""
        self._damaged.add(digest)

    async def wanted(self, busy: Collection[int]) -> list[dict[str, Any]]:
        """What to send besides the uploads with the numbers `busy`; waits for some seconds until there is something.

        Returns
        -------
        list of dict
            ``number``; ``digest``; ``damaged``: whether the last archive of this layer here was.
        """
        deadline = time.monotonic() + self._poll
        while True:
            new = [(number, digest) for digest, number in self._wanted.items() if number not in busy]
            left = deadline - time.monotonic()
            if new or left <= 0:
                return [{"number": n, "digest": digest, "damaged": digest in self._damaged} for n, digest in new]
            self._news.clear()
            await happens(self._news, left)

    async def put(self, digest: Digest, sha256: Digest, size: int, offset: int, data: bytes) -> dict[str, Any]:
        """Take some bytes of an archive.

        Returns
        -------
        dict
            ``offset``: how much of it is here; ``done``: whether it is finished, or not wanted (any more); or
            ``busy``: it comes into this cache from elsewhere, too, and is to be asked for again soon;
            ``error``: a NodeError as a mapping, when this machine can't keep it.
        """
        if not is_digest(sha256):
            return {"offset": 0, "done": True}
        async with self._locks[digest]:
            try:
                return await self._put(digest, sha256, size, offset, data)
            except BlockingIOError:  # the hub of another cluster receives the same archive into the same cache
                archive = await in_thread(self._archives.find, digest)
                if archive is None:
                    return {"busy": True}
                self._finish(archive)
                return {"offset": size, "done": True}
            except (OSError, NodeError) as error:
                if isinstance(error, OSError):
                    error = disk_error(error, f"{host_name()}, in {self._archives.folder}")
                self._drop(digest)
                self.refuse(digest)
                return {"offset": 0, "done": True, "error": error.as_dict()}
            finally:
                if digest not in self._wanted:  # not any more
                    self._drop(digest)

    async def _put(self, digest: Digest, sha256: Digest, size: int, offset: int, data: bytes) -> dict[str, Any]:
        if digest not in self._wanted:
            self._drop(digest)
            return {"offset": size, "done": True}
        part = self._parts.get(digest)
        if part is None or part.whole.sha256 != sha256:
            self._drop(digest)
            part = self._parts[digest] = await in_thread(self._archives.receive, digest, sha256, size)
        if offset != part.size:
            return {"offset": part.size, "done": False}
        self._took(digest, len(data), offset + len(data))
        await in_thread(part.append, bytes(data))
        if part.size < part.whole.size:
            return {"offset": part.size, "done": digest not in self._wanted}
        announced = part.is_announced()
        if announced:
            self._finish(part.publish())
        else:
            part.discard()
        self._drop(digest)
        return {"offset": size if announced else 0, "done": announced}

    def _finish(self, archive: Archive) -> None:
        self._wanted.pop(archive.digest, None)
        self._damaged.discard(archive.digest)
        self._arrived(archive)

    def refuse(self, digest: Digest) -> None:
        """The client can't give this layer."""
        self._let_go(digest)
        if self._wanted.pop(digest, None) is not None:
            self._refused(digest)

    def close(self) -> None:
        """What is here of unfinished uploads stays for another time."""
        for digest in list(self._parts):
            self._drop(digest)

    def _let_go(self, digest: Digest) -> None:
        """Whoever gives it to this cache from elsewhere need not wait. `put` does so itself while it is at it."""
        if not self._locks[digest].locked():
            self._drop(digest)

    def _drop(self, digest: Digest) -> None:
        part = self._parts.pop(digest, None)
        if part is not None:
            part.close()
