"""Package indexes on loopback: real HTTP servers, good, guarded and broken ones, and the wheels that they offer.

::

    offer(folder, "sample", "1.2.3", tag="cp311-cp311-manylinux_2_17_x86_64", requires=["other>=1"])
    with serve_index(folder, user="me", password="secret") as index:
        run(UV, "pip", "compile", "--default-index", index.url_with_credentials, …)
    assert index.asked_for("sample")
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import socket
import sys
import tarfile
import threading
import urllib.parse
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "text/html; charset=utf-8"
FAULTS = ("", "status", "html", "hang", "slow", "truncate", "wrong-hash", "wrong-content", "huge", "not-json", "close")


# ---- what is offered


def offer(
    folder: Path,
    name: str,
    version: str,
    *,
    tag: str = "py3-none-any",
    requires: Iterable[str] = (),
    requires_python: str = "",
    extras: Iterable[str] = (),
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """A wheel in `folder`. `tag` is what stands in its file name; several are joined with dots (PEP 425)."""
    import_name = re.sub(r"[-_.]+", "_", name)
    info = f"{import_name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    pythons, abis, platforms = (part.split(".") for part in tag.split("-"))
    tags = "".join(f"Tag: {p}-{a}-{f}\n" for p in pythons for a in abis for f in platforms)
    pure = str(platforms == ["any"]).lower()
    content = {
        **(files or {f"{import_name}.py": f"VERSION = {version!r}\n".encode()}),
        f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: {pure}\n{tags}".encode(),
    }
    rows = [f"{path},sha256={_record_hash(data)},{len(data)}" for path, data in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{import_name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, date_time=(2024, 1, 1, 0, 0, 0)), data)
    return wheel


def offer_sdist(folder: Path, name: str, version: str, *, requires: Iterable[str] = ()) -> Path:
    """A source distribution in `folder` that a build with setuptools would understand."""
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    metadata = [f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    project = f"[project]\nname = {json.dumps(name)}\nversion = {json.dumps(version)}\n"
    project += f"dependencies = {json.dumps(list(requires))}\n"
    content = {"PKG-INFO": "\n".join(metadata) + "\n", "pyproject.toml": project, f"{stem.split('-')[0]}.py": ""}
    folder.mkdir(parents=True, exist_ok=True)
    sdist = folder / f"{stem}.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for path, text in content.items():
            entry = tarfile.TarInfo(f"{stem}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return sdist


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def dead_url(host: str = "127.0.0.1") -> str:
    """The URL of an index that is down: nobody listens at that port."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"http://{host}:{probe.getsockname()[1]}/simple/"


# ---- what is served


@dataclass(frozen=True)
class Offered:
    """One file of the index."""

    path: Path

    @property
    def project(self) -> str:
        """The normalized name (PEP 503)."""
        stem = self.path.name.removesuffix(".tar.gz")
        name = stem.split("-", 1)[0] if self.path.suffix == ".whl" else stem.rpartition("-")[0]
        return re.sub(r"[-_.]+", "-", name).lower()

    @cached_property
    def sha256(self) -> str:
        """Of its content, hexadecimal."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def metadata(self) -> bytes:
        """A wheel's METADATA, empty for an sdist."""
        if self.path.suffix != ".whl":
            return b""
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA")))

    @property
    def requires_python(self) -> str:
        """That field of the metadata, "" without it."""
        found = re.search(rb"^Requires-Python: *(.+?)\r?$", self.metadata, re.MULTILINE)
        return found[1].decode() if found else ""


