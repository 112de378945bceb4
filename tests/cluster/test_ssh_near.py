"""A client with a slow line, two hosts, and a package index beside them: what the index has need not be uploaded."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.indexes import offer
from support.near_index import NearIndex, near_index, quick_uplink, slow_uplink
from support.prefixes import UV, run
from support.ssh_client import SHELL, SSHClient
from support.testbed import FakeHosts, Testbed, fake_hosts
from support.users import common_cache, make_user_venv

__all__ = ["fake_hosts"]

pytestmark = [pytest.mark.root, pytest.mark.registry]

BULKY = tuple(f"bulky{number}" for number in range(8))
"""What the index has, and the client: three MB each that no compression makes smaller."""

SIZE = 3_000_000
SLOW = 4
"""Mbit/s of a client that takes half a minute for what hosts get from the index in a second."""

START = """
import time
from likewise.events import LayerArrived
from likewise.console.render import ConsoleReporter

class Listening(ConsoleReporter):
    def report(self, event):
        if isinstance(event, LayerArrived):
            arrived.append([event.layer, event.kind, event.source])

arrived = []
started = time.monotonic()
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     node_cache={cache!r}, package_sync_source={source!r}, package_sync_only={only!r},
                     reporter=Listening())
client = cluster.get_client()
"""

SEEN = """
def sizes(names):
    import importlib
    return sum(importlib.import_module(name).SIZE for name in names)

computed = client.submit(sizes, {bulky!r}).result()
report = cluster.verify()
seconds = time.monotonic() - started
status = cluster._loop_runner.run_sync(cluster._shipment._look)
client.close(); cluster.close()
layers = cluster.report.layers
answer = {{
    "computed": computed, "ok": report.ok, "nodes": len(report.nodes), "seconds": seconds,
    "bytes": status["bytes"], "arrived": arrived,
    "layers": {{f"{{one.kind.value}} {{one.name}}": [one.source, one.size] for one in layers}},
}}
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is bulky, as wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in BULKY:
        content = {f"{name}.py": f"SIZE = {SIZE}\n".encode(), f"{name}.bin": os.urandom(SIZE)}
        offer(folder, name, "1.0", files=content)
    return folder


