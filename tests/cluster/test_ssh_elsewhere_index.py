"""A Mac's environment on Linux hosts that fetch their wheels from an index by themselves, past the client."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.indexes import Asked, IndexServer, serve_index
from support.prefixes import run
from support.ssh_client import SSHClient, make_client_prefix
from support.testbed import FakeHosts, Testbed, fake_hosts

__all__ = ["fake_hosts"]

pytestmark = [pytest.mark.root, pytest.mark.registry]

# What a Mac with Apple's processor has, and what Linux has in the same versions: each resolved for itself.
RESOLVED = """
import platform, subprocess, uv
from importlib.metadata import version
from pathlib import Path
own = ["dask", "distributed", "tornado", "cloudpickle", "msgpack", "msgspec", "numpy"]
exact = [f"{name}=={version(name)}" for name in own]

def compiled(system, wanted, path):
    subprocess.run(
        [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:",
         "--python-version", platform.python_version(), "--python-platform", system, "--output-file", path, "-"],
        input="\\n".join(wanted), text=True, check=True,
    )
    return Path(path).read_text().split()

mac = compiled("aarch64-apple-darwin", [*exact, "backports-zstd", "kiwisolver", "appnope"], "mac.txt")
pinned = [line for line in mac if not line.startswith("appnope")]
answer = [mac, compiled("x86_64-manylinux_2_28", pinned, "linux.txt"), str(Path.cwd())]
"""

START = """
os.environ["UV_DEFAULT_INDEX"] = {index!r}
mac = sync.read_source(Path("mac.txt").absolute(), client="osx-arm64", python=platform.python_version())
plan = sync.plan(mac, target="linux-64")
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     package_sync_target=plan)
client = cluster.get_client()
"""

COMPUTE = """
def table(n):
    import kiwisolver, numpy
    return int(loose.double(numpy.arange(n)).sum()), numpy.__version__, kiwisolver.__version__

answer = client.submit(table, 30).result()
"""

SEEN = """
while [one for one in cluster.report.layers if not one.source and one.kind.value != "bytecode"]:
    time.sleep(0.5)
report = cluster.verify()
answer = {
    "ok": report.ok,
    "nodes": [node.node for node in report.nodes],
    "differences": [str(difference) for difference in report.differences],
    "fetch": next(stage.done for stage in cluster.report.stages if stage.name == "fetch"),
    "sources": {one.name: one.source for one in cluster.report.layers if one.kind.value == "distribution"},
    "kit": list(cluster._prepared.manifest.kit),
    "needs": cluster._prepared.manifest.needs,
    "drift": [str(one) for one in cluster.drift()],
}
client.close(); cluster.close()
"""

FORGET = """
cd /tmp/likewise-0/layers
rm -rf ../prefixes/* ../archives/*
for layer in $(ls -d */purelib/numpy */purelib/kiwisolver | cut -d/ -f1); do rm -r "$layer"*; done
"""
"""Removes what hosts have fetched; the kit stays."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@pytest.fixture(scope="module")
def hosts(fake_hosts: FakeHosts) -> Testbed:
    return fake_hosts(2, fresh=True)


