"""Layers from a plain web server, and from one that is not what it should be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from likewise.errors import NodeError, UsageError
from likewise.model.keys import kit_key, layer_key, manifest_key
from likewise.node.cache import open_cache
from likewise.node.http_store import HttpStore, plain_url
from likewise.node.materialise import materialise
from support.deploy_web import Answer, web
from support.nodes import archive, distribution, few_tools, manifest_of, put, put_manifest, real_kit, start

SAMPLE = distribution("sample", {"purelib/sample.py": os.urandom(300_000)})
KEY = f"/{layer_key(SAMPLE.digest)}"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store's folder that holds the sample."""
    put(tmp_path / "store", SAMPLE)
    return tmp_path / "store"


def client(url: str) -> HttpStore:
    """A client that does not wait for long."""
    return HttpStore(url, timeout=5, tries=4, pause=0.01)


def test_archive_arrives_whole(store: Path) -> None:
    """What is read from the server is the file."""
    with web(store) as server, client(server.url).open(SAMPLE.digest) as stream:
        assert b"".join(iter(lambda: stream.read(1 << 16), b"")) == archive(SAMPLE)


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_download_goes_on(store: Path, ranges: bool) -> None:
    """A connection that breaks off thrice is resumed where it was, or skipped to there where ranges are unknown."""
    size = len(archive(SAMPLE))

    def breaks(number: int, path: str) -> Answer:
        stop = size // 4 if ranges else size * (number + 1) // 4
        return Answer(ranges=ranges, stop=stop if number < 3 else None)

    with web(store, breaks) as server, client(server.url).open(SAMPLE.digest) as stream:
        assert b"".join(iter(lambda: stream.read(1 << 16), b"")) == archive(SAMPLE)
    wanted = [wanted for _, wanted, _ in server.requests]
    assert wanted == ["", *(f"bytes={size // 4 * n if ranges else size * n // 4}-" for n in (1, 2, 3))]


def test_changed_file_is_not_mixed(store: Path) -> None:
    """When the file has changed on the server meanwhile, the download fails instead of joining two halves."""

    def changes(number: int, path: str) -> Answer:
        return Answer(tag=f'"{number}"', stop=1000 if number == 0 else None)

    with web(store, changes) as server, client(server.url).open(SAMPLE.digest) as stream:
        assert len(stream.read(1 << 16)) == 1000
        with pytest.raises(OSError, match="changed on the server"):
            stream.read(1 << 16)


def test_download_that_never_gets_on_is_given_up(store: Path) -> None:
    """A server that never sends the rest is asked as often as was agreed, and no more."""
    with web(store, lambda number, path: Answer(stop=1000 if number == 0 else 0)) as server:
        with client(server.url).open(SAMPLE.digest) as stream:
            assert len(stream.read(1 << 16)) == 1000
            with pytest.raises(OSError, match="broke off after 1000 bytes"):
                stream.read(1 << 16)
        assert len(server.requests) == 4


def test_busy_server_is_asked_again(store: Path) -> None:
    """503 passes."""
    with web(store, lambda number, path: Answer(status=503 if number < 2 else 200)) as server:
        client(server.url).open(SAMPLE.digest).close()
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "error", "requests"), [(404, FileNotFoundError, 1), (403, OSError, 1), (500, OSError, 4)]
)
def test_refusals(store: Path, status: int, error: type[OSError], requests: int) -> None:
    """What is not there, or not for us, is not asked for again; a server's own failure is, for a while."""
    with web(store, lambda number, path: Answer(status=status)) as server:
        with pytest.raises(error, match=str(status) if status != 404 else "not there"):
            client(server.url).open(SAMPLE.digest)
        assert len(server.requests) == requests


def test_nobody_listens(store: Path) -> None:
    """A server that is not there is an error that names the address."""
    with web(store) as server:
        url = server.url
    with pytest.raises(OSError, match=url.removeprefix("http://")):
        client(url).open(SAMPLE.digest)


def test_wrong_bytes_are_refused_and_fetched_past_caches(store: Path, tmp_path: Path) -> None:
    """A copy that a cache on the way has damaged never becomes visible; the next one is asked for past all caches."""

    def damages(number: int, path: str) -> Answer:
        wrong = archive(SAMPLE)[:-1000] + bytes(1000)
        return Answer(data=wrong if path == KEY and number == 0 else None)

    manifest = put_manifest(store, manifest_of(SAMPLE))
    with web(store, damages) as server:
        prefix = materialise(open_cache(tmp_path / "cache"), manifest, [client(server.url)], helpers=1)
    [made] = Path(prefix).rglob("sample.py")
    assert made.read_bytes() == next(f.data for f in SAMPLE.files if f.entry.path == "purelib/sample.py")
    assert [control for path, _, control in server.requests if path == KEY] == ["", "no-cache"]


def test_server_that_has_wrong_bytes_is_an_error(store: Path, tmp_path: Path) -> None:
    """Where the server's own copy is wrong, the layer is named and nothing is visible."""
    manifest = put_manifest(store, manifest_of(SAMPLE))
    with web(store, lambda number, path: Answer(data=b"nonsense")) as server:
        with pytest.raises(NodeError, match="sample"):
            materialise(open_cache(tmp_path / "cache"), manifest, [client(server.url)], helpers=1)
        assert len(server.requests) == 2
    assert list((tmp_path / "cache" / "prefixes").iterdir()) == []


def test_manifest(store: Path) -> None:
    """The manifest is checked against its id; one that is missing, or another, is an error that says so."""
    manifest = put_manifest(store, manifest_of(SAMPLE))
    other = manifest_of()
    (store / manifest_key(other.id)).write_bytes(manifest.encode())
    with web(store) as server:
        assert client(server.url).manifest(manifest.id) == manifest
        with pytest.raises(NodeError):
            client(server.url).manifest(other.id)
        with pytest.raises(NodeError, match="not in the store"):
            client(server.url).manifest(SAMPLE.digest)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@example.org/x",
        "https://example.org/x?X-Amz-Signature=secret",
        "https://example.org/x#secret",
        "ftp://example.org/secret",
        "https:///x",
    ],
)
def test_addresses_with_credentials_are_refused(url: str) -> None:
    """An address that would show a credential on a command line is refused, and not repeated in the error."""
    with pytest.raises(UsageError) as caught:
        plain_url(url)
    assert "secret" not in str(caught.value).replace("ftp://example.org/secret", "")


@pytest.mark.skipif(not shutil.which("curl"), reason="a node fetches the kit with curl")
def test_node_from_the_web(tmp_path: Path) -> None:
    """A node with curl, sha256sum and an address, without Python and a common folder, runs the replica."""
    kit = real_kit()
    manifest = kit.with_layers(distribution("greeting", {"purelib/greeting.py": b"TEXT = 'hello'\n"}))
    with web(kit.store) as server:
        address = f"{server.url}/{kit_key(kit.manifest.id)}"
        launch = kit.launch(tmp_path / "cache", manifest, store=server.url, kit=address)
        path = few_tools(tmp_path / "tools", "curl", "sh", "sha256sum")
        done = start(launch, "-c", "import greeting, sys; print(greeting.TEXT, sys.prefix)", env={"PATH": str(path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["hello", f"{tmp_path}/cache/prefixes/{manifest.id[:16]}"]
