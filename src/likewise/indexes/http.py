"""Asking a server: with the credential that belongs to each address, and a clear word for each thing that fails."""

from __future__ import annotations

import http.client
import importlib.util
import io
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from email.message import Message
from functools import lru_cache
from typing import IO, Any, cast
from urllib.parse import urlsplit

from likewise.indexes.urls import realm
from likewise.indexes.values import Connection, Indexes

AGENT = "likewise"

GRACE = 60.0
"""Seconds of waiting for an answer's bytes that anybody is given, however few come."""

SLOWEST = 1024
"""Bytes a second that have to come after that, on the average: a server may drip, and never be silent."""

_PIECE = 2**16

_WORDS = {
    401: "it wants a credential (401)",
    403: "it refuses access (403)",
    404: "it does not have it (404)",
    407: "the proxy wants a credential (407)",
    410: "it has it no more (410)",
    **dict.fromkeys((301, 302, 303, 307, 308), "it redirects in a circle, or to what is no web address"),
    429: "it is asked too often (429)",
}


_DATES = (9, 10)
"""OpenSSL's codes for a certificate that is not valid yet, and not any more."""


class Trouble(Exception):
    """A question that got no answer.

    Parameters
    ----------
    why : str
        The rest of a sentence that begins with what was asked. It has no URL and no credential.
    status : int
        What the server answered (RFC 9110), 0 when it did not.
    passing : bool
        Whether asking once more may help.
    """

    def __init__(self, why: str, *, status: int = 0, passing: bool = False) -> None:
        super().__init__(why)
        self.why, self.status, self.passing = why, status, passing