@pytest.fixture(scope="module")
def python(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix in which that is installed."""
    folder = tmp_path_factory.mktemp("near")
    python = make_user_venv(folder / "venv", "asyncssh")
    run(UV, "pip", "install", "--quiet", "--no-cache", "--python", python, "--no-index", "--find-links", wheels, *BULKY)
    (folder / "work").mkdir()
    (folder / "work" / "loose.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "work" / "client.py").write_text(SHELL)
    return python


@pytest.fixture(scope="module")
def hosts(fake_hosts: FakeHosts) -> Testbed:
    return fake_hosts(2, fresh=True)


@pytest.fixture(scope="module")
def index(hosts: Testbed, wheels: Path) -> Iterator[NearIndex]:
    with near_index(hosts, wheels) as near:
        yield near


@pytest.fixture(scope="module")
def client(python: Path, index: NearIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHClient]:
    environ = {"UV_DEFAULT_INDEX": index.url, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    environ["UV_CACHE_DIR"] = str(tmp_path_factory.mktemp("uv"))
    client = SSHClient(python, cache=common_cache(tmp_path_factory), **environ)
    yield client
    client.end()


def launch(
    client: SSHClient,
    bed: Testbed,
    index: NearIndex,
    *,
    hosts: list[str],
    source: str | None,
    cache: str,
    bulky: tuple[str, ...] = BULKY,
) -> SimpleNamespace:
    """One launch; what was seen of it."""
    before = len(index.got)
    how = {"hosts": [hosts[0], *hosts], "config": str(bed.ssh_config), "source": source, "cache": cache}
    client.do(START.format(**how, only=["tornado", *bulky]))
    found: dict[str, Any] = client.do(SEEN.format(bulky=bulky))
    got = index.got[before:]
    fetched = [one.wheel for one in got if one.wheel]
    clients = {one.address for one in got if one.wheel}
    return SimpleNamespace(**found, bulky=bulky, hosts=len(hosts), asked=len(got), fetched=fetched, clients=clients)


@pytest.fixture(scope="module")
def seen(hosts: Testbed, client: SSHClient, index: NearIndex) -> SimpleNamespace:
    """The launches, one after the other. Only the first has to bring what is not bulky."""
    go = functools.partial(launch, client, hosts, index)
    both, one = hosts.names, hosts.names[:1]
    bare = go(hosts=both, source="client", cache="/tmp/near", bulky=())
    quick = go(hosts=one, source=None, cache="/tmp/near", bulky=BULKY[:1])
    hosts[0].wait_idle(30)
    hosts[0].run("cp -a /tmp/near /tmp/first; cp -a /tmp/near /tmp/cut")
    slow_uplink(hosts, SLOW)
    slow = go(hosts=both, source=None, cache="/tmp/near")
    again = go(hosts=one, source=None, cache="/tmp/near")
    first = go(hosts=one, source="index", cache="/tmp/first")
    quick_uplink(hosts)
    index.unplug()
    cut = go(hosts=one, source="index", cache="/tmp/cut")
    return SimpleNamespace(bare=bare, quick=quick, slow=slow, again=again, first=first, cut=cut)


def test_every_launch_is_what_the_client_is(seen: SimpleNamespace) -> None:
    """Whoever gave the layers: tasks run, and every host is verified."""
    for name, one in vars(seen).items():
        assert (name, one.computed, one.ok, one.nodes) == (name, SIZE * len(one.bulky), True, one.hosts)


def test_a_slow_client_gives_less_than_the_index(hosts: Testbed, seen: SimpleNamespace) -> None:
    """Most bytes come from the index, each wheel once, fetched by hosts and not by the client."""
    assert seen.slow.bytes["index"] > seen.slow.bytes["client"]
    assert seen.slow.fetched and len(seen.slow.fetched) == len(set(seen.slow.fetched))
    assert seen.slow.clients <= {host.address for host in hosts}


def test_what_is_there_is_neither_asked_for_nor_sent(seen: SimpleNamespace) -> None:
    """A second launch on the same hosts does not look at the index at all."""
    assert seen.again.bytes == {}
    assert seen.again.fetched == []
    assert {source for source, _ in seen.again.layers.values()} == {"cache"}


def test_a_quick_client_does_not_look_for_an_index(seen: SimpleNamespace) -> None:
    """What it can push in a few seconds it pushes."""
    assert seen.quick.asked == 0
    assert seen.quick.layers["distribution bulky0"][0] == "client"


def test_client_alone(seen: SimpleNamespace) -> None:
    """However long it takes, no index is looked at."""
    assert seen.bare.asked == 0
    assert seen.bare.bytes.get("index", 0) == 0
    assert seen.bare.layers["distribution tornado"][0] == "kit"
    assert seen.bare.layers["code code-0"][0] == "client"


def test_index_first(seen: SimpleNamespace) -> None:
    """What the index has comes from there, each wheel once; the rest from the client."""
    given = [source for name, (source, _) in seen.first.layers.items() if name.startswith("distribution bulky")]
    assert given.count("cache") == 1
    assert given.count("index") >= 4  # what was on its way before that was known stays so
    assert len(seen.first.fetched) == len(set(seen.first.fetched))
    assert seen.first.layers["bytecode bulky3"][0] == "client"


def test_without_an_index_the_client_gives_everything_promptly(seen: SimpleNamespace) -> None:
    """Packets to the index vanish."""
    assert seen.cut.bytes.get("index", 0) == 0
    assert seen.cut.layers["distribution bulky3"][0] == "client"
    assert seen.cut.seconds < 3 * seen.first.seconds


def test_the_report_says_where_each_layer_came_from(seen: SimpleNamespace) -> None:
    """Every layer has a source; what arrived was told while it arrived, with the same source."""
    for one in (seen.slow, seen.first):
        assert {source for source, _ in one.layers.values()} <= {"client", "index", "kit", "cache"}
        told = {f"{kind} {name}": source for name, kind, source in one.arrived}
        assert told == {name: source for name, (source, _) in one.layers.items() if source in ("client", "index")}
    assert seen.slow.layers["distribution tornado"][0] == "cache"
    assert sum(size for source, size in seen.first.layers.values() if source == "index") > 4 * SIZE
