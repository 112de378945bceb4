"""A package index on loopback, so that the ways that download are not measured by somebody's network.

Serves one folder of wheels as a simple repository (PEP 503), as JSON too (PEP 691), with each wheel's metadata beside
it (PEP 658), as the public index does: an installer resolves without downloading a wheel.
``python simple_index.py FOLDER`` serves until it is ended.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import sys
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Wheel:
    """One wheel: its file, what the index says of it, and its METADATA."""

    path: Path
    sha256: str
    metadata: bytes

    @property
    def project(self) -> str:
        """The normalized name (PEP 503); a wheel's file name begins with it (PEP 427)."""
        return re.sub(r"[-_.]+", "-", self.path.name.split("-", 1)[0]).lower()

    @property
    def requires_python(self) -> str:
        """The metadata field of that name, "" without it."""
        found = re.search(rb"^Requires-Python: *(.+?)\r?$", self.metadata, re.MULTILINE | re.IGNORECASE)
        return found[1].decode() if found else ""

    @property
    def metadata_sha256(self) -> str:
        """Digest of the METADATA."""
        return hashlib.sha256(self.metadata).hexdigest()


def read_wheel(path: Path) -> Wheel:
    """A wheel with its digest and its METADATA."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while data := file.read(1 << 20):
            digest.update(data)
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
        return Wheel(path=path, sha256=digest.hexdigest(), metadata=archive.read(name))


class Index:
    """What is served: all wheels of a folder, by project."""

    def __init__(self, folder: Path) -> None:
        self.projects: dict[str, list[Wheel]] = {}
        self.files: dict[str, Wheel] = {}
        for path in sorted(folder.glob("*.whl")):
            wheel = read_wheel(path)
            self.projects.setdefault(wheel.project, []).append(wheel)
            self.files[path.name] = wheel

    def as_json(self, project: str) -> dict[str, Any]:
        """The page of a project (PEP 691)."""
        files = [
            {
                "filename": wheel.path.name,
                "url": f"/files/{urllib.parse.quote(wheel.path.name)}",
                "hashes": {"sha256": wheel.sha256},
                "size": wheel.path.stat().st_size,
                "core-metadata": {"sha256": wheel.metadata_sha256},
                **({"requires-python": wheel.requires_python} if wheel.requires_python else {}),
            }
            for wheel in self.projects[project]
        ]
        return {"meta": {"api-version": "1.0"}, "name": project, "files": files}

    def as_html(self, project: str) -> str:
        """The page of a project (PEP 503)."""
        links = []
        for file in self.as_json(project)["files"]:
            attributes = f'href="{file["url"]}#sha256={file["hashes"]["sha256"]}"'
            attributes += f' data-core-metadata="sha256={file["core-metadata"]["sha256"]}"'
            if "requires-python" in file:
                attributes += f' data-requires-python="{html.escape(file["requires-python"])}"'
            links.append(f"<a {attributes}>{html.escape(file['filename'])}</a><br>")
        return "\n".join(["<!DOCTYPE html><html><body>", *links, "</body></html>"])


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the pages of projects, the wheels and their metadata."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, index: Index) -> None:
        self.index = index
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer with the page or the file."""
        place, _, name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/").partition("/")
        wheel = self.index.files.get(name.removesuffix(".metadata"))
        if place == "simple" and name in self.index.projects:
            if JSON_TYPE in self.headers.get("Accept", ""):
                self._send(json.dumps(self.index.as_json(name)).encode(), JSON_TYPE)
            else:
                self._send(self.index.as_html(name).encode(), HTML_TYPE)
        elif place == "files" and wheel and name.endswith(".metadata"):
            self._send(wheel.metadata, "application/octet-stream")
        elif place == "files" and wheel:
            self._send_file(wheel.path)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def _send(self, data: bytes, kind: str) -> None:
        self._head(kind, len(data))
        if self.command == "GET":
            self.wfile.write(data)

    def _send_file(self, path: Path) -> None:
        self._head("application/octet-stream", path.stat().st_size)
        if self.command == "GET":
            with path.open("rb") as file:
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    def _head(self, kind: str, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the wheels of `folder` on loopback, in threads of this process; the address of the simple index."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, index=Index(folder))) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="simple-index", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple/"
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    with serving(Path(sys.argv[1])) as address:
        print(address, flush=True)
        threading.Event().wait()
