"""A Mac's environment on Linux hosts without Python: planned, fetched, run and verified."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from support.ssh_client import SSHClient, make_client_prefix
from support.testbed import FakeHosts, Testbed, fake_hosts
from support.users import common_cache

__all__ = ["fake_hosts"]

pytestmark = [pytest.mark.root, pytest.mark.registry]

# What a Mac with Apple's processor has: resolved for it, with the versions of Dask that run here.
ON_A_MAC = """
import platform, subprocess, uv
from importlib.metadata import version
from pathlib import Path
own = ["dask", "distributed", "tornado", "cloudpickle", "msgpack", "msgspec", "numpy", "pandas"]
wanted = [*(f"{name}=={version(name)}" for name in own), "backports-zstd", "appnope"]
frozen = Path("mac.txt").absolute()
subprocess.run(
    [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:",
     "--python-version", platform.python_version(), "--python-platform", "aarch64-apple-darwin",
     "--output-file", frozen, "-"],
    input="\\n".join(wanted), text=True, check=True,
)
answer = frozen.read_text().splitlines()
"""

PLAN = """
from likewise import sync
mac = sync.read_source(frozen, client="osx-arm64", python=platform.python_version())
plan = sync.plan(mac, target="linux-64")
answer = {d.name: [d.action.value, d.version, d.file.filename if d.file else d.reason] for d in plan.decisions}
"""

ASKED = """
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     package_sync_target="auto")
prepared = cluster._prepared
asked = [stage.summary for stage in cluster.report.stages if stage.name == "ask"]
actions = sorted({{decision.action.value for decision in prepared.plan.decisions}})
answer = [asked, cluster.verify().ok, prepared.manifest.target.platform.arch, actions]
cluster.close()
"""

START = """
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     package_sync_target=plan)
client = cluster.get_client()
"""

COMPUTE = """
def table(n):
    import numpy, pandas, socket
    frame = pandas.DataFrame({"key": numpy.arange(n) % 3, "value": loose.double(numpy.arange(n))})
    return int(frame.groupby("key").value.sum().iloc[0]), numpy.__version__, pandas.__version__

answer = client.submit(table, 30).result()
"""

SEEN = """
from pathlib import Path
report = cluster.verify()
prepared = cluster._prepared
there = prepared.manifest.target.platform
answer = {
    "ok": report.ok,
    "nodes": [node.node for node in report.nodes],
    "differences": [str(difference) for difference in report.differences],
    "fetch": next(stage.done for stage in cluster.report.stages if stage.name == "fetch"),
    "kinds": sorted({ref.kind.value for ref in prepared.manifest.layers}),
    "likewise": [ref.digest for ref in prepared.manifest.layers if ref.name == "likewise"],
    "own": [one.content for one in prepared.snapshot.distributions if one.name == "likewise"],
    "libc": [there.libc, there.libc_version],
    "kit": list(prepared.manifest.kit),
}
"""

END = "client.close(); cluster.close()"


@pytest.fixture(scope="module")
def hosts(fake_hosts: FakeHosts) -> Testbed:
    return fake_hosts(2, fresh=True)


@pytest.fixture(scope="module")
def launched(hosts: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Planned, started and looked at; then started once more."""
    python = make_client_prefix(tmp_path_factory.mktemp("elsewhere"))
    config = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}  # the index that everybody has
    client = SSHClient(python, cache=common_cache(tmp_path_factory), **config)
    start = START.format(hosts=[hosts[0].name, *hosts.names], config=str(hosts.ssh_config))
    try:
        frozen = client.do(ON_A_MAC)
        plan = client.do(PLAN)
        client.do(start)
        computed, seen = client.do(COMPUTE), client.do(SEEN)
        client.do(END)
        client.do(start)
        again = client.do(SEEN)
        client.do(END)
        asked = client.do(ASKED.format(hosts=[hosts[0].name, *hosts.names], config=str(hosts.ssh_config)))
        yield SimpleNamespace(frozen=frozen, plan=plan, computed=computed, seen=seen, again=again, asked=asked)
    finally:
        client.end()


def test_the_first_task_runs_in_the_macs_versions(launched: SimpleNamespace) -> None:
    """A task uses compiled distributions in the Mac's versions, and a loose module of the client."""
    answer, *versions = launched.computed
    assert answer == sum(2 * n for n in range(0, 30, 3))
    assert [f"numpy=={versions[0]}", f"pandas=={versions[1]}"] == [
        line for line in launched.frozen if line.startswith(("numpy==", "pandas=="))
    ]


def test_compiled_wheels_are_those_of_linux(launched: SimpleNamespace) -> None:
    """numpy's wheel is for the nodes, and what only a Mac has stays away with a reason."""
    action, _, wheel = launched.plan["numpy"]
    assert action == "fetched"
    assert "manylinux" in wheel and wheel.endswith("_x86_64.whl")
    assert launched.plan["appnope"][0] == "dropped"
    assert "macOS" in launched.plan["appnope"][2]


def test_every_host_is_verified(launched: SimpleNamespace) -> None:
    """verify() finds no difference on any host, and none to the client."""
    for seen in (launched.seen, launched.again):
        assert (seen["ok"], seen["differences"]) == (True, [])
        assert set(seen["nodes"]) == {"h1", "h2"}


def test_nothing_of_the_client_goes_there_but_its_own_code(launched: SimpleNamespace) -> None:
    """likewise is the client's, byte for byte; no library of the client's machine is among the layers."""
    assert launched.seen["likewise"] == launched.seen["own"]
    assert launched.seen["kinds"] == ["code", "distribution", "interpreter"]
    assert launched.seen["libc"] == ["glibc", "2.28"]


def test_the_kit_is_known_from_the_wheels(launched: SimpleNamespace) -> None:
    """A list of versions does not say who requires whom; what a node needs to join is in the kit all the same."""
    assert {"distributed", "dask", "tornado", "msgpack", "psutil", "likewise"} <= set(launched.seen["kit"])
    assert not {"numpy", "pandas"} & set(launched.seen["kit"])


def test_a_second_start_fetches_nothing(launched: SimpleNamespace) -> None:
    """What was fetched once is kept."""
    assert launched.again["fetch"]["fetched"] == 0
    assert launched.again["fetch"]["reused"] == launched.seen["fetch"]["fetched"] + launched.seen["fetch"]["reused"]


def test_hosts_say_what_they_are(launched: SimpleNamespace) -> None:
    """With "auto" the hosts are asked first; where they are what the client is, its environment is copied as ever."""
    (said,), verified, arch, actions = launched.asked
    assert said.startswith(f"linux-{arch}-glibc2.")
    assert verified
    assert "fetched" not in actions
