"""A conda prefix on hosts that have a channel beside them: what it has they fetch by themselves, past the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.conda_channel import SPECS, CondaChannel, install, install_pips
from support.near_index import NearIndex, near_channel
from support.ssh_client import SHELL, SSHClient
from support.testbed import FakeHosts, Testbed

pytestmark = [pytest.mark.root, pytest.mark.registry]

CHANNELS = ("geodata", "geodata-base", "libgcc", "libstdcxx", "linky", "oldform", "r-base")
"""What conda installed that is no distribution, and that Python and Dask don't need."""

LAUNCH = """
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     package_sync_source="index")
client = cluster.get_client()

def first(n):
    import greeter, numpy, subprocess, sys
    def said(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    prefix = sys.prefix
    return [int(numpy.arange(n).sum()), greeter.WORD, said(f"{{prefix}}/bin/oldform") == prefix,
            said(f"{{prefix}}/bin/Rscript", "-c", "echo $R_HOME_DIR") == f"{{prefix}}/lib/R"]

computed = client.submit(first, 30).result()
report = cluster.verify()
status = cluster._loop_runner.run_sync(cluster._shipment._look)
client.close(); cluster.close()
answer = {{
    "computed": computed, "ok": report.ok, "nodes": len(report.nodes),
    "differences": [str(difference) for difference in report.differences],
    "bytes": status["bytes"],
    "layers": {{one.name: one.source for one in cluster.report.layers if one.kind.value != "bytecode"}},
}}
"""


@pytest.fixture(scope="module")
def hosts(fake_hosts: FakeHosts) -> Testbed:
    return fake_hosts(2, fresh=True)


@pytest.fixture(scope="module")
def channel(hosts: Testbed, conda_channel: CondaChannel) -> Iterator[NearIndex]:
    with near_channel(hosts, conda_channel.folder) as near:
        yield near


@pytest.fixture(scope="module")
def launched(hosts: Testbed, channel: NearIndex, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A user's prefix, installed from that channel with pip's packages on top; one launch of it."""
    folder = tmp_path_factory.mktemp("conda-near")
    prefix = install(folder / "conda", SPECS, [channel.url], folder / "packages")
    install_pips(prefix, folder / "wheels")
    (folder / "work").mkdir()
    (folder / "work" / "loose.py").write_text("")
    (folder / "work" / "client.py").write_text(SHELL)
    before = len(channel.got)
    client = SSHClient(prefix / "bin" / "python", cache=folder / "cache", HOME=str(folder), **no_index(folder))
    try:
        names = [hosts[0].name, *hosts.names]
        seen: dict[str, Any] = client.do(LAUNCH.format(hosts=names, config=str(hosts.ssh_config)))
    finally:
        client.end()
    fetched = [one.path.rpartition("/")[2] for one in channel.got[before:]]
    return SimpleNamespace(**seen, fetched=fetched)


def no_index(folder: Path) -> dict[str, str]:
    """uv has nobody to ask about what pip has installed."""
    (folder / "index").mkdir()
    return {"UV_DEFAULT_INDEX": (folder / "index").as_uri(), "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}


def test_it_is_what_the_client_has(launched: SimpleNamespace) -> None:
    """Tasks run, programs know where they are, and every host is verified."""
    assert launched.computed == [435, "good evening", True, True]
    assert (launched.ok, launched.differences, launched.nodes) == (True, [], 2)


def test_hosts_fetch_what_the_channel_has(launched: SimpleNamespace) -> None:
    """Each package once, in both forms of archives; the client gives what the channel can't, and the kit."""
    assert {name.endswith(".tar.bz2") for name in launched.fetched} == {True, False}
    assert len(launched.fetched) == len(set(launched.fetched))
    given = {name for name, source in launched.layers.items() if source == "index"}
    # numpy is the largest: the client may have begun with it before it was known that the channel has it
    assert given - {"numpy"} == {f"conda:{name}" for name in CHANNELS}
    assert launched.layers["numpy"] in ("index", "client")
    assert {launched.layers[name] for name in ("greeter", "conda:greeter", "sample", "uv")} == {"client"}
    assert {launched.layers[name] for name in ("cpython", "conda:openssl", "distributed")} == {"kit"}
    assert launched.bytes["index"] > 0