@pytest.fixture(scope="module")
def launched(hosts: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Started on hosts that reach the index; and on one that lacks these wheels again, when the index refuses it."""
    folder = tmp_path_factory.mktemp("near")
    client = SSHClient(
        make_client_prefix(folder), cache=folder / "cache", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS=""
    )
    with ExitStack() as stack:
        stack.callback(client.end)
        mac, linux, work = client.do(RESOLVED)
        download(Path(work) / "linux.txt", folder / "wheels")
        index = stack.enter_context(serve_index(folder / "wheels", host=hosts.client_address))
        start = functools.partial(START.format, config=str(hosts.ssh_config), index=index.url)
        client.do("import platform, time\nfrom pathlib import Path\nfrom likewise import sync")
        client.do(start(hosts=[hosts[0].name, *hosts.names]))
        computed, seen = client.do(COMPUTE), client.do(SEEN)
        asked = list(index.asked)
        hosts[0].wait_idle(30)
        hosts[0].run(FORGET)
        index.manner = dataclasses.replace(index.manner, only_for=hosts.client_address)
        client.do(start(hosts=[hosts[0].name] * 2))
        alone = client.do(COMPUTE), client.do(SEEN)
        yield SimpleNamespace(mac=mac, linux=linux, computed=computed, seen=seen, index=index, asked=asked, alone=alone)


def download(requirements: Path, folder: Path) -> None:
    """Bring the wheels for the nodes into a folder."""
    platforms = [word for one in PLATFORMS for word in ("--platform", one)]
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", *platforms, "-d", folder,
        "-r", requirements)  # fmt: skip


def file_of(asked: Asked) -> str:
    """The wheel that was asked for, "" for a page or metadata."""
    name = asked.path.rpartition("/")[2]
    return name if name.endswith(".whl") else ""


def name_of(wheel: str) -> str:
    """The distribution that a wheel is of."""
    return normalized(wheel.partition("-")[0])


def normalized(name: str) -> str:
    """As PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(asked: list[Asked], index: IndexServer) -> dict[str, int]:
    """Bytes of each wheel that were asked for in these questions."""
    found: dict[str, int] = {}
    for one in asked:
        if wheel := file_of(one):
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", one.headers.get("range", ""))
            whole = (index.manner.folder / wheel).stat().st_size
            found[wheel] = found.get(wheel, 0) + (int(span[2]) - int(span[1]) + 1 if span else whole)
    return found


def test_the_first_task_runs_in_the_macs_versions(launched: SimpleNamespace) -> None:
    """A task uses compiled distributions that the client never had."""
    answer, numpy, kiwisolver = launched.computed
    assert answer == sum(2 * n for n in range(30))
    assert {f"numpy=={numpy}", f"kiwisolver=={kiwisolver}"} <= set(launched.mac)


def test_every_host_is_verified(launched: SimpleNamespace) -> None:
    """verify() finds no difference on any host, and none to the client, who says the same as before."""
    assert (launched.seen["ok"], launched.seen["differences"], launched.seen["drift"]) == (True, [], [])
    assert set(launched.seen["nodes"]) == {"h1", "h2"}


def test_the_client_reads_no_wheel_but_the_kits(hosts: Testbed, launched: SimpleNamespace) -> None:
    """Of all others it has asked for parts only, and of large ones for small parts."""
    kit = set(launched.seen["kit"])
    mine = [one for one in launched.asked if one.address == hosts.client_address and file_of(one)]
    assert {name_of(file_of(one)) for one in mine if "range" not in one.headers} <= kit
    others = {wheel: size for wheel, size in read(mine, launched.index).items() if name_of(wheel) not in kit}
    assert {name_of(wheel) for wheel in others} >= {"numpy", "kiwisolver"}
    for wheel, size in others.items():
        whole = (launched.index.manner.folder / wheel).stat().st_size
        assert size < whole / 10 or whole < 2_000_000, f"{size} of {whole} bytes of {wheel}"


def test_hosts_fetch_each_of_them_once(hosts: Testbed, launched: SimpleNamespace) -> None:
    """Together: what one host has fetched the other gets from it."""
    kit = set(launched.seen["kit"])
    theirs = [one for one in launched.asked if one.address != hosts.client_address]
    assert {one.address for one in theirs} <= {host.address for host in hosts}
    whole = [name_of(file_of(one)) for one in theirs]
    wanted = {normalized(line.partition("==")[0]) for line in launched.linux} - kit
    assert sorted(whole) == sorted(wanted)


def test_the_report_says_who_gave_what(launched: SimpleNamespace) -> None:
    """The kit's layers came with it, loose code from the client, all else from the index."""
    kit, sources = set(launched.seen["kit"]), launched.seen["sources"]
    assert {sources[name] for name in kit} == {"kit"}
    assert {source for name, source in sources.items() if name not in kit} == {"index"}
    assert launched.seen["fetch"]["left"] == len(sources.keys() - kit)


def test_hosts_that_get_nothing_from_the_index_get_it_from_the_client(launched: SimpleNamespace) -> None:
    """It has left these wheels to them, and fetches them when it hears that they can't."""
    computed, seen = launched.alone
    kit = set(seen["kit"])
    assert computed == launched.computed
    assert (seen["ok"], seen["differences"]) == (True, [])
    assert seen["fetch"]["left"] == len(seen["sources"].keys() - kit)
    assert {source for name, source in seen["sources"].items() if name not in kit} == {"client"}


def test_the_tags_say_what_hosts_must_have(launched: SimpleNamespace) -> None:
    """Nobody has looked into the libraries, and hosts with an older C library would be refused all the same."""
    assert launched.seen["needs"]["GLIBC"] >= "2.17"
