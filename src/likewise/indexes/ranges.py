"""A file on an index, read where it is: the parts that are needed, by range requests, its end first."""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Iterable

from likewise.errors import FetchError
from likewise.indexes.fetch import PATIENCE
from likewise.indexes.http import Trouble, as_trouble, ask
from likewise.indexes.secret import Secret
from likewise.indexes.values import Indexes
from likewise.model.plan import LockedFile

BLOCK = 1 << 15
"""Bytes that are asked for at least: each question costs a connection."""

TAIL = 2 * BLOCK
"""Bytes at the end that come first: a wheel has its directory there, and mostly its dist-info before that."""

MOST = 64 << 20
"""Bytes after which no more are asked for: by then the whole file might be here."""

_ANOTHER = "the server answers with another part of it than was asked for"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class RangeFile(io.RawIOBase):
    """A remote file for reading, seekable. What was read once is kept.

    Parameters
    ----------
    name : str
        What it is called in messages.
    url : Secret
        ``http:`` or ``https:``, with its tokens.
    indexes : Indexes
        They know the credentials, and how hosts are reached.
    size : int, optional
        Of the file, in bytes, where that is known; another one is refused. Default: the server says.
    timeout : float, default 30
        Seconds without a sign of life after which the server is given up.

    Attributes
    ----------
    size : int
    received : int
        Bytes that have come.

    Raises
    ------
    FetchError
        Also while it is read: the server sends no parts (RFC 9110, 14.2), or another one than was asked for, or can't
        be asked, or more than 64 MiB were wanted.
    """

    def __init__(
        self, name: str, url: Secret, indexes: Indexes, *, size: int | None = None, timeout: float = PATIENCE
    ) -> None:
        super().__init__()
        self._name = name
        self._url, self._indexes, self._timeout = url, indexes, timeout
        self._place, self.received = 0, 0
        self._blocks: dict[int, bytes] = {}
        self.size = self._ask_tail() if size is None else size
        if not self._blocks:
            self._want(range(max(0, self.size - TAIL) // BLOCK, -(-self.size // BLOCK)))

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place: from the beginning, from here, or from the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError("That is before the beginning.")
        self._place = start + offset
        return self._place

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill `buffer`, or as much of it as there is."""
        start, end = self._place, min(self._place + len(buffer), self.size)
        if start >= end:
            return 0
        blocks = range(start // BLOCK, -(-end // BLOCK))
        self._want(blocks)
        data = b"".join(self._blocks[number] for number in blocks)
        first = start - blocks[0] * BLOCK
        buffer[: end - start] = data[first : first + end - start]
        self._place = end
        return end - start

    def _want(self, blocks: Iterable[int]) -> None:
        """Have these blocks here, with one question for those that lie together."""
        missing = [number for number in blocks if number not in self._blocks]
        while missing:
            run = 1
            while run < len(missing) and missing[run] == missing[0] + run:
                run += 1
            self._bring(missing[0], missing[0] + run)
            missing = missing[run:]

    def _bring(self, first: int, end: int) -> None:
        start, stop = first * BLOCK, min(end * BLOCK, self.size)
        if self.received + stop - start > MOST:
            raise self._failed(f"more than {MOST} bytes of it are needed")
        data, (begins, _, size) = self._ask(f"bytes={start}-{stop - 1}", stop - start)
        if (begins, size, len(data)) != (start, self.size, stop - start):
            raise self._failed(_ANOTHER)
        self._keep(first, data)

    def _ask_tail(self) -> int:
        """Bring the end of a file of any size, and hear how large it is."""
        data, (begins, ends, size) = self._ask(f"bytes=-{TAIL}", TAIL)
        if ends != size - 1 or len(data) != size - begins:
            raise self._failed(_ANOTHER)
        first = -(-begins // BLOCK)  # what lies before is part of a block
        self._keep(first, data[first * BLOCK - begins :])
        return size

    def _keep(self, first: int, data: bytes) -> None:
        for number, start in enumerate(range(0, len(data), BLOCK), first):
            self._blocks[number] = data[start : start + BLOCK]

    def _ask(self, span: str, most: int) -> tuple[bytes, tuple[int, int, int]]:
        """At most `most` bytes, and first, last and number of all by the server's word."""
        try:
            with ask(self._url.reveal(), self._indexes, timeout=self._timeout, span=span) as answer:
                said = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range") or "")
                if answer.status != http.client.PARTIAL_CONTENT or not said:
                    raise Trouble("it sends no parts of files")
                if (answer.headers.get("Content-Encoding") or "identity") != "identity":
                    raise Trouble("it sends files in another form")
                data = answer.read(most)
        except Trouble as raised:
            trouble = raised
        except (OSError, http.client.HTTPException) as error:
            trouble = as_trouble(error, self._timeout)
        else:
            self.received += len(data)
            return data, (int(said[1]), int(said[2]), int(said[3]))
        raise self._failed(trouble.why)  # outside, so that it doesn't carry the other one, which knows the URL

    def _failed(self, why: str) -> FetchError:
        return FetchError(f"{self._name} can't be read where it is: {why}.", todo="It has to be fetched.")


def open_remote(file: LockedFile, indexes: Indexes, *, timeout: float = PATIENCE) -> io.BufferedReader:
    """`file`, to be read where it is. Nothing of it is checked: that takes all of its bytes.

    Raises
    ------
    FetchError
        Also while it is read; see `RangeFile`.
    """
    url = Secret(indexes.true_url(file.url))
    return io.BufferedReader(RangeFile(file.filename, url, indexes, size=file.size, timeout=timeout))
