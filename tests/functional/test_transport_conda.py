"""Nodes make layers of a channel's conda packages by themselves: real agents over TLS, real archives, on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from likewise.layers.conda import layer_of_archive
from likewise.model.digest import digest_bytes
from likewise.model.layer import LayerSource
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.offer import Offer
from likewise.model.plan import LockedFile
from support.agents import Agent, Client, call, new_cluster
from support.conda_package import PLACEHOLDER, Item, Package, script, write_package
from support.conda_server import ChannelServer, serve_channel
from support.values import TARGET

MIB = 1 << 20


class Cluster(NamedTuple):
    """A hub, and a node that fetches."""

    hub: Agent
    node: Agent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests; each has packages and a channel of its own, so the hub knows nothing of them."""
    root, cluster = tmp_path_factory.mktemp("agents"), new_cluster()
    with (
        Agent("hub", cluster, root / "hub") as hub,
        Agent("agent", cluster, root / "node", "--hub", hub.address) as node,
    ):
        yield Cluster(hub, node)


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[ChannelServer]:
    """An empty channel."""
    (tmp_path / "channel").mkdir()
    with serve_channel(tmp_path / "channel") as server:
        yield server


class Made:
    """A package on a channel, the layer that it is, and what says so."""

    def __init__(self, server: ChannelServer, name: str, form: str = ".conda") -> None:
        files: dict[str, Item | str | bytes] = {
            f"bin/{name}": script(f"#!/bin/sh\necho {PLACEHOLDER}\n"),
            f"bin/{name}-too": Item(link=name),
            f"lib/{name}.dat": b"\0" + f"{PLACEHOLDER}/lib".encode() + b"\0\1",
            f"share/{name}/noise": os.urandom(MIB),
            f"share/{name}/E/one": "one\n",
            f"share/{name}/e/one": "another\n",
        }
        self.archive = write_package(Package(name, "1.0", files), server.folder / "linux-64", form=form)
        self.source: LayerSource = layer_of_archive(self.archive, server.folder.parent / "unpacked" / name)
        data = self.archive.read_bytes()
        self.file = LockedFile(
            filename=self.archive.name,
            url=f"{server.plain_url}/linux-64/{self.archive.name}",
            sha256=digest_bytes(data),
            size=len(data),
        )


def manifest_of(source: LayerSource) -> bytes:
    """A manifest from which the hub knows how large the layer is."""
    ref = LayerRef(kind=source.kind, name=source.name, version="1.0", digest=source.digest, files=6, size=source.size)
    return Manifest(target=TARGET, python="python3.11", cache_tag="cpython-311", layers=(ref,)).encode()


def given(cluster: Cluster, made: Made, file: LockedFile) -> tuple[int, str]:
    """The node gets the layer, and checks it: bytes that the client gave, and who gave it first."""
    with Client(cluster.hub.address, made.source, manifest=manifest_of(made.source)) as client:
        client.offer([Offer(layer=made.source.digest, file=file)], first=True)
        cluster.node.source().open(made.source.digest).close()
        sent = client.sent
    cluster.node.shelf().get(made.source.digest, made.source.name)
    for one in made.source.files:
        there = Path(cluster.node.cache.layer(made.source.digest), one.entry.path)
        if one.entry.link:
            assert os.readlink(there) == one.entry.link
        else:
            assert digest_bytes(there.read_bytes()) == one.entry.sha256
            assert os.access(there, os.X_OK) == one.entry.executable or os.geteuid() == 0
    status = call(cluster.hub.address, "hub_status")
    return sent, status["given"][made.source.digest]


@pytest.mark.parametrize("form", [".conda", ".tar.bz2"])
def test_a_node_makes_the_layer_of_a_package(cluster: Cluster, channel: ChannelServer, form: str) -> None:
    """Placeholders, links and modes are those of the archive; the client gives nothing, the package is read once."""
    made = Made(channel, f"tool{form.replace('.', '')}", form)
    assert given(cluster, made, made.file) == (0, "index")
    assert channel.archives() == [made.archive.name]
    assert channel.authorizations == [""]


