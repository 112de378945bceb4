"""Two users on the same hosts, one of them hostile: nothing of his is run, read or written by the other's cluster."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from support.hostile import (
    HOSTILE,
    IN_THE_WAY,
    MODULE,
    PRECIOUS,
    PROGRAM,
    VICTIM,
    Watched,
    add_users,
    evidence,
    lay,
    place,
)
from support.ssh_client import SHELL, ClientError, SSHClient
from support.testbed import FakeHosts, Host, Testbed
from support.users import common_cache, make_user_venv

pytestmark = [pytest.mark.root, pytest.mark.registry]

HOME_CACHE = f"/home/{VICTIM}/.cache/likewise/node"

NAMES = """
# What the victim's cache will have in it; anybody who has seen it once knows.
from likewise.cluster.ssh.push import script_name
from likewise.sync import prepare

prepared = prepare()
kit, prefix = prepared.kit_id[:16], prepared.manifest.id[:16]
prepared.close()
answer = [f"./{script_name()}", f"kits/{kit}/bin/python3", f"prefixes/{prefix}/launch"]
"""

START = """
options = {{"config": {config!r}, "username": "victim"}}
cluster = SSHCluster(["h1", "h2", "h3"], connect_options=options, worker_options={{"nthreads": 1}})
client = cluster.get_client()
"""

USE = """
import urllib.request

def where():
    import os, socket, sys
    return {"host": socket.gethostname(), "prefix": sys.prefix, "cwd": os.getcwd(), "path": sys.path}

page = cluster.dashboard_link.replace("/status", "/info/main/workers.html")
answer = {
    "sum": client.submit(sum, client.map(abs, range(-99, 1), pure=False)).result(timeout=60),
    "where": [client.run_on_scheduler(where), *client.run(where).values()],
    "directories": [worker["local_directory"] for worker in client.scheduler_info()["workers"].values()],
    "verified": cluster.verify().ok,
    "cluster": cluster._cluster_id,
    "page": urllib.request.urlopen(page, timeout=30).read().decode(),
}
"""

SQUATTER = """
use IO::Socket::INET;
my $port = shift;
my $listener = IO::Socket::INET->new(LocalPort => $port, Listen => 5, ReuseAddr => 1) or die;
while (my $client = $listener->accept) {
    open(my $file, '>>', '/tmp/own/heard'); print $file "$port\\n"; close $file;
    print $client "HTTP/1.0 200 OK\\r\\n\\r\\nhostile"; shutdown($client, 1);
    1 while sysread($client, my $question, 4096); # closing with something unread would reset the connection
    close $client;
}
"""
"""Listens where Dask does by default."""

EVERYWHERE = f"""
mkdir -m 777 -p $own; : > $own/heard; cd /tmp
for name in site sitecustomize usercustomize distributed dask likewise msgpack tornado json; do
    printf %s "$module" > $name.py
