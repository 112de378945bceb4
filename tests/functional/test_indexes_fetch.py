"""Fetching pinned files from real servers: guarded ones, moved ones, slow ones, broken ones, and those that lie."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import http.server
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import msgspec
import pytest

from likewise.errors import FetchError, LayerError
from likewise.indexes import Indexes, find_indexes
from likewise.indexes.fetch import fetch
from likewise.indexes.http import Trouble, _context
from likewise.indexes.pages import project_page
from likewise.indexes.ranges import open_remote
from likewise.indexes.secret import Secret
from likewise.model.plan import LockedFile
from support.authority import make_authority
from support.indexes import IndexServer, Manner, dead_url, offer, serve_index

SOON = 0.5
"""Seconds after which a server is given up in these tests."""


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel in the folder that the servers serve."""
    return offer(tmp_path / "wheels", "sample", "1.0", files={"sample.py": b"x" * 3_000_000})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may have passed is tried again at once."""
    monkeypatch.setattr("likewise.indexes.fetch.PAUSES", (0.0, 0.0))


def found(tmp_path: Path, *, netrc: str = "", **environ: str) -> Indexes:
    """The indexes of a user with these variables and this netrc."""
    (tmp_path / "home").mkdir(exist_ok=True)
    if netrc:
        (tmp_path / "home" / ".netrc").write_text(netrc)
    return find_indexes(
        environ={"XDG_CONFIG_DIRS": str(tmp_path / "none"), **environ},
        home=tmp_path / "home",
        folder=tmp_path,
        machine=tmp_path / "machine",
    )


def pinned(wheel: Path, url: str, *, index: str = "", **changes: Any) -> LockedFile:
    """`wheel`, at `url`."""
    data = wheel.read_bytes()
    file = LockedFile(
        filename=wheel.name, url=url, sha256=hashlib.sha256(data).hexdigest(), size=len(data), index=index
    )
    return msgspec.structs.replace(file, **changes)


def at(server: IndexServer, wheel: Path, **changes: Any) -> LockedFile:
    """`wheel` as that index offers it."""
    return pinned(wheel, f"{server.files_url}{wheel.name}", **changes)


def left_over(folder: Path) -> list[str]:
    """What is in a folder."""
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_a_file_is_fetched_once(tmp_path: Path, wheel: Path) -> None:
    """It is there with its bytes; the second time nothing is asked, unless somebody changed it."""
    indexes, amounts = found(tmp_path), []
    with serve_index(wheel.parent) as index:
        path = fetch(at(index, wheel), tmp_path / "into", indexes=indexes, advance=amounts.append)
        assert path.read_bytes() == wheel.read_bytes()
        assert sum(amounts) == wheel.stat().st_size and len(amounts) > 1
        fetch(at(index, wheel), tmp_path / "into", indexes=indexes)
        assert len(index.asked) == 1
        path.write_bytes(b"changed")
        assert fetch(at(index, wheel), tmp_path / "into", indexes=indexes).read_bytes() == wheel.read_bytes()
        assert left_over(tmp_path / "into") == [wheel.name]


def test_from_a_folder(tmp_path: Path, wheel: Path) -> None:
    """An index or a flat list may be a folder."""
    file = pinned(wheel, wheel.as_uri())
    assert fetch(file, tmp_path / "into", indexes=found(tmp_path)).read_bytes() == wheel.read_bytes()
    with pytest.raises(FetchError, match="No such file"):
        fetch(msgspec.structs.replace(file, url=f"{file.url}x"), tmp_path / "other", indexes=found(tmp_path))


# ---- credentials


@pytest.mark.parametrize("source", ["url", "variables", "netrc"])
def test_basic_authentication(tmp_path: Path, wheel: Path, source: str) -> None:
    """The password may be in the URL, in uv's variables or in netrc; odd characters are no matter."""
    password = "s@c:/r%e t" if source != "netrc" else "s@c:/r%et"
    with serve_index(wheel.parent, user="me", password=password) as index:
        given: dict[str, Any] = {
            "url": {"PIP_INDEX_URL": index.url_with_credentials},
            "variables": {
                "UV_INDEX": f"my-firm={index.url}",
                "UV_INDEX_MY_FIRM_USERNAME": "me",
                "UV_INDEX_MY_FIRM_PASSWORD": password,
            },
            "netrc": {"PIP_INDEX_URL": index.url, "netrc": f"machine 127.0.0.1 login me password {password}\n"},
        }[source]
        indexes = found(tmp_path, **given)
        assert fetch(at(index, wheel), tmp_path / "into", indexes=indexes).read_bytes() == wheel.read_bytes()
        assert not indexes.open_to_all(at(index, wheel))
        assert len(index.asked) == 1  # at once with the credential