def ask(url: str, indexes: Indexes, *, timeout: float, accept: str = "*/*", span: str = "") -> http.client.HTTPResponse:
    """Send a GET request.

    Parameters
    ----------
    url : str
        ``http:`` or ``https:``, with its tokens.
    indexes : Indexes
        They know the credentials, and how hosts are reached.
    timeout : float
        Seconds without a sign of life.
    accept : str
        The content types that are understood (RFC 9110).
    span : str
        The part that is asked for, as ``Range`` has it (RFC 9110, 14.2). Default "": all of it.

    Raises
    ------
    Trouble
    """
    trouble: Trouble
    headers = {"User-Agent": AGENT, "Accept": accept}
    try:
        request = urllib.request.Request(url, headers={**headers, "Range": span} if span else headers)
        _authorize(request, indexes)
        return cast("http.client.HTTPResponse", _opener(indexes).open(request, timeout=timeout))
    except Trouble as raised:
        trouble = raised
    except urllib.error.HTTPError as error:
        trouble = Trouble(
            _WORDS.get(error.code) or f"it answers {error.code} ({http.client.responses.get(error.code, 'unknown')})",
            status=error.code,
            passing=error.code >= 500 or error.code == 429,
        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        trouble = as_trouble(error, timeout)
    raise trouble  # outside, so that it doesn't carry the other one, which knows the URL


def whole(answer: http.client.HTTPResponse, most: int, within: float) -> bytes:
    """At most `most` bytes of `answer`, which have to come within some seconds.

    Raises
    ------
    Trouble, OSError, http.client.HTTPException
    """
    data, end = bytearray(), time.monotonic() + within
    while piece := answer.read1(min(_PIECE, most - len(data))):
        data += piece
        if time.monotonic() > end:
            raise Trouble(f"its answer takes longer than {within:g} s")
    return bytes(data)


def as_trouble(error: Exception, timeout: float) -> Trouble:
    """What went wrong with a connection, in words of our own: those of the error may have the URL."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return Trouble(f"it does not answer within {timeout:g} s")
    if isinstance(reason, ssl.SSLCertVerificationError):
        now = f"; by this machine's clock it is {time.strftime('%Y-%m-%d')}" if reason.verify_code in _DATES else ""
        return Trouble(f"its certificate is not trusted ({reason.verify_message}{now})")
    if isinstance(reason, ssl.SSLError):
        return Trouble(f"no secure connection could be made ({reason.reason or 'TLS'})")
    if isinstance(reason, (ConnectionError, http.client.HTTPException)):
        said = getattr(reason, "strerror", None) or "the connection was closed"
        return Trouble(f"it can't be reached ({said})", passing=not isinstance(reason, ConnectionRefusedError))
    if isinstance(reason, OSError):
        return Trouble(f"it can't be reached ({reason.strerror or 'the network failed'})")
    return Trouble("its address is no URL that can be asked")


def _authorize(request: urllib.request.Request, indexes: Indexes) -> None:
    """Add the credential in a way that no redirect takes it along."""
    header = indexes.authorization(request.full_url)
    if header:
        request.add_unredirected_header("Authorization", header)


def _opener(indexes: Indexes) -> urllib.request.OpenerDirector:
    """Nothing but HTTP: neither a page nor a redirect may name a local file."""
    proxy = indexes.connection.proxy
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(dict.fromkeys(("http", "https"), proxy.reveal()) if proxy else None),
        urllib.request.UnknownHandler(),
        _Http(),
        _Https(indexes.connection),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(indexes),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows with the credential of the new address, not with that of the old one."""

    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """The request that follows."""
        schemes = realm(req.full_url)[0], realm(newurl)[0]
        if schemes not in {("http", "http"), ("http", "https"), ("https", "https")}:
            raise Trouble(f"it redirects from {schemes[0]} to {schemes[1] or 'nowhere'}")
        following = super().redirect_request(req, fp, code, msg, cast(Any, headers), newurl)
        if following is not None:
            _authorize(following, self._indexes)
        return following


class _Paced(io.RawIOBase):
    """What comes from a server, until it is too little for the time that was waited for it."""

    def __init__(self, source: io.RawIOBase, connection: socket.socket) -> None:
        self._source, self._connection = source, connection
        self._timeout = connection.gettimeout()
        self._waited, self._received = 0.0, 0

    def readable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The connection's."""
        return self._source.fileno()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Wait for some bytes."""
        left = GRACE + self._received / SLOWEST - self._waited
        began = time.monotonic()
        if left > 0:
            self._connection.settimeout(left if self._timeout is None else min(left, self._timeout))
            try:
                count = self._source.readinto(buffer) or 0
            except TimeoutError:
                if self._timeout is not None and self._timeout <= left:
                    raise
            else:
                self._waited += time.monotonic() - began
                self._received += count
                return count
        raise Trouble(f"it sends less than {SLOWEST} bytes a second")

    def close(self) -> None:
        """Close the connection."""
        self._source.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that has to come at some pace, from its first line on."""

    def __init__(self, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp = io.BufferedReader(_Paced(self.fp.detach(), sock))


class _HttpConnection(http.client.HTTPConnection):
    response_class = _Answer


class _HttpsConnection(http.client.HTTPSConnection):
    response_class = _Answer


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open the connection."""
        return self.do_open(cast(Any, _HttpConnection), req)


class _Https(urllib.request.HTTPSHandler):
    """Trusts what the user's configuration says, host by host."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open the connection."""
        parts = urlsplit(f"//{req._tunnel_host or req.host}")  # type: ignore[attr-defined]
        verified = not {parts.hostname, parts.netloc} & set(self._connection.unverified)
        context = _context(self._connection.certificates, verified=verified)
        return self.do_open(cast(Any, _HttpsConnection), req, context=context)


@lru_cache(maxsize=4)
def _context(certificates: str, *, verified: bool) -> ssl.SSLContext:
    if not verified:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context = ssl.create_default_context(cafile=certificates or _certificates_of_certifi())
        context.verify_flags &= (
            ~ssl.VERIFY_X509_STRICT
        )  # from Python 3.13 on; many a firm's authority is not that strict
        return context
    except OSError as error:
        raise Trouble(f"the certificates in {certificates} can't be read ({error.strerror or 'no PEM'})") from None


def _certificates_of_certifi() -> str | None:
    """Where Python itself knows no certificates (python.org's for macOS): those of certifi, if that is installed."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath or sys.platform == "win32" or importlib.util.find_spec("certifi") is None:
        return None
    where = importlib.import_module("certifi").where()
    return str(where)


def content_type(headers: Message) -> str:
    """The content type without its parameters."""
    return str(headers.get("Content-Type") or "").partition(";")[0].strip().lower()
