"""A web proxy on loopback, as the nodes of many a data centre have one between them and everything else."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy:
    """A running proxy.

    Attributes
    ----------
    url : str
        What ``http_proxy`` and ``https_proxy`` are set to.
    asked : list of str
        ``GET http://…`` and ``CONNECT host:port``, as they came.
    hosts : dict of str to str
        Where those hosts (with their port, if one is named) are that no other machine knows.
    refuses : int
        The status with which everything is refused; 0: nothing is.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hosts: dict[str, str] = {}
        self.refuses = 0
        owner = self

        class Bound(_Handler):
            proxy = owner

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextlib.contextmanager
def serve_proxy() -> Iterator[Proxy]:
    """A proxy as long as the block lasts."""
    proxy = Proxy()
    threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy

    def do_GET(self) -> None:
        """Pass a plain request on."""
        if self._is_refused():
            return
        parts = urllib.parse.urlsplit(self.path)
        connection = http.client.HTTPConnection(self.proxy.hosts.get(parts.netloc, parts.netloc))
        connection.request("GET", parts.path)
        with contextlib.closing(connection), connection.getresponse() as answer:
            data = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def do_CONNECT(self) -> None:
        """Be a line to a server with TLS."""
        if self._is_refused():
            return
        host, _, port = self.proxy.hosts.get(self.path, self.path).rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pass, args=(far, self.connection))
            back.start()
            _pass(self.connection, far)
            back.join()
        self.close_connection = True

    def _is_refused(self) -> bool:
        self.proxy.asked.append(f"{self.command} {self.path}")
        if self.proxy.refuses:
            self.send_error(self.proxy.refuses)
        return bool(self.proxy.refuses)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
