"""A layer that a node makes by itself, of the wheel that a public index offers, or of a channel's conda package.

The wheel counts only when it has the sha256 that the client named, and the layer only when it has the digest that was
asked for: neither the index nor the way to it has to be trusted. No credential is ever sent, proxies count as the
node's own environment variables say. What is said of wheels here holds for conda packages as well, but that a channel
may be a folder, too, which nodes of one machine or file system share.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import http.client
import os
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from likewise.errors import LayerError
from likewise.layers.conda import layer_of_archive
from likewise.layers.wheel import opened, wheel_source
from likewise.model.digest import Digest
from likewise.model.layer import encode_listing
from likewise.model.offer import CONDA, kind_of
from likewise.model.origins import local_path
from likewise.model.plan import LockedFile
from likewise.node.disk import check_space, write_all
from likewise.node.http_store import tls_context
from likewise.transport.archives import Archive, Archives
from likewise.transport.fetch import SILENCE, SourceDamaged, SourceFailed
from likewise.transport.tasks import in_thread, within

LOWEST = 32 << 10
"""Bytes per second; what comes slower gives way in any case."""

WINDOW = 20.0
"""Seconds over which that is looked at."""

_CHUNK = 1 << 18
_MOST = 32 << 30  # bytes of a wheel whose size nobody named
_SPARE = 16 << 20  # bytes of what a wheel has and its layer has not, RECORD for example
_GONE = (404, 410)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_PAUSE = 0.5  # seconds before the second try
_NEXT_ADDRESS = 0.25  # seconds after which a further address of a server is tried beside those before
_BAD_NAMES = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ)


class OtherLayer(SourceDamaged):
    """The very wheel that was asked for is another layer, or none: whoever fetches it will find that."""


class WheelFetch:
    """One wheel on its way to be a layer; an asynchronous context manager that leaves nothing but the archive.

    Parameters
    ----------
    file : LockedFile
        The wheel.
    digest : Digest
        The layer that it should be.
    archives : Archives
        Where the layer's archive goes.
    scratch : str
        A directory for what is in the making; made when missing.
    size : int, optional
        Bytes of the layer's content, which bound what the wheel may unpack to; 0 when not known.
    lowest : float, optional
        Bytes per second; a server that gives less has failed.
    """

    def __init__(
        self,
        file: LockedFile,
        digest: Digest,
        archives: Archives,
        scratch: str,
        *,
        size: int = 0,
        lowest: float = LOWEST,
    ) -> None:
        self._file, self._digest, self._archives, self._scratch, self._size = file, digest, archives, scratch, size
        self._lowest = max(LOWEST, lowest)
        self._stopped = threading.Event()
        self._folder = Path()
        self.received = 0
        """Bytes that came, useful or not."""

    async def __aenter__(self) -> WheelFetch:
        os.makedirs(self._scratch, mode=0o700, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self._digest[:16]}.", dir=self._scratch))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await in_thread(shutil.rmtree, self._folder, True)

    async def download(self) -> None:
        """Get the wheel.

        Raises
        ------
        SourceFailed
            When there is no way to it; another node may have one.
        SourceDamaged
            When the server does not have it, or gives something else.
        OSError, NodeError
            When the disk can't take it.
        """
        if not local_path(self._file.url):
            await _reach(self._file.url)
        await in_thread(self._download, stop=self._stopped.set)

    async def make(self) -> Archive:
        """Make the layer's archive of the wheel.

        Raises
        ------
        OtherLayer
            When the wheel is another layer than it was said to be, or unpacks to more.
        OSError, NodeError
            When the disk can't take it.
        """
        return await in_thread(self._make)

    # ---- in a thread

    @property
    def _wheel(self) -> Path:
        return self._folder / f"wheel{kind_of(self._file)}"

    def _download(self) -> None:
        check_space(str(self._folder), size=self._file.size or 0, files=0)
        try:
            self._copy()
        except _Passing:
            self._stopped.wait(_PAUSE)
            self._copy()

    def _copy(self) -> None:
        """Receive the wheel once, from its beginning."""
        most = _MOST if self._file.size is None else self._file.size
        hashed, size, host = hashlib.sha256(), 0, _host(self._file.url)
        with _opened(self._file.url) as answer, open(self._wheel, "wb", buffering=0) as out:
            slow = _Slowness(self._lowest)
            while data := _read(answer, host):
                size += len(data)
                self.received += len(data)
                if size > most:
                    raise SourceDamaged(f"{host} sends more than the {most:,} bytes of {self._file.filename}.")
                hashed.update(data)
                write_all(out.fileno(), data)
                if self._stopped.is_set():
                    raise SourceFailed("Nobody waits for it any more.")
                if slow.took(len(data)):
                    raise SourceFailed(f"{host} is too slow.")
            missing = _left(answer) or (self._file.size or size) - size
        if missing:
            raise _Passing(f"{host} closed the connection before the end.")
        if hashed.hexdigest() != self._file.sha256:
            raise SourceDamaged(f"What {host} sent as {self._file.filename} has another sha256.")

    def _make(self) -> Archive:
        if kind_of(self._file) in CONDA:
            return self._make_of_package()
        try:
            content, files = _claimed(self._wheel)
            if self._size and content > 2 * self._size + _SPARE:
                raise OtherLayer(f"{self._file.filename} unpacks to {content:,} bytes, far more than the layer has.")
            check_space(str(self._folder), size=content, files=files)
            source = wheel_source(self._wheel, unpack_to=self._folder / "files")
        except LayerError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno not in _BAD_NAMES:
                raise error.__cause__ from None  # this machine's disk
            raise OtherLayer(f"{self._file.filename} can't be unpacked: {error}") from error
        if source.digest != self._digest:
            raise OtherLayer(f"{self._file.filename} is another layer than the one it was offered as.")
        listing = encode_listing([file.entry for file in source.files])
        return self._archives.pack_from(str(self._folder / "files"), listing, self._digest)

    def _make_of_package(self) -> Archive:
        check_space(str(self._folder), size=self._size, files=0)
        most = 2 * self._size + _SPARE if self._size else None
        try:
            source = layer_of_archive(self._wheel, self._folder / "files", most=most)
        except LayerError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None  # this machine's disk
            raise OtherLayer(f"{self._file.filename} can't be unpacked: {error}") from error
        if source.digest != self._digest:
            raise OtherLayer(f"{self._file.filename} is another layer than the one it was offered as.")
        return self._archives.pack_source(source)


class _Passing(SourceFailed):
    """Something that may be gone the next time."""


class _Slowness:
    """Says when less than `lowest` bytes per second came for some time."""

    def __init__(self, lowest: float) -> None:
        self._lowest, self._since, self._bytes = lowest, time.monotonic(), 0

    def took(self, amount: int) -> bool:
        """Whether it is too slow, now that so many further bytes came."""
        self._bytes += amount
        passed = time.monotonic() - self._since
        if passed < WINDOW:
            return False
        slow = self._bytes < self._lowest * passed
        self._since, self._bytes = time.monotonic(), 0
        return slow


def _claimed(wheel: Path) -> tuple[int, int]:
    """Bytes and number of the members, as the zip file claims; no more of them can be read from it."""
    with opened(wheel, wheel.name) as archive:
        infos = archive.infolist()
    return sum(info.file_size for info in infos), len(infos)


def is_public(file: LockedFile) -> bool:
    """Whether it is at a plain web address, with a sha256: nothing in it may be a credential.

    A conda package may be a local file as well; a node that does not have it can't reach it.
    """
    try:
        parts = urllib.parse.urlsplit(file.url)
        plain = not parts.username and not parts.password and not parts.query
    except ValueError:
        return False
    web = parts.scheme in ("http", "https") and bool(parts.hostname)
    local = kind_of(file) in CONDA and parts.scheme == "file" and not parts.netloc
    return plain and (web or local) and bool(kind_of(file)) and len(file.sha256) == 64


def site_of(file: LockedFile) -> str:
    """The server that has it: scheme, host and port."""
    parts = urllib.parse.urlsplit(file.url)
    return f"{parts.scheme}://{parts.netloc}"


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or ""


async def _reach(url: str) -> None:
    """See that there is a way to the server, or to the proxy before it.

    Where packets vanish, urllib would wait for each of a server's addresses in turn.

    Raises
    ------
    SourceFailed
    """
    try:
        host, port = _next_hop(url)
        _, writer = await within(SILENCE, asyncio.open_connection(host, port, happy_eyeballs_delay=_NEXT_ADDRESS))
    except TimeoutError:
        raise SourceFailed(f"{_host(url)} can't be reached within {SILENCE:g} seconds.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SourceFailed(f"{_host(url)} can't be reached ({reason}).") from None
    writer.close()


def _next_hop(url: str) -> tuple[str, int]:
    """Host and port to which a request for `url` goes."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"//{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