def test_a_token_as_user(tmp_path: Path, wheel: Path) -> None:
    """``https://TOKEN@host/``: no password is one as well."""
    with serve_index(wheel.parent, user="token-a-b-c", password="") as index:
        url = index.url.replace("://", "://token-a-b-c@")
        indexes = found(tmp_path, UV_DEFAULT_INDEX=url)
        assert fetch(at(index, wheel), tmp_path / "into", indexes=indexes).exists()


def test_what_is_said_when_a_credential_is_missing(tmp_path: Path, wheel: Path) -> None:
    """The error names the places where it was looked for."""
    with serve_index(wheel.parent, user="me", password="secret") as index:
        indexes = found(tmp_path, UV_INDEX=f"my-firm={index.url}")
        with pytest.raises(FetchError) as error:
            fetch(at(index, wheel, index="my-firm"), tmp_path / "into", indexes=indexes)
        assert "wants a credential (401)" in error.value.what
        for place in ("UV_INDEX_MY_FIRM_USERNAME", "netrc", "keyring"):
            assert place in error.value.todo
        assert error.value.where == "my-firm"
        assert left_over(tmp_path / "into") == []


def test_a_credential_stays_with_its_host(tmp_path: Path, wheel: Path) -> None:
    """Neither another port nor another host gets it, not even by a redirect or a link of the index's own page."""
    with (
        serve_index(wheel.parent, host="127.0.0.2") as other,
        serve_index(wheel.parent, user="me", password="secret") as index,
    ):
        indexes = found(tmp_path, PIP_INDEX_URL=index.url_with_credentials, netrc="default login you password all\n")
        assert indexes.authorization(other.url) is None
        assert indexes.authorization(index.url.replace("http:", "https:")) is None
        assert indexes.authorization(index.url.replace("127.0.0.1", "127.0.0.1.example")) is None
        fetch(at(other, wheel), tmp_path / "direct", indexes=indexes)
        index.manner = Manner(folder=wheel.parent, user="me", password="secret", redirect=other.root)
        fetch(at(index, wheel), tmp_path / "redirected", indexes=indexes)
        assert index.asked[-1].authorization
        assert [one.authorization for one in other.asked] == ["", ""]


def test_a_redirect_to_a_host_with_a_credential_of_its_own(tmp_path: Path, wheel: Path) -> None:
    """It gets its own."""
    with (
        serve_index(wheel.parent, host="127.0.0.2", user="you", password="other") as other,
        serve_index(wheel.parent, user="me", password="secret", redirect=other.root) as index,
    ):
        indexes = found(tmp_path, UV_INDEX=f"{index.url_with_credentials} {other.url_with_credentials}")
        assert fetch(at(index, wheel), tmp_path / "into", indexes=indexes).exists()


def test_of_several_indexes_of_one_host_the_nearest_counts(tmp_path: Path) -> None:
    """One server has several repositories, each with a token of its own."""
    host = "https://packages.example"
    indexes = found(
        tmp_path,
        UV_INDEX=f"{host.replace('//', '//a:one@')}/red/simple {host.replace('//', '//b:two@')}/blue/simple",
    )
    red, blue = (indexes.authorization(f"{host}/{color}/files/x.whl") for color in ("red", "blue"))
    assert red and blue and red != blue
    assert indexes.index_of(f"{host}/blue/files/x.whl") == "packages-example-2"
    assert indexes.index_of("https://files.example/x.whl") == ""


