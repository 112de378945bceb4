"""Nothing of a private index reaches the hub, a node, or an offer: whatever they have is searched byte for byte."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.offer import encode_offers
from likewise.offers import find_offers
from likewise.settings import Settings
from likewise.store.local import LocalStore
from support.agents import Agent, Client
from support.fetching import Cluster, Made
from support.indexes import IndexServer, serve_index
from support.plans import LINUX, installed, snapshot_of
from support.values import TARGET

TOKEN = "canary0123456789abcdef0123456789abcdef"
USER = "canary-user"

BASIC = base64.b64encode(f"{USER}:{TOKEN}".encode()).decode().rstrip("=")
"""As basic authentication has them."""

PRIVATE = {
    "password": {"user": USER, "password": TOKEN},
    "token in the path": {"path_token": TOKEN},
    "token in the files' addresses": {"user": USER, "password": TOKEN, "query_token": TOKEN},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A hub and nodes."""
    found = Cluster(tmp_path_factory.mktemp("agents"))
    yield found
    found.end()


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that this machine's pip and uv are configured with."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.chdir(tmp_path)


def memory(process: int) -> Iterator[bytes]:
    """All that a process has in its memory (proc(5), mem)."""
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb", buffering=0) as mem:
        for line in maps:
            span, rights, *_ = line.split()
            start, end = (int(word, 16) for word in span.split("-"))
            if rights.startswith("rw"):
                with suppress(OSError, ValueError):  # a mapping of a device
                    mem.seek(start)
                    yield mem.read(end - start)


def everything(agent: Agent) -> Iterator[tuple[str, bytes]]:
    """What an agent has: memory, command line and variables, files; with a name for each."""
    process = agent.process.pid
    yield from (("memory", piece) for piece in memory(process))
    for name in ("cmdline", "environ"):
        yield name, Path(f"/proc/{process}/{name}").read_bytes()
    yield from ((str(path), path.read_bytes()) for path in Path(agent.cache.root).rglob("*") if path.is_file())


@pytest.mark.parametrize("manner", PRIVATE.values(), ids=PRIVATE)
def test_no_token_leaves_the_client(
    cluster: Cluster, tmp_path: Path, manner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a private index has comes from the client, what a public one has from there."""
    with serve_index(tmp_path / "private", **manner) as private, serve_index(tmp_path / "public") as public:
        ours, theirs = Made(private, "ours"), Made(public, "theirs")
        monkeypatch.setenv("UV_INDEX", private.url_with_credentials)
        monkeypatch.setenv("UV_DEFAULT_INDEX", public.url)
        offers = find(tmp_path, ours, theirs)
        assert [one.layer for one in offers] == [theirs.source.digest]
        assert private.asked_for("ours")
        with Client(cluster.hub.address, ours.source, theirs.source) as client:
            client.offer(offers, first=True)
            cluster.everywhere(ours.source, theirs.source)
            assert set(client.uploader.sent) == {ours.source.digest}
        agents = [cluster.hub, *cluster.nodes]
        has = has_any([TOKEN, USER, BASIC])
        assert not has(encode_offers(offers))
        assert [(agent.log, name) for agent in agents for name, data in everything(agent) if has(data)] == []
        assert found_in(agents, public) >= {cluster.hub}


def has_any(words: list[str]) -> Callable[[bytes], bool]:
    """Whether some bytes have any of these words in them."""
    return lambda data: any(word.encode() in data for word in words)


def found_in(agents: list[Agent], index: IndexServer) -> set[Agent]:
    """The agents in whose memory the search finds the address of an index, as it would find a token."""
    has = has_any([index.files_url])
    return {agent for agent in agents if any(has(data) for data in memory(agent.process.pid))}


def find(folder: Path, *wheels: Made) -> Any:
    """What a client finds out that has these installed."""
    sources, kind = [made.source for made in wheels], LayerKind.DISTRIBUTION
    here = [installed(one.name, "1.0", tags=("py3-none-any",), content=one.digest) for one in sources]
    layers = [
        LayerRef(kind=kind, name=one.name, version="1.0", digest=one.digest, files=1, size=one.size) for one in sources
    ]
    manifest = Manifest(target=TARGET, python="python3.11", cache_tag="cpython-311", layers=tuple(layers), kit=())
    settings = Settings(cache=folder / "cache")
    store = LocalStore(settings.store, max_age=settings.max_age, max_size=settings.max_size)
    return find_offers(manifest, snapshot_of(*here, platform=LINUX), settings=settings, store=store, local=True)
