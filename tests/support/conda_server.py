"""Conda channels on loopback: real HTTP servers, open ones, guarded ones and broken ones.

::

    with serve_channel(channel.folder, token="secret") as server:
        install(prefix, ["numpy"], [server.url], cache)       # …/t/secret/channel
    assert server.archives() == ["numpy-2.0.1-py311h0_0.conda"]
"""

from __future__ import annotations

import base64
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class ChannelServer:
    """A channel, how it behaves, and what it was asked for.

    Attributes
    ----------
    token : str
        What has to stand in the path as ``/t/TOKEN/``.
    user, password : str
        What basic authentication has to give.
    bearer : str
        The token that the ``Authorization`` header has to give.
    status, fails : int, str
        Answer so to every path that ends in `fails` (everything, when that is empty).
    cut : str
        Send half of every file that ends so, then close.
    page : str
        Answer everything with this web page, as portals of hotels do.
    silent : bool
        Take every request, and never answer.
    slow : float
        Seconds before anything but headers alone is sent.
    elsewhere : str
        Send everybody who may read it to the same path beneath this URL.
    """

    port: int
    folder: Path
    host: str = "127.0.0.1"
    token: str = ""
    user: str = ""
    password: str = ""
    bearer: str = ""
    status: int = 200
    fails: str = ""
    cut: str = "\n"
    page: str = ""
    silent: bool = False
    slow: float = 0
    elsewhere: str = ""
    asked: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)

    @property
    def plain_url(self) -> str:
        """The channel without any credential."""
        return f"http://{self.host}:{self.port}/{self.folder.name}"

    @property
    def url(self) -> str:
        """The channel as somebody who may read it configures it; a bearer token has no place in it."""
        user = f"{self.user}:{self.password}@" if self.user else ""
        token = f"/t/{self.token}" if self.token else ""
        return f"http://{user}{self.host}:{self.port}{token}/{self.folder.name}"

    def archives(self) -> list[str]:
        """The package archives that it was asked for, in order."""
        names = [path.rpartition("/")[2] for path in self.asked]
        return [name for name in names if name.endswith((".conda", ".tar.bz2"))]

    def allows(self, authorization: str) -> bool:
        """Whether somebody with this header may read it."""
        accepted = [f"Bearer {self.bearer}"] if self.bearer else []
        if self.user:
            accepted.append("Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode())
        return not accepted or authorization in accepted


@contextmanager
def serve_channel(folder: Path, *, host: str = "127.0.0.1", **behaviour: object) -> Iterator[ChannelServer]:
    """Serve the channel `folder` at the address `host`.

    `behaviour` are attributes of `ChannelServer`, which may change while it runs.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            authorization = self.headers.get("Authorization", "")
            server.asked.append(self.path)
            server.authorizations.append(authorization)
            if server.silent:
                over.wait()
                self.close_connection = True
                return None
            if self.command == "GET":
                over.wait(server.slow)
            if server.page:
                return self._send(200, server.page.encode())
            if server.status != 200 and path.endswith(server.fails):
                return self._send(server.status, b"sorry")
            if not server.allows(authorization):
                return self._send(401, b"who are you?")
            start = f"/t/{server.token}/" if server.token else "/"
            place = folder.parent / path.removeprefix(start)
            inside = path.startswith(f"{start}{folder.name}/") and place.resolve().is_relative_to(folder)
            if inside and server.elsewhere:
                return self._send(302, b"elsewhere", f"{server.elsewhere}/{path.removeprefix(start)}")
            if not inside or not place.is_file():
                return self._send(404, b"not found")
            return self._send(200, place.read_bytes())

        do_HEAD = do_GET

        def _send(self, status: int, data: bytes, location: str = "") -> None:
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="channel"')
            if server.page:
                self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "GET":
                return
            if self.path.endswith(server.cut):
                data, self.close_connection = data[: len(data) // 2], True
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # the client went away

    over = threading.Event()
    folder = folder.resolve()
    listener = Server((host, 0), Handler)
    server = ChannelServer(listener.server_port, folder, host, **behaviour)  # type: ignore[arg-type]
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        listener.shutdown()
        listener.server_close()
        thread.join()
