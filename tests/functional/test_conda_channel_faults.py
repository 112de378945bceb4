"""Channels that refuse, lack, break off, answer with a web page, or never: a clear error each, and soon."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from likewise.errors import FetchError
from likewise.resolution import rattler as ours
from likewise.resolution.rattler import RattlerSolver
from support.conda_repodata import package, write_channel
from support.conda_server import serve_channel

pytest.importorskip("rattler")


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel with one package."""
    linux = [package("numpy", "1.26.4", "python >=3.11,<3.12.0a0")]
    return write_channel(tmp_path_factory.mktemp("channel") / "forge", {"linux-64": linux})


def versions(cache: Path, *channels: str, mirrors: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """The versions of numpy that these channels have."""
    solver = RattlerSolver(channels, "linux-64", ["__glibc=2.28=0"], cache=cache, mirrors=mirrors)
    return [one.version for one in solver.candidates(["numpy"]).get("numpy", ())]


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_a_status(tmp_path: Path, channel: Path, status: int) -> None:
    """The error has the status and the channel; where a credential is missing, it says where to put one."""
    with serve_channel(channel, status=status) as server, pytest.raises(FetchError, match=str(status)) as caught:
        versions(tmp_path, server.plain_url)
    assert server.plain_url in caught.value.what
    assert ("credential" in caught.value.todo) is (status in (401, 403))


@pytest.mark.parametrize("fault", [{"page": "<html><body>Sign in to the WLAN</body></html>"}, {"cut": "repodata.json"}])
def test_no_list_of_packages(tmp_path: Path, channel: Path, fault: dict[str, str]) -> None:
    """A page of somebody else, or half a list, is an error that names the channel; the next try is a new one."""
    with serve_channel(channel, **fault) as server:
        with pytest.raises(FetchError) as caught:
            versions(tmp_path, server.plain_url)
        assert server.plain_url in caught.value.what
        server.page, server.cut = "", "\n"
        assert versions(tmp_path, server.plain_url) == ["1.26.4"]


def test_what_fails_for_a_moment(tmp_path: Path, channel: Path) -> None:
    """What was known of a channel is still known when it fails for a while."""
    with serve_channel(channel) as server:
        assert versions(tmp_path, server.plain_url) == ["1.26.4"]
        server.status = 500
        with pytest.raises(FetchError):
            versions(tmp_path / "another", server.plain_url)
        server.status = 200
        assert versions(tmp_path, server.plain_url) == ["1.26.4"]


def test_nobody_there(tmp_path: Path) -> None:
    """A port on which nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/forge"
    with pytest.raises(FetchError) as caught:
        versions(tmp_path, url)
    assert url in caught.value.what


def test_one_that_never_answers(tmp_path: Path, channel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, and the error names it, beside another one that works."""
    monkeypatch.setattr(ours, "PATIENCE", 1)
    with (
        serve_channel(channel, silent=True) as silent,
        serve_channel(channel) as server,
        pytest.raises(FetchError) as caught,
    ):
        versions(tmp_path, server.plain_url, silent.plain_url)
    assert silent.asked
    assert silent.plain_url in caught.value.what


@pytest.mark.parametrize("named", ["channel", "host"])
def test_one_that_never_answers_and_has_a_mirror(
    tmp_path: Path, channel: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """Nobody asks it, so it does not matter; a mirror may be slow as long as it is alive."""
    monkeypatch.setattr(ours, "PATIENCE", 1)
    with serve_channel(channel, silent=True) as silent, serve_channel(channel, slow=2.5) as mirror:
        whose = {"channel": (silent.plain_url, mirror.url), "host": (_host(silent.plain_url), _host(mirror.url))}[named]
        found = versions(tmp_path, silent.plain_url, mirrors={whose[0]: [whose[1]]})
    assert found == ["1.26.4"]
    assert silent.asked == []


def test_mirrors_that_never_answer(tmp_path: Path, channel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names them and not the channel, which would answer; without their credentials."""
    monkeypatch.setattr(ours, "PATIENCE", 1)
    with (
        serve_channel(channel) as server,
        serve_channel(channel, silent=True, token="s3cret") as mirror,
        pytest.raises(FetchError) as caught,
    ):
        versions(tmp_path, server.plain_url, mirrors={server.plain_url: [mirror.url]})
    assert caught.value.details["channels"] == [mirror.plain_url]
    assert "s3cret" not in str(caught.value)
    assert not [path for path in server.asked if "repodata" in path]


def _host(url: str) -> str:
    return url.rpartition("/")[0]