def test_a_token_in_the_path(tmp_path: Path, wheel: Path) -> None:
    """It is hidden in all that is shown and stored, and there when the file is fetched."""
    with serve_index(wheel.parent, path_token="t0ken-of-mine") as index:
        indexes = found(tmp_path, PIP_INDEX_URL=index.url)
        file = indexes.named(at(index, wheel))
        shown = f"{indexes} {indexes.order} {file} {indexes.for_uv()[1]}"
        assert "t0ken-of-mine" not in shown and "/t/***/" in shown
        assert indexes.conceal(f"see {index.url}x/") == f"see {index.url}x/".replace("t0ken-of-mine", "***")
        assert fetch(file, tmp_path / "into", indexes=indexes).read_bytes() == wheel.read_bytes()
        assert not indexes.open_to_all(file)
        stripped = msgspec.structs.replace(file, url=file.url.replace("/t/***", ""))
        assert fetch(stripped, tmp_path / "again", indexes=indexes).exists()


@pytest.mark.parametrize("form", ["json", "html"])
@pytest.mark.parametrize("named", [True, False])
def test_a_token_in_the_query(tmp_path: Path, wheel: Path, form: str, named: bool) -> None:
    """It is stored nowhere: the index's page has it when the file is fetched."""
    with serve_index(wheel.parent, query_token="today", form=form) as index:
        indexes = found(tmp_path, UV_INDEX=f"firm={dead_url()} mine={index.url}")
        file = at(index, wheel, index="mine" if named else "")
        if not named:
            indexes = found(tmp_path, UV_DEFAULT_INDEX=index.url)
        assert fetch(file, tmp_path / "into", indexes=indexes).read_bytes() == wheel.read_bytes()
        assert index.asked_for("sample") == 1


def test_another_files_address_is_not_taken(tmp_path: Path, wheel: Path) -> None:
    """The index's page counts only if it has that name with that sha256."""
    with serve_index(wheel.parent, query_token="today") as index:
        indexes = found(tmp_path, UV_DEFAULT_INDEX=index.url)
        with pytest.raises(FetchError, match="refuses access"):
            fetch(at(index, wheel, sha256="0" * 64), tmp_path / "into", indexes=indexes)


# ---- what goes wrong


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ({"fault": "status", "status": 403}, "refuses access"),
        ({"fault": "status", "status": 404}, "does not have it"),
        ({"fault": "status", "status": 500}, "answers 500"),
        ({"fault": "html"}, "more bytes|sha256 is|are missing"),
        ({"fault": "hang"}, "does not answer within 0.5 s"),
        ({"fault": "close"}, "can't be reached"),
        ({"fault": "truncate"}, "are missing"),
        ({"fault": "wrong-content"}, "sha256 is"),
        ({"fault": "huge"}, "more bytes arrive than"),
        ({"redirect": "ftp://127.0.0.1/"}, "redirects from http to ftp"),
        ({"redirect": "file:///etc/"}, "redirects in a circle, or to"),
    ],
)
def test_servers_that_fail(tmp_path: Path, wheel: Path, manner: dict[str, Any], words: str) -> None:
    """Each failure has a word of its own, comes soon, and leaves nothing behind."""
    with serve_index(wheel.parent, **manner) as index:
        indexes = found(tmp_path, UV_DEFAULT_INDEX=index.url)
        with pytest.raises(FetchError, match=words) as error:
            fetch(at(index, wheel), tmp_path / "into", indexes=indexes, timeout=SOON)
        assert error.value.__context__ is None  # what Python's own errors know of URLs stays behind
        assert left_over(tmp_path / "into") == []


def test_nobody_there(tmp_path: Path, wheel: Path) -> None:
    """An index that is down is told apart from one that refuses, at once."""
    url = dead_url().replace("/simple/", f"/{wheel.name}")
    with pytest.raises(FetchError, match=r"can't be reached \(Connection refused"):
        fetch(pinned(wheel, url), tmp_path / "into", indexes=found(tmp_path))


def test_slow_is_not_dead(tmp_path: Path, wheel: Path) -> None:
    """A file may take longer than the patience, as long as something arrives."""
    with serve_index(wheel.parent, fault="slow", delay=0.2) as index:
        started = time.monotonic()
        fetch(at(index, wheel), tmp_path / "into", indexes=found(tmp_path), timeout=SOON)
        assert time.monotonic() - started > SOON


