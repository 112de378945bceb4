"""A Mac's conda prefix on Linux hosts without Python and conda: the client alone may read the channel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from support.canaries import canary, words_beneath, words_said
from support.conda_channel import CondaChannel
from support.conda_mac import mac_channel, mac_listing
from support.conda_python import LIBC
from support.conda_server import serve_channel
from support.ssh_client import SHELL, SSHClient
from support.testbed import FakeHosts, Testbed
from support.users import make_user_venv

pytest.importorskip("rattler")
pytestmark = [pytest.mark.root, pytest.mark.registry]

PIP = ("msgspec", *(("backports-zstd",) if sys.version_info < (3, 14) else ()))

SPECS = ("python", "numpy", "distributed", "r-base", "oldform")

START = """
from pathlib import Path
from likewise import sync
mac = sync.read_source(Path("mac.json").absolute(), client="osx-arm64")
plan = sync.plan(mac, target="linux-64-glibc{libc}")
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     package_sync_target=plan)
client = cluster.get_client()
"""

COMPUTE = """
def first(n):
    import numpy, os, subprocess, sys
    prefix = sys.prefix
    def said(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "sum": int(loose.double(numpy.arange(n)).sum()),
        "numpy": numpy.__version__,
        "python": sys.version.split()[0],
        "inside": sys.base_prefix == prefix and numpy.__file__.startswith(prefix),
        "R": said(f"{prefix}/bin/Rscript", "-c", "echo $R_HOME_DIR") == os.environ["R_HOME"] == f"{prefix}/lib/R",
        "oldform": said(f"{prefix}/bin/oldform") == prefix,
    }

answer = client.submit(first, 30).result()
"""

SEEN = """
report = cluster.verify()
answer = {
    "ok": report.ok,
    "nodes": sorted(node.node for node in report.nodes),
    "differences": [str(difference) for difference in report.differences],
    "kept": [one.name for one in plan.conda if one.action.value == "fetched" and not one.new and not one.installed],
    "moved": [one.name for one in plan.conda if one.installed],
    "drift": [str(one) for one in cluster.drift()],
    "stage": next(stage.done for stage in cluster.report.stages if stage.name == "conda"),
}
client.close(); cluster.close()
"""


@pytest.fixture(scope="module")
def hosts(fake_hosts: FakeHosts) -> Testbed:
    return fake_hosts(1, fresh=True)


@pytest.fixture(scope="module")
def launched(
    hosts: Testbed, conda_channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """Planned and started by a client in a venv, from a list of what the Mac has."""
    folder = tmp_path_factory.mktemp("conda-elsewhere")
    own = [f"{name}=={version(name)}" for name in ("dask", "distributed")]
    python = make_user_venv(folder / "venv", "asyncssh", f"py-rattler=={version('py-rattler')}", *own)
    work, home = folder / "work", folder / "home"
    work.mkdir()
    home.mkdir()
    (work / "loose.py").write_text("def double(x):\n    return 2 * x\n")
    (work / "client.py").write_text(SHELL)
    with serve_channel(mac_channel(conda_channel, folder / "forge"), token=canary("sshelsewhere")) as server:
        (home / ".condarc").write_text(f"channels:\n  - {server.url}\n")
        listing = mac_listing(server.folder, SPECS, url=server.plain_url, pip={name: version(name) for name in PIP})
        (work / "mac.json").write_text(listing)
        no_pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
        client = SSHClient(python, cache=folder / "cache", HOME=str(home), **no_pip)
        try:
            client.do(START.format(libc=LIBC, hosts=[hosts[0].name, *hosts.names], config=str(hosts.ssh_config)))
            computed, seen = client.do(COMPUTE), client.do(SEEN)
        finally:
            client.end()
        said = client.stderr.read_text()
        yield SimpleNamespace(computed=computed, seen=seen, server=server, folder=folder, said=said)


def test_the_first_task_runs(launched: SimpleNamespace) -> None:
    """Python, numpy, and programs that know where they are, all from the channel's packages for Linux."""
    assert launched.computed == {
        "sum": 2 * sum(range(30)),
        "numpy": version("numpy"),
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "inside": True,
        "R": True,
        "oldform": True,
    }


def test_every_host_is_verified(launched: SimpleNamespace) -> None:
    """verify() finds no difference on any host; the client says the same as before."""
    seen = launched.seen
    assert (seen["ok"], seen["differences"], seen["drift"]) == (True, [], [])
    assert seen["nodes"] == ["h1"]


def test_all_versions_are_the_macs(launched: SimpleNamespace) -> None:
    """Every package is there in the Mac's version."""
    assert launched.seen["moved"] == []
    assert {"python", "numpy", "distributed", "r-base", "openssl"} <= set(launched.seen["kept"])


def test_the_client_fetches_each_package_once(launched: SimpleNamespace) -> None:
    """With the token, which is in nothing that it wrote and nothing that any host has."""
    archives = launched.server.archives()
    assert len(archives) == len(set(archives)) == launched.seen["stage"]["fetched"]


def test_the_token_is_nowhere(launched: SimpleNamespace, hosts: Testbed) -> None:
    """Neither in the client's cache nor on its stderr nor on a host."""
    secret = canary("sshelsewhere")
    assert secret not in words_beneath(launched.folder / "cache")
    assert secret not in words_said(launched.said)
    for host in hosts:
        assert host.run(f"grep -rlsF {secret} /tmp /root /var || true") == ""