_Answer = http.client.HTTPResponse | BufferedReader


def _left(answer: _Answer) -> int:
    """Bytes that should still have come, as far as the server has said how many there are."""
    return 0 if isinstance(answer, BufferedReader) else answer.length or 0


def _read(answer: _Answer, host: str) -> bytes:
    try:
        return answer.read1(_CHUNK)
    except TimeoutError:
        raise SourceFailed(f"{host} sent nothing for {SILENCE:g} seconds.") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(f"The connection to {host} was lost ({type(error).__name__}).") from error


def _opened(url: str) -> _Answer:
    """What a local file has, or the server's answer."""
    path = local_path(url)
    return _opened_here(path) if path else _answered(url)


def _opened_here(path: str) -> BufferedReader:
    if not os.path.isfile(path):  # also not a pipe, which would keep whoever opens it
        raise SourceFailed("The channel's folder is not on this machine.")
    try:
        return open(path, "rb")
    except OSError as error:
        raise SourceFailed(f"The channel's folder can't be read ({error.strerror}).") from None


def _answered(url: str) -> http.client.HTTPResponse:
    """The server's answer, which has a file."""
    host = _host(url)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "likewise", "Accept-Encoding": "identity"})
        answer = cast(http.client.HTTPResponse, _opener().open(request, timeout=SILENCE))
    except SourceFailed:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        kind = SourceDamaged if error.code in _GONE else _Passing if error.code in _PASSING else SourceFailed
        raise kind(f"{host} answers {error.code}.") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        passing = isinstance(reason, (ConnectionError, http.client.HTTPException))
        kind = _Passing if passing and not isinstance(reason, ConnectionRefusedError) else SourceFailed
        raise kind(f"{host} can't be reached ({getattr(reason, 'strerror', None) or type(reason).__name__}).") from None
    if answer.headers.get_content_type() == "text/html":  # whoever wants a login before there is a network
        answer.close()
        raise SourceFailed(f"{host} answers with a web page.")
    return answer


def _opener() -> urllib.request.OpenerDirector:
    """Nothing but HTTP: a redirect can't name a local file, or another protocol."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=tls_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to any host, but not from an encrypted address to one that is not."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """The request that follows."""
        schemes = urllib.parse.urlsplit(req.full_url).scheme, urllib.parse.urlsplit(newurl).scheme
        if schemes not in {("http", "http"), ("http", "https"), ("https", "https")}:
            raise SourceFailed(f"{_host(req.full_url)} redirects to what is no web address of its kind.")
        return super().redirect_request(req, fp, code, msg, cast(Any, headers), newurl)
