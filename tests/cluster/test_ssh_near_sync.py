"""A running cluster whose client has a slow line: what is installed later comes from the index, too; and kill -9."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.indexes import offer
from support.near_index import NearIndex, near_index, quick_uplink, slow_uplink
from support.prefixes import UV, run
from support.ssh_client import SHELL, SSHClient
from support.testbed import FakeHosts, Testbed
from support.users import common_cache, make_user_venv

pytestmark = [pytest.mark.root, pytest.mark.registry]

SIZE = 6_000_000
SLOW = 1
"""Mbit/s of the client's line: 48 seconds for one wheel."""

START = """
import threading
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     node_cache="/tmp/later", package_sync_source="index")
client = cluster.get_client()
"""

SYNC = """
report = cluster.sync()

def size():
    import {name}
    return {name}.SIZE

computed = client.submit(size).result()
status = cluster._loop_runner.run_sync(cluster._shipment._look)
answer = [computed, {{one.name: one.source for one in cluster.report.layers if one.kind.value == "distribution"}}]
"""


@pytest.fixture(scope="module")
def hosts(fake_hosts: FakeHosts) -> Testbed:
    return fake_hosts(1, fresh=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("first", "second", "third"):
        offer(folder, name, "1.0", files={f"{name}.py": f"SIZE = {SIZE}\n".encode(), f"{name}.bin": os.urandom(SIZE)})
    return folder


@pytest.fixture(scope="module")
def index(hosts: Testbed, wheels: Path) -> Iterator[NearIndex]:
    with near_index(hosts, wheels) as near:
        yield near


@pytest.fixture(scope="module")
def install(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Installs something in the client's prefix, whose Python it returns."""
    folder = tmp_path_factory.mktemp("later")
    python = make_user_venv(folder / "venv", "asyncssh")
    (folder / "work").mkdir()
    (folder / "work" / "loose.py").touch()
    (folder / "work" / "client.py").write_text(SHELL)

    def install(name: str) -> Path:
        links = ["--no-index", "--find-links", wheels]
        run(UV, "pip", "install", "--quiet", "--no-cache", "--python", python, *links, name)
        return python

    return install


@pytest.fixture(scope="module")
def client(
    hosts: Testbed, index: NearIndex, install: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SSHClient]:
    """A client whose cluster runs, on one host."""
    environ = {"UV_DEFAULT_INDEX": index.url, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    environ["UV_CACHE_DIR"] = str(tmp_path_factory.mktemp("uv"))
    client = SSHClient(install("first"), cache=common_cache(tmp_path_factory), **environ)
    client.do(START.format(hosts=[hosts[0].name] * 2, config=str(hosts.ssh_config)))
    yield client
    client.end()


def test_what_is_installed_later_comes_from_the_index(
    hosts: Testbed, index: NearIndex, client: SSHClient, install: Callable[[str], Path]
) -> None:
    """The hub may have asked the client for it before it knew; that goes on no longer than until then."""
    install("second")
    slow_uplink(hosts, SLOW)
    try:
        computed, layers = client.do(SYNC.format(name="second"))
    finally:
        quick_uplink(hosts)
    assert computed == SIZE
    assert layers["second"] == "index"
    assert [one.address for one in index.got if one.wheel.startswith("second")] == [hosts[0].address]


def test_a_client_that_is_killed_while_hosts_fetch_leaves_nothing_running(
    hosts: Testbed, index: NearIndex, client: SSHClient, install: Callable[[str], Path]
) -> None:
    """Hub, agents and workers end, though the index is still sending."""
    limit: list[Any] = ["rate", "2mbit", "burst", "64kb", "latency", "200ms"]
    namespace = hosts._reservation.namespace("index")
    install("third")
    slow_uplink(hosts, SLOW)
    subprocess.run(
        ["ip", "netns", "exec", namespace, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", *limit], check=True
    )
    client.do("threading.Thread(target=cluster.sync, daemon=True).start()")
    deadline = time.monotonic() + 60
    while not any(one.wheel.startswith("third") for one in index.got):
        assert time.monotonic() < deadline, "nobody fetches it"
        time.sleep(0.05)
    client.kill()
    quick_uplink(hosts)
    assert hosts[0].wait_idle(60) == []