@pytest.mark.parametrize("from_the_start", [True, False])
def test_servers_that_drip(tmp_path: Path, wheel: Path, from_the_start: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is a sign of life, and no file, page or header ever ends: all of them are given up."""
    monkeypatch.setattr("likewise.indexes.http.GRACE", 1.0)
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-999999/1000000\r\nContent-Length: 1000000\r\n\r\n"
    with dripping(b"" if from_the_start else head, head + b"x" * 10**6) as url:
        indexes, began = found(tmp_path), time.monotonic()
        with pytest.raises(FetchError, match="less than 1024 bytes a second") as error:
            fetch(pinned(wheel, f"{url}{wheel.name}"), tmp_path / "into", indexes=indexes, timeout=SOON)
        assert error.value.__context__ is None
        with pytest.raises(FetchError, match="less than 1024 bytes a second"):
            open_remote(pinned(wheel, f"{url}{wheel.name}", size=10**6), indexes, timeout=SOON)
        with pytest.raises(Trouble, match="less than 1024 bytes a second"):
            project_page(Secret(url), "sample", indexes, timeout=SOON)
        assert time.monotonic() - began < 10
    assert left_over(tmp_path / "into") == []


def test_a_page_takes_no_longer_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it comes."""
    monkeypatch.setattr("likewise.indexes.pages.WITHIN", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    with dripping(head, b"x" * 10**6) as url, pytest.raises(Trouble, match="takes longer than"):
        project_page(Secret(url), "sample", found(tmp_path), timeout=SOON)


@contextmanager
def dripping(at_once: bytes, then: bytes) -> Iterator[str]:
    """The address of a server that answers whatever it is asked, in the end byte by byte."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(at_once)
            with contextlib.suppress(OSError):
                for number in range(len(at_once) if then.startswith(at_once) else 0, len(then)):
                    self.request.sendall(then[number : number + 1])
                    time.sleep(0.05)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_what_passes_is_tried_again(tmp_path: Path, wheel: Path) -> None:
    """A server that has recovered gives the file; nothing of the first attempt is in it."""
    with serve_index(wheel.parent, fault="truncate") as index:

        def recover() -> None:
            if len(index.asked) == 2:
                index.manner = Manner(folder=wheel.parent)

        index.heard = recover
        path = fetch(at(index, wheel), tmp_path / "into", indexes=found(tmp_path))
        assert path.read_bytes() == wheel.read_bytes()
        assert len(index.asked) == 2


def test_size_unknown(tmp_path: Path, wheel: Path) -> None:
    """Indexes with HTML pages tell none; a body that ends early is noticed all the same."""
    with serve_index(wheel.parent) as index:
        assert fetch(at(index, wheel, size=None), tmp_path / "into", indexes=found(tmp_path)).exists()
        index.manner = Manner(folder=wheel.parent, fault="truncate")
        with pytest.raises(FetchError, match="are missing"):
            fetch(at(index, wheel, size=None), tmp_path / "other", indexes=found(tmp_path))


@pytest.mark.parametrize("name", ["../x.whl", "/etc/x.whl", "", "..", ".x", "a\\b.whl", "C:x.whl", "a\0b"])
def test_names_that_are_paths(tmp_path: Path, wheel: Path, name: str) -> None:
    """A lock of somebody else can't make a file elsewhere."""
    with serve_index(wheel.parent) as index, pytest.raises(FetchError, match="no name"):
        fetch(at(index, wheel, filename=name), tmp_path / "into", indexes=found(tmp_path))


def test_without_a_hash_nothing_is_fetched(tmp_path: Path, wheel: Path) -> None:
    """There would be nothing to check."""
    with serve_index(wheel.parent) as index, pytest.raises(FetchError, match="no sha256"):
        fetch(at(index, wheel, sha256=""), tmp_path / "into", indexes=found(tmp_path))
    assert not index.asked


# ---- TLS


@contextmanager
def secure(folder: Path, chain: Path) -> Iterator[str]:
    """A server with TLS for the files of `folder`; its base URL."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("setting", ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_of_ones_own(tmp_path: Path, wheel: Path, setting: str) -> None:
    """A firm's certificate authority is trusted where pip and uv would trust it, and nowhere else."""
    authority = make_authority(tmp_path / "firm")
    with secure(wheel.parent, authority.chain) as base:
        file = pinned(wheel, f"{base}/{wheel.name}")
        with pytest.raises(FetchError, match="its certificate is not trusted"):
            fetch(file, tmp_path / "into", indexes=found(tmp_path))
        fetch(file, tmp_path / "into", indexes=found(tmp_path, **{setting: str(authority.bundle)}))


@pytest.mark.parametrize("days", [-2, 2])
def test_a_clock_that_is_off(tmp_path: Path, wheel: Path, days: int) -> None:
    """A certificate that is not valid yet, or no more: whether the server or this machine is wrong, the date tells."""
    authority = make_authority(tmp_path / "firm", later=datetime.timedelta(days=days))
    with secure(wheel.parent, authority.chain) as base:
        indexes = found(tmp_path, PIP_CERT=str(authority.bundle))
        with pytest.raises(FetchError, match=r"by this machine's clock it is \d{4}-\d\d-\d\d"):
            fetch(pinned(wheel, f"{base}/{wheel.name}"), tmp_path / "into", indexes=indexes)


@pytest.mark.parametrize("setting", ["PIP_TRUSTED_HOST", "UV_INSECURE_HOST"])
def test_hosts_that_are_trusted_without(tmp_path: Path, wheel: Path, setting: str) -> None:
    """The user says so for one host."""
    authority = make_authority(tmp_path / "firm")
    with secure(wheel.parent, authority.chain) as base:
        file = pinned(wheel, f"{base}/{wheel.name}")
        with pytest.raises(FetchError, match="not trusted"):
            fetch(file, tmp_path / "into", indexes=found(tmp_path, **{setting: "other.example"}))
        fetch(file, tmp_path / "into", indexes=found(tmp_path, **{setting: "localhost"}))


def test_certificates_that_are_not_there(tmp_path: Path, wheel: Path) -> None:
    """The setting is named as what is wrong."""
    with pytest.raises(FetchError, match=r"the certificates in /no\.pem can't be read"):
        fetch(
            pinned(wheel, "https://localhost:9/x"),
            tmp_path / "into",
            indexes=found(tmp_path, PIP_CERT="/no.pem"),
        )


def test_a_python_without_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Python finds none (python.org's on macOS), those of certifi serve, if it is installed."""
    authority = make_authority(tmp_path / "firm")
    (tmp_path / "certifi.py").write_text(f"def where():\n    return {str(authority.bundle)!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.delitem(sys.modules, "certifi", raising=False)
    _context.cache_clear()
    assert len(_context("", verified=True).get_ca_certs()) == 1
    _context.cache_clear()


def test_a_proxy(tmp_path: Path, wheel: Path) -> None:
    """pip's ``proxy`` is asked instead of the host itself."""
    with serve_index(wheel.parent) as proxy:
        file = pinned(wheel, f"http://packages.example.invalid/files/{wheel.name}")
        fetch(file, tmp_path / "into", indexes=found(tmp_path, PIP_PROXY=proxy.root))
        assert proxy.asked[0].path == file.url


@pytest.mark.root
def test_a_full_disk_is_told_as_such(tmp_path: Path, wheel: Path) -> None:
    """It is no fault of the index: the disk's place is named, nothing is left, and nothing is asked a second time."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "likewise-test", disk], check=True)
    try:
        with serve_index(wheel.parent) as index, pytest.raises(LayerError) as caught:
            fetch(at(index, wheel), disk / "into", indexes=found(tmp_path))
        assert left_over(disk / "into") == []
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert "No space left" in caught.value.what
    assert caught.value.where == str(disk / "into")
    assert "LIKEWISE_CACHE" in caught.value.todo
    assert len(index.asked) == 1


def test_a_folder_that_cannot_be_made_is_told_as_such(tmp_path: Path, wheel: Path) -> None:
    """Where the folder should be lies a file."""
    (tmp_path / "file").write_text("")
    with serve_index(wheel.parent) as index, pytest.raises(LayerError, match="can't be kept") as caught:
        fetch(at(index, wheel), tmp_path / "file" / "into", indexes=found(tmp_path))
    assert str(tmp_path / "file") in caught.value.where
    assert index.asked == []