done
mkdir -m 777 dask-scratch-space
ln -s {PRECIOUS} dask-scratch-space-${{place##*-}}
ln -s {PRECIOUS}/letter bootstrap.sh
for port in 8786 8787; do perl -e "$squatter" $port >/dev/null 2>&1 & done
"""
"""Traps that need no knowledge of the victim."""

NAMED = """
mkdir -m 777 $cache; cd $cache; mkdir kits prefixes agents leases work tmp layers
for name in $names; do
    mkdir -p ${name%/*}; printf %s "$program" > $name
done
for kit in kits/*; do echo bin/python3 > $kit/python; done
chmod -R 777 .
"""
"""A cache with programs of his under the names that the victim's has."""


@pytest.fixture(scope="module")
def bed(fake_hosts: FakeHosts) -> Testbed:
    """Three hosts with two users each."""
    hosts = fake_hosts(3, fresh=True)
    for host in hosts:
        add_users(host)
    return hosts


@pytest.fixture(scope="module")
def client(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHClient]:
    """The victim's program."""
    folder = tmp_path_factory.mktemp("hostile")
    python = make_user_venv(folder / "venv", "asyncssh")
    (folder / "work").mkdir()
    (folder / "work/loose.py").touch()
    (folder / "work/client.py").write_text(SHELL)
    client = SSHClient(python, cache=common_cache(tmp_path_factory))
    yield client
    client.end()


def set_traps(bed: Testbed, names: list[str]) -> dict[str, Watched]:
    """Another kind of trap on each host; what is to stay as it is."""
    variables = {"module": MODULE, "squatter": SQUATTER, "program": PROGRAM, "names": " ".join(names)}
    exports = "".join(f"{name}=$(cat <<'END'\n{text}\nEND\n)\n" for name, text in variables.items())
    for host in bed:
        lay(host, exports + EVERYWHERE)
    first, second, third = bed
    lay(first, f"{exports} cache=$place; {NAMED}")
    lay(second, IN_THE_WAY["a link to a folder of the victim's"])
    lay(third, f"{exports} cache=$own/cache; {NAMED}ln -s $cache $place")
    kept = ["/tmp/own", "/tmp/dask-scratch-space", "/tmp/distributed.py", "/tmp/json.py", "/tmp/bootstrap.sh", PRECIOUS]
    return {host.name: Watched(host, place(host), *kept) for host in bed}


def left_on(host: Host, seconds: float = 10) -> list[tuple[int, str]]:
    """Whose processes are left; the victim's sshd has some time to notice that its connection is closed."""
    victim, deadline = int(host.run(f"id -u {VICTIM}")), time.monotonic() + seconds
    while True:
        left = [(process.uid, process.argv[0]) for process in host.processes()]
        if victim not in dict(left) or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


@pytest.fixture(scope="module")
def seen(bed: Testbed, client: SSHClient) -> SimpleNamespace:
    """What became of a cluster of the victim's, and of one that finds no place; then the traps are sprung."""
    watched = set_traps(bed, client.do(NAMES))
    start = START.format(config=str(bed.ssh_config))
    client.do(start)
    seen = SimpleNamespace(**client.do(USE))
    seen.touched = {host: traps.differences() for host, traps in watched.items()}
    seen.exposed = {host.name: look_around(host) for host in bed}  # this reads his own files, too
    for host in bed:
        lay(host, f"LIKEWISE_CLUSTER={seen.cluster} setsid sleep 600 >/dev/null 2>&1 &")
    client.do("client.close(); cluster.close()")
    seen.changed = {what for traps in watched.values() for what in traps.differences().values()} - {"read"}
    seen.left = {host.name: left_on(host) for host in bed}

    bed[0].run(f"rm -r {HOME_CACHE}; chown -R root {HOME_CACHE.rpartition('/')[0]}")
    with pytest.raises(ClientError) as refused:
        client.do(start)
    seen.refused = str(refused.value).splitlines()
    seen.evidence = {host.name: evidence(host) for host in bed}

    for host in (bed[0], bed[2]):
        there = place(host)
        host.run(f"{there}/bootstrap-*.sh; {there}/kits/*/bin/python3; {there}/prefixes/*/launch", user=VICTIM)
    seen.sprung = [evidence(host).count(f"run by {VICTIM}") for host in bed]
    with urllib.request.urlopen(f"http://{bed[0].address}:8787", timeout=10) as page:
        seen.squatter = page.read().decode()
    return seen


def look_around(host: Host) -> list[str]:
    """What the hostile user finds while the cluster runs."""
    commands = (
        "grep -l 'PRIVATE KEY' /proc/[0-9]*/environ",
        f"find /tmp /home/{VICTIM} -user {VICTIM} ! -type l -writable",
        f"find /tmp /var/tmp /dev/shm /run -user {VICTIM} -type f -readable",
        f"ls -A {HOME_CACHE}",
    )
    return "".join(host.run(f"{command} 2>/dev/null; true", user=HOSTILE) for command in commands).splitlines()


def test_the_victims_cluster_works(seen: SimpleNamespace) -> None:
    """It computes on all hosts, and is verified."""
    assert seen.sum == sum(range(100))
    assert seen.verified
    assert sorted(found["host"] for found in seen.where) == ["h1", "h2", "h3"]


def test_it_runs_from_what_only_its_user_can_change(seen: SimpleNamespace) -> None:
    """Prefixes, working directories, what Dask writes, and the path of modules are beyond the hostile user's reach."""
    for found in seen.where:
        assert found["prefix"].startswith(f"{HOME_CACHE}/{found['host']}/prefixes/")
        assert found["cwd"].startswith(f"{HOME_CACHE}/{found['host']}/work/")
        assert not any(path.startswith("/tmp") for path in found["path"])
    assert all(path.startswith(f"{HOME_CACHE}/h") and "/work/" in path for path in seen.directories)


def test_nothing_of_his_is_run_read_or_written(seen: SimpleNamespace) -> None:
    """His files, his links, what they lead to, and his servers at Dask's usual ports are left alone."""
    assert seen.touched == {"h1": {}, "h2": {}, "h3": {}}
    assert seen.changed == set()
    assert seen.evidence == {"h1": "", "h2": "", "h3": ""}


def test_he_finds_nothing_of_the_victims(seen: SimpleNamespace) -> None:
    """While the cluster runs he can read no key and no file of it, and write to none."""
    assert seen.exposed == {"h1": [], "h2": [], "h3": []}


def test_the_dashboard_is_the_clusters_own(seen: SimpleNamespace) -> None:
    """The page that answers knows the workers; it is not the one of who took Dask's usual port before."""
    assert seen.page.count("tls://") >= 2


def test_the_end_of_the_cluster_is_not_the_end_of_his_processes(seen: SimpleNamespace, bed: Testbed) -> None:
    """What runs on with the cluster's id in its environment, but is his, stays; nothing of the victim's does."""
    for host in bed:
        victim, hostile = (int(host.run(f"id -u {name}")) for name in (VICTIM, HOSTILE))
        assert (hostile, "sleep") in seen.left[host.name]
        assert victim not in [uid for uid, _ in seen.left[host.name]]


def test_without_a_safe_place_there_is_one_clear_sentence(seen: SimpleNamespace, bed: Testbed) -> None:
    """The host without one is named, with the reason for every place that was passed over."""
    what, reasons = seen.refused[:2]
    assert what == "h1: The environment does not fit this host:"
    assert f"{place(bed[0])} belongs to another user" in reasons
    assert "No place for the node's cache is both safe and usable" in reasons


def test_the_traps_work(seen: SimpleNamespace) -> None:
    """Who does run what was laid out leaves evidence, and who asks at the usual port is answered."""
    assert seen.sprung == [3, 0, 3]
    assert seen.squatter == "hostile"