@dataclass(frozen=True)
class Asked:
    """One request that the server got."""

    method: str
    path: str
    authorization: str
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = ""  # of who asked


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How an index answers.

    Attributes
    ----------
    folder : Path
        Its wheels and sdists. Read at each request: what is put in or removed shows at once.
    form : str
        ``json`` (PEP 691 where the client accepts it, else HTML, as PyPI does) or ``html`` (PEP 503 alone).
    user, password : str
        When given, basic authentication is required.
    bearer : str
        When given, ``Authorization: Bearer …`` is required (or basic authentication, with `user` and `password`).
    path_token : str
        When given, everything is beneath ``/t/<token>/``, and any other path is not found.
    query_token : str
        When given, files (not pages) are found only with ``?token=…``, which the pages' links have.
    guard : str
        What credentials are needed for: ``all``, ``pages`` or ``files``.
    fault : str
        One of `FAULTS`: what goes wrong, everywhere or (`fault_in`) in ``pages`` or ``files``.
    status : int
        With the fault ``status``: what every request is answered with (401, 403, 404, 500, …).
    delay : float
        With the fault ``slow``: seconds before each answer, and between the pieces of a file.
    metadata : bool
        Whether metadata is served beside the wheels (PEP 658).
    hashes, sizes : bool
        Whether pages name sha256 and (JSON alone) size.
    yanked : mapping
        File name → reason (PEP 592).
    uploaded : mapping
        File name → time like ``2024-05-01T00:00:00Z`` (PEP 700); files that aren't named have `upload_time`.
    upload_time : str
        Of all other files; "" for an index that doesn't say.
    files_at : str
        Base URL of the files, where that is another server (which serves the same folder): its `files_url`.
    redirect : str
        Where every request is sent to instead (302), with the same path.
    ranges : bool
        Whether a part of a file is sent to who asks for it (``Range``).
    only_for : str
        The address of the only machine that gets an answer other than 403; "" for all.
    """

    folder: Path
    form: str = "json"
    user: str = ""
    password: str = ""
    bearer: str = ""
    path_token: str = ""
    query_token: str = ""
    guard: str = "all"
    fault: str = ""
    fault_in: str = "all"
    status: int = 500
    delay: float = 0.5
    metadata: bool = True
    hashes: bool = True
    sizes: bool = True
    yanked: Mapping[str, str] = field(default_factory=dict)
    uploaded: Mapping[str, str] = field(default_factory=dict)
    upload_time: str = "2024-01-01T00:00:00Z"
    files_at: str = ""
    redirect: str = ""
    ranges: bool = True
    only_for: str = ""

    def __post_init__(self) -> None:
        assert self.fault in FAULTS, self.fault
        assert self.form in ("json", "html"), self.form

    def projects(self) -> dict[str, list[Offered]]:
        """Normalized name → files."""
        found: dict[str, list[Offered]] = {}
        for path in sorted(self.folder.glob("*")) if self.folder.is_dir() else []:
            if path.name.endswith((".whl", ".tar.gz")):
                found.setdefault(Offered(path).project, []).append(Offered(path))
        return found

    def page(self, project: str, files_url: str) -> dict[str, Any]:
        """A project's page (PEP 691); the HTML is made from it."""
        return {
            "meta": {"api-version": "1.1"},
            "name": project,
            "versions": [],
            "files": [self._entry(offered, files_url) for offered in self.projects()[project]],
        }

    def _entry(self, offered: Offered, files_url: str) -> dict[str, Any]:
        name = offered.path.name
        query = f"?token={urllib.parse.quote(self.query_token)}" if self.query_token else ""
        digest = "0" * 64 if self.fault == "wrong-hash" else offered.sha256
        entry: dict[str, Any] = {
            "filename": name,
            "url": f"{files_url}{urllib.parse.quote(name)}{query}",
            "hashes": {"sha256": digest} if self.hashes else {},
        }
        if self.sizes:
            entry["size"] = offered.path.stat().st_size
        if self.metadata and offered.metadata:
            entry["core-metadata"] = {"sha256": hashlib.sha256(offered.metadata).hexdigest()}
        if offered.requires_python:
            entry["requires-python"] = offered.requires_python
        if name in self.yanked:
            entry["yanked"] = self.yanked[name] or True
        uploaded = self.uploaded.get(name, self.upload_time)
        return {**entry, "upload-time": uploaded} if uploaded else entry


