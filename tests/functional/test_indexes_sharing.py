"""Files that nodes may be told of: indexes whose files lie elsewhere, on hosts of others. With real servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from likewise.indexes import Indexes, find_indexes
from likewise.indexes.sharing import open_to_nodes
from likewise.model.digest import digest_bytes
from likewise.model.plan import LockedFile
from support.indexes import IndexServer, dead_url, offer, serve_index

GUARDED: dict[str, Any] = {"user": "me", "password": "canary-1234", "guard": "pages"}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return offer(tmp_path / "wheels", "sample", "1.0")


@pytest.fixture
def servers(wheel: Path) -> Iterator[SimpleNamespace]:
    """A host of files that wants no credential, an open index and a private one that have their files there, and
    private ones with a token in the path and without that name."""
    with ExitStack() as stack:

        def serve(number: int, folder: Path = wheel.parent, **how: Any) -> IndexServer:
            return stack.enter_context(serve_index(folder, host=f"127.0.0.{number}", **how))

        files = serve(2)
        yield SimpleNamespace(
            files=files,
            open=serve(3, files_at=files.files_url),
            private=serve(4, files_at=files.files_url, **GUARDED),
            token=serve(5, files_at=files.files_url, path_token="canary-1234"),
            other=serve(6, wheel.parent.parent / "none", **GUARDED),
            own=serve(7),
        )


def found(tmp_path: Path, *, netrc: str = "", **environ: str) -> Indexes:
    """The indexes of a user with these variables and this netrc."""
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / ".netrc").write_text(netrc)
    return find_indexes(environ=environ, home=tmp_path / "home", folder=tmp_path, machine=tmp_path / "machine")


def at(server: IndexServer, wheel: Path, index: str = "") -> LockedFile:
    """`wheel` as it lies on that server, named by that index."""
    url, sha256 = server.files_url + wheel.name, digest_bytes(wheel.read_bytes())
    return LockedFile(filename=wheel.name, url=url, sha256=sha256, index=index)


def asked(*servers: IndexServer) -> int:
    """How often pages were asked for."""
    return sum(server.asked_for("sample") for server in servers)


def test_an_open_index_may_have_its_files_anywhere(tmp_path: Path, wheel: Path, servers: SimpleNamespace) -> None:
    """Where it is known to name the file nobody has to be asked, whatever other indexes there are."""
    indexes = found(tmp_path, UV_INDEX=f"own={servers.open.url} mine={servers.private.url_with_credentials}")
    file = at(servers.files, wheel, "own")
    assert open_to_nodes([file], indexes) == {file}
    assert asked(servers.private, servers.open) == 0


@pytest.mark.parametrize("kind", ["private", "token"])
def test_a_private_index_tells_no_address(tmp_path: Path, wheel: Path, servers: SimpleNamespace, kind: str) -> None:
    """Its files lie on a host that wants nothing, and who knows the address has them: so only the client knows it."""
    index: IndexServer = getattr(servers, kind)
    indexes = found(tmp_path, UV_INDEX=f"mine={index.url_with_credentials}", UV_DEFAULT_INDEX=servers.open.url)
    assert open_to_nodes([at(servers.files, wheel, "mine")], indexes) == frozenset()
    assert asked(index) == 0


def test_where_nothing_tells_the_index_private_ones_are_asked(
    tmp_path: Path, wheel: Path, servers: SimpleNamespace
) -> None:
    """With their credential. One that has the name, or does not say, may be the one; one that hasn't is not."""
    file, default = at(servers.files, wheel), servers.open.url
    for named in ("", "a-former-name"):
        unknown = at(servers.files, wheel, named)
        indexes = found(tmp_path, UV_INDEX=servers.private.url_with_credentials, UV_DEFAULT_INDEX=default)
        assert open_to_nodes([unknown], indexes) == frozenset()
    assert asked(servers.private) == 2 and all(one.authorization for one in servers.private.asked)
    indexes = found(tmp_path, UV_INDEX=servers.other.url_with_credentials, UV_DEFAULT_INDEX=default)
    assert open_to_nodes([file], indexes) == {file}
    assert asked(servers.other) == 1
    down = dead_url().replace("://", "://me:canary-1234@")
    assert open_to_nodes([file], found(tmp_path, UV_INDEX=down, UV_DEFAULT_INDEX=default)) == frozenset()
    assert open_to_nodes([file], found(tmp_path, UV_DEFAULT_INDEX=default)) == {file}


def test_what_lies_with_a_public_index_is_public(
    tmp_path: Path, wheel: Path, servers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private index may name the files of the public one in place of copies of its own: anybody finds them there."""
    for module in ("default", "urls", "find"):
        monkeypatch.setattr(f"likewise.indexes.{module}.default_index", lambda: servers.own.url)
    indexes = found(tmp_path, UV_INDEX=f"mine={servers.private.url_with_credentials}")
    file = at(servers.own, wheel, "mine")
    assert open_to_nodes([file], indexes) == {file}
    assert asked(servers.private) == 0


def test_a_host_of_files_that_wants_a_credential(tmp_path: Path, wheel: Path, servers: SimpleNamespace) -> None:
    """The index is open; but what is sent to the host of its files nodes don't have."""
    netrc = "machine 127.0.0.2 login me password canary-1234\n"
    indexes = found(tmp_path, UV_INDEX=f"own={servers.open.url}", netrc=netrc)
    assert open_to_nodes([at(servers.files, wheel, "own")], indexes) == frozenset()


def test_an_index_with_files_of_its_own(tmp_path: Path, wheel: Path, servers: SimpleNamespace) -> None:
    """The address tells the index; a private one on another host does not matter, and is not asked."""
    indexes = found(tmp_path, UV_INDEX=f"mine={servers.private.url_with_credentials} own={servers.own.url}")
    own, private = at(servers.own, wheel), at(servers.private, wheel)
    assert open_to_nodes([own, private], indexes) == {own}
    assert asked(servers.private) == 0
