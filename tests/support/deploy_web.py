"""A web server for a folder that breaks off, lies, or is busy, as a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec


class Answer(msgspec.Struct, kw_only=True):
    """How one request is answered.

    Attributes
    ----------
    status : int
        Instead of 200 or 206.
    tag : str
        The entity tag; "" for none.
    ranges : bool
        Whether the server knows ranges.
    stop : int or None
        Bytes after which the connection breaks off.
    data : bytes or None
        Instead of the file's.
    """

    status: int = 200
    tag: str = '"one"'
    ranges: bool = True
    stop: int | None = None
    data: bytes | None = None


class Web(msgspec.Struct):
    """The running server: its address, and the path, ``Range`` and ``Cache-Control`` of each request so far."""

    url: str
    requests: list[tuple[str, str, str]]


@contextmanager
def web(root: Path, answer: Callable[[int, str], Answer] = lambda number, path: Answer()) -> Iterator[Web]:
    """Serve `root`; `answer` is told the number of the request to the same path, from 0, and the path."""
    requests: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = sum(path == self.path for path, _, _ in requests)
            wanted = self.headers.get("Range", "")
            requests.append((self.path, wanted, self.headers.get("Cache-Control", "")))
            how = answer(number, self.path)
            file = root / self.path.lstrip("/")
            if how.status != 200 or not file.is_file():
                self.send_error(how.status if how.status != 200 else 404)
                return
            data = file.read_bytes() if how.data is None else how.data
            same = self.headers.get("If-Range", how.tag) == how.tag
            begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and how.ranges and same else 0
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(data) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            if how.tag:
                self.send_header("ETag", how.tag)
            self.end_headers()
            self.wfile.write(data[begin : None if how.stop is None else begin + how.stop])

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Web(f"http://127.0.0.1:{server.server_address[1]}", requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