def _as_html(page: Mapping[str, Any]) -> str:
    links = []
    for file in page["files"]:
        digest = f"#sha256={file['hashes']['sha256']}" if file["hashes"] else ""
        attributes = f'href="{html.escape(file["url"])}{digest}"'
        if "core-metadata" in file:
            attributes += f' data-core-metadata="sha256={file["core-metadata"]["sha256"]}"'
        if "requires-python" in file:
            attributes += f' data-requires-python="{html.escape(file["requires-python"])}"'
        if "yanked" in file:
            attributes += f' data-yanked="{html.escape("" if file["yanked"] is True else file["yanked"])}"'
        links.append(f"<a {attributes}>{html.escape(file['filename'])}</a><br>")
    return "\n".join(["<!DOCTYPE html><html><body>", *links, "</body></html>"])


def _part(data: bytes, asked: str) -> tuple[int, bytes, str, dict[str, str]]:
    """Status, content, its type and further headers: all of `data`, or the part that was asked for (RFC 9110, 14)."""
    kind = "application/octet-stream"
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if not found or not (found[1] or found[2]):
        return 200, data, kind, {}
    start = int(found[1]) if found[1] else max(0, len(data) - int(found[2]))
    end = min(int(found[2]) + 1 if found[1] and found[2] else len(data), len(data))
    if start >= end:
        return 416, b"", kind, {"Content-Range": f"bytes */{len(data)}"}
    return 206, data[start:end], kind, {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}