def test_a_channel_may_be_a_folder(cluster: Cluster, channel: ChannelServer) -> None:
    """Nodes of one machine, or of one file system, read it there."""
    made = Made(channel, "shared")
    here = LockedFile(filename=made.file.filename, url=made.archive.as_uri(), sha256=made.file.sha256)
    assert given(cluster, made, here) == (0, "index")
    assert channel.asked == []


def elsewhere(server: ChannelServer, made: Made) -> LockedFile:
    """A folder that the node does not have."""
    return changed(made, url="file:///nowhere/linux-64/tool-1.0-h0_0.conda")


def on_another_host(server: ChannelServer, made: Made) -> LockedFile:
    """A file URL with a host in it."""
    return changed(made, url=made.archive.as_uri().replace("file://", "file://host"))


def forbidden(server: ChannelServer, made: Made) -> LockedFile:
    """A channel that wants to know who asks."""
    server.user, server.password = "me", "secret"
    return made.file


def other_bytes(server: ChannelServer, made: Made) -> LockedFile:
    """A package that was built anew under the old name."""
    made.archive.write_bytes(made.archive.read_bytes()[:-1] + b"!")
    return made.file


def another_package(server: ChannelServer, made: Made) -> LockedFile:
    """A good package of something else."""
    return Made(server, f"another-than-{made.source.name[6:]}").file


def no_package(server: ChannelServer, made: Made) -> LockedFile:
    """A file with the right sha256 that is no package at all."""
    made.archive.write_bytes(b"no zip file")
    return changed(made, sha256=digest_bytes(b"no zip file"), size=11)


def bomb(server: ChannelServer, made: Made) -> LockedFile:
    """Some kilobytes that unpack to far more than the layer has."""
    large = Package("bomb", "1.0", {"share/zeros": bytes(24 * MIB)})
    data = write_package(large, server.folder / "linux-64", form=made.archive.name.partition("h0_0")[2]).read_bytes()
    assert len(data) < MIB
    made.archive.write_bytes(data)
    return changed(made, sha256=digest_bytes(data), size=len(data))


def unknown_kind(server: ChannelServer, made: Made) -> LockedFile:
    """A file of which nobody can make a layer."""
    return changed(made, filename="tool-1.0.tar.gz")


def changed(made: Made, **what: object) -> LockedFile:
    """The file that is offered, but for something."""
    known = {"filename": made.file.filename, "url": made.file.url, "sha256": made.file.sha256, "size": made.file.size}
    return LockedFile(**{**known, **what})  # type: ignore[arg-type]


SPOILT = [elsewhere, on_another_host, forbidden, other_bytes, another_package, no_package, bomb, unknown_kind]


@pytest.mark.parametrize(
    ("spoil", "form"),
    [*((spoil, ".conda") for spoil in SPOILT), (no_package, ".tar.bz2"), (bomb, ".tar.bz2")],
    ids=lambda one: str(getattr(one, "__name__", one)),
)
def test_the_client_gives_what_a_channel_does_not(
    cluster: Cluster, channel: ChannelServer, spoil: Callable[[ChannelServer, Made], LockedFile], form: str
) -> None:
    """Whatever a channel has: the node gets the right layer, from the client, and nothing stays of the wrong one."""
    made = Made(channel, f"{spoil.__name__.replace('_', '-')}{form.replace('.', '-')}", form)
    sent, giver = given(cluster, made, spoil(channel, made))
    assert sent > 0 and giver == "client"
    said = "".join(agent.log.read_text() for agent in cluster)
    assert (f"{made.archive.name} can't be unpacked: The conda package unpacks to more than" in said) == (spoil is bomb)
    for agent in cluster:
        making = Path(agent.cache.place("tmp"), f"wheels.{agent.process.pid}")
        assert not making.exists() or not list(making.iterdir())
