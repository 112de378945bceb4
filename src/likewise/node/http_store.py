"""A store behind a plain web server that holds a bundle's folder: for nodes that share no directory.

The server needs nothing but files. What it sends is checked by the unpacker like any other copy, so neither it nor the
way to it has to be trusted; a download that breaks off goes on where it was (RFC 9110, section 14). Proxies count as
``http_proxy`` and ``no_proxy`` say.
"""

from __future__ import annotations

import http.client
import io
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, BinaryIO, cast

from likewise.errors import NodeError, UsageError
from likewise.model.digest import Digest
from likewise.model.keys import layer_key, manifest_key
from likewise.model.manifest import Manifest, decode_manifest
from likewise.node.launch import CERTIFICATES

_MANIFEST_LIMIT = 64 << 20  # bytes; one of 10,000 layers has 3 MB
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # a server that says so may answer the next time
_SKIP = 1 << 20


class HttpStore:
    """A store at an ``http://`` or ``https://`` address.

    Parameters
    ----------
    url : str
        Of the folder. It stands on a command line, so it can't hold a credential.
    timeout : float, default 10
        Seconds that the server has for each answer.
    tries : int, default 5
        How often in a row something may fail; each byte that arrives starts the count anew.
    pause : float, default 0.2
        Seconds before the second try; each further pause is twice as long.

    Raises
    ------
    UsageError
        When the address has user information, a query or a fragment.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, tries: int = 5, pause: float = 0.2) -> None:
        self._url = plain_url(url)
        self._timeout = timeout
        self._tries = tries
        self._pause = pause
        self._rejected: set[Digest] = set()
        self._opener: urllib.request.OpenerDirector | None = None

    def __str__(self) -> str:
        return self._url

    def open(self, digest: Digest) -> BinaryIO:
        """The archive of the layer."""
        return cast(BinaryIO, _Download(self, layer_key(digest), fresh=digest in self._rejected))

    def accept(self, digest: Digest) -> None:
        """Nothing to do: nobody else is served from here."""

    def reject(self, digest: Digest) -> bool:
        """Ask once more, and past every cache on the way; a second damaged copy is the server's own."""
        again = digest not in self._rejected
        self._rejected.add(digest)
        return again

    def manifest(self, manifest_id: Digest) -> Manifest:
        """The manifest with this id.

        Raises
        ------
        NodeError
            When it is not there, can't be had, or is not what its id says.
        """
        try:
            with _Download(self, manifest_key(manifest_id)) as download:
                data = io.BufferedReader(download).read(_MANIFEST_LIMIT)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            raise NodeError(
                f"The manifest is not in the store {self}." if gone else f"The manifest can't be read ({error}).",
                where=manifest_id[:12],
                todo="Write the bundle to the web server's folder." if gone else "Make sure that the server answers.",
            ) from error
        return decode_manifest(data, manifest_id)

    def request(self, key: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The server's answer; what may pass is tried again.

        Raises
        ------
        FileNotFoundError
            When the server does not have it.
        OSError
            When it can't be had.
        """
        url = f"{self._url}/{key}"
        for attempt in range(self._tries):
            if attempt:
                time.sleep(self.pause(attempt))
            try:
                request = urllib.request.Request(url, headers={"User-Agent": "likewise", **headers})
                return cast(http.client.HTTPResponse, self._open(request))
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in (404, 410):
                    raise FileNotFoundError(f"{url} is not there") from None
                problem = f"{url}: the server says {error.code} {error.reason}"
                if error.code not in _PASSING:
                    raise OSError(problem) from None
            except (OSError, http.client.HTTPException) as error:
                problem = f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}"
        raise OSError(problem)

    def pause(self, attempt: int) -> float:
        """Seconds to wait before this attempt (the first is number 0)."""
        return float(self._pause * 2 ** (attempt - 1))

    @property
    def tries(self) -> int:
        """How often in a row something may fail."""
        return self._tries

    def _open(self, request: urllib.request.Request) -> Any:
        if self._opener is None:
            self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls_context()))
        return self._opener.open(request, timeout=self._timeout)


class _Download(io.RawIOBase):
    """One file of the store, read once from its beginning to its end."""

    def __init__(self, store: HttpStore, key: str, *, fresh: bool = False) -> None:
        self._store = store
        self._key = key
        self._headers = {"Cache-Control": "no-cache"} if fresh else {}
        self._at = 0
        self._failures = 0
        self._response = store.request(key, self._headers)
        self._size = _size(self._response)
        self._version = _version(self._response)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read what has arrived; nothing only at the end."""
        while True:
            problem: Exception | None = None
            try:
                count = self._response.readinto(buffer)
            except (OSError, http.client.HTTPException) as error:
                count, problem = 0, error
            self._at += count
            if count:
                self._failures = 0
                return count
            if problem is None and (self._size is None or self._at >= self._size):
                return 0
            self._resume(problem)

    def close(self) -> None:
        """Let the connection go."""
        self._response.close()
        super().close()

    def _resume(self, problem: Exception | None) -> None:
        """Connect again, and be where the last connection broke off."""
        self._failures += 1
        if self._failures >= self._store.tries:
            raise OSError(f"{self._key}: the connection broke off after {self._at} bytes ({problem or 'closed'})")
        time.sleep(self._store.pause(self._failures))
        self._response.close()
        headers = {**self._headers, "Range": f"bytes={self._at}-"}
        if self._version:
            headers["If-Range"] = self._version
        self._response = self._store.request(self._key, headers)
        if _version(self._response) != self._version:
            raise OSError(f"{self._key}: it has changed on the server meanwhile")
        if self._response.status != 206:  # a server without ranges sends all of it again
            self._skip()
        elif not (self._response.headers.get("Content-Range") or "").startswith(f"bytes {self._at}-"):
            raise OSError(f"{self._key}: the server sends another range than was asked for")

    def _skip(self) -> None:
        left = self._at
        try:
            while left and (piece := self._response.read(min(left, _SKIP))):
                left -= len(piece)
        except (OSError, http.client.HTTPException) as error:
            raise OSError(f"{self._key}: the connection broke off again ({error})") from error


def plain_url(url: str) -> str:
    """`url` without the slash at its end, if it is one that everybody may see.

    Raises
    ------
    UsageError
        When it has user information, a query or a fragment, or is no address of a web server.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("This is no address of a web server.", where=url.split("?")[0], todo="Write https://….")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "The store's address has more than a host and a path, and everybody on a node can see it.",
            where=f"{parts.scheme}://{parts.hostname}",
            todo="Serve the folder where nodes need no credential: what they get is checked in any case.",
        )
    return url.rstrip("/")


def tls_context() -> ssl.SSLContext:
    """What checks a server's certificate: ``SSL_CERT_FILE``, the machine's own authorities, or those of this Python."""
    context = ssl.create_default_context()
    if not os.environ.get("SSL_CERT_FILE") and not context.cert_store_stats()["x509_ca"]:
        for path in (*CERTIFICATES, f"{sys.base_prefix}/ssl/cert.pem"):
            if os.access(path, os.R_OK):
                context.load_verify_locations(path)
                break
    return context


def _size(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def _version(response: http.client.HTTPResponse) -> str:
    """What tells one version of the file from another: a strong entity tag, or the time of its last change."""
    tag = str(response.headers.get("ETag") or "")
    return tag if tag and not tag.startswith("W/") else str(response.headers.get("Last-Modified") or "")