class IndexServer:
    """A running index.

    Attributes
    ----------
    url : str
        Of the simple repository, without credentials (a token in its path belongs to the path, and is there).
    files_url : str
        What the URLs of its files begin with.
    asked : list of Asked
        Every request so far.
    heard : callable
        Called at each request, before it is answered.
    manner : Manner
        May be replaced while it runs.
    """

    def __init__(self, manner: Manner, host: str) -> None:
        self.manner = manner
        self.asked: list[Asked] = []
        self.heard: Callable[[], None] = lambda: None
        self.closing = threading.Event()
        owner = self

        class Bound(_Handler):
            server_index = owner

        self._server = _Server((host, 0), Bound)
        self.host, self.port = host, self._server.server_address[1]

    @property
    def root(self) -> str:
        """What all its URLs begin with."""
        token = f"/t/{self.manner.path_token}" if self.manner.path_token else ""
        return f"http://{self.host}:{self.port}{token}/"

    @property
    def url(self) -> str:
        """See the class."""
        return f"{self.root}simple/"

    @property
    def files_url(self) -> str:
        """See the class."""
        return f"{self.root}files/"

    @property
    def url_with_credentials(self) -> str:
        """`url` with user and password in it."""
        info = f"{urllib.parse.quote(self.manner.user, safe='')}:{urllib.parse.quote(self.manner.password, safe='')}@"
        return self.url.replace("://", f"://{info}", 1) if self.manner.user else self.url

    def asked_for(self, project: str) -> int:
        """How often the page of `project` was asked for."""
        return sum(urllib.parse.urlsplit(one.path).path.endswith(f"/simple/{project}/") for one in self.asked)

    def start(self) -> None:
        """Serve, in a thread."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Serve no more."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Says nothing when a client goes away, as uv does when it knows enough."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only what is a fault of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve_index(folder: Path, *, host: str = "127.0.0.1", **manner: Any) -> Iterator[IndexServer]:
    """An index over `folder` that answers as `Manner` says. `host` may be any loopback address, or ``localhost``."""
    server = IndexServer(Manner(folder=folder, **manner), host)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the root page, the projects' pages, the files and their metadata."""

    protocol_version = "HTTP/1.1"
    server_index: IndexServer

    def do_GET(self) -> None:
        """Answer with the page or the file, or fail as the manner says."""
        index, manner = self.server_index, self.server_index.manner
        headers = {key.lower(): value for key, value in self.headers.items()}
        address = str(self.client_address[0])
        index.asked.append(Asked(self.command, self.path, headers.get("authorization", ""), headers, address))
        index.heard()
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path)
        if manner.only_for not in ("", self.client_address[0]):
            return self._send(403, b"not you", "text/plain")
        if manner.redirect:
            return self._redirect(urllib.parse.urljoin(manner.redirect, self.path))
        token = f"/t/{manner.path_token}/" if manner.path_token else "/"
        if not path.startswith(token):
            return self._send(404, b"not found", "text/plain")
        place, _, name = path[len(token) :].strip("/").partition("/")
        kind = "pages" if place == "simple" else "files"
        if manner.fault and manner.fault_in in ("all", kind) and self._fail(manner, kind):
            return None
        if manner.guard in ("all", kind) and not self._allowed(manner, headers.get("authorization", "")):
            return self._send(401, b"who are you?", "text/plain", {"WWW-Authenticate": 'Basic realm="index"'})
        if kind == "pages":
            return self._page(manner, name)
        if manner.query_token and urllib.parse.parse_qs(parts.query).get("token") != [manner.query_token]:
            return self._send(403, b"no", "text/plain")
        return self._file(manner, name)

    do_HEAD = do_GET

    def _allowed(self, manner: Manner, given: str) -> bool:
        accepted = []
        if manner.user or manner.password:
            pair = f"{manner.user}:{manner.password}".encode()
            accepted.append(f"Basic {base64.b64encode(pair).decode()}")
        if manner.bearer:
            accepted.append(f"Bearer {manner.bearer}")
        return not accepted or given in accepted

    def _fail(self, manner: Manner, kind: str) -> bool:
        """Do what the fault is; False when an ordinary answer follows."""
        fault = manner.fault
        if fault == "status":
            self._send(manner.status, b"<html><body>sorry</body></html>", HTML_TYPE)
        elif fault == "html":
            self._send(200, b"<!DOCTYPE html><html><body><h1>Sign in</h1><form></form></body></html>", HTML_TYPE)
        elif fault == "not-json":
            self._send(200, b'{"meta": {"api-ver', JSON_TYPE)
        elif fault == "hang":
            self.server_index.closing.wait(120)
            self.close_connection = True
        elif fault == "close":
            self.close_connection = True
        elif fault == "huge" and kind == "files":
            self._endless()
        else:
            if fault == "slow":
                self.server_index.closing.wait(manner.delay)
            return False
        return True

    def _endless(self) -> None:
        """More bytes than anybody asked for, until the client closes."""
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while not self.server_index.closing.is_set():
                self.wfile.write(bytes(1 << 16))
        except OSError:
            pass

    def _page(self, manner: Manner, name: str) -> None:
        projects = manner.projects()
        as_json = manner.form == "json" and JSON_TYPE in self.headers.get("Accept", "")
        if not name:
            listing: dict[str, Any] = {"meta": {"api-version": "1.1"}, "projects": [{"name": n} for n in projects]}
            links = "".join(f'<a href="{n}/">{n}</a>' for n in projects)
            body = json.dumps(listing) if as_json else f"<!DOCTYPE html><html><body>{links}</body></html>"
        elif name in projects:
            page = manner.page(name, manner.files_at or self.server_index.files_url)
            body = json.dumps(page) if as_json else _as_html(page)
        else:
            return self._send(404, b"not found", "text/plain")
        return self._send(200, body.encode(), JSON_TYPE if as_json else HTML_TYPE)

    def _file(self, manner: Manner, name: str) -> None:
        path = manner.folder / name.removesuffix(".metadata")
        if "/" in name or not path.is_file():
            return self._send(404, b"not found", "text/plain")
        if name.endswith(".metadata"):
            data = Offered(path).metadata
            return self._send(200 if manner.metadata and data else 404, data, "application/octet-stream")
        data = path.read_bytes()
        if manner.fault == "wrong-content":
            data = bytes(reversed(data))
        return self._send(*_part(data, self.headers.get("Range", "") if manner.ranges else ""))

    def _send(self, status: int, data: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self._body(data)

    def _body(self, data: bytes) -> None:
        manner, closing = self.server_index.manner, self.server_index.closing
        if manner.fault == "truncate" and len(data) > 1:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif manner.fault == "slow":
            for start in range(0, len(data), max(1, len(data) // 4)):
                closing.wait(manner.delay)
                self.wfile.write(data[start : start + max(1, len(data) // 4)])
        else:
            self.wfile.write(data)

    def _redirect(self, location: str) -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""
