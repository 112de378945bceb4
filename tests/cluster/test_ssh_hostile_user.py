"""Two users on the same hosts, one of them hostile: nothing of his is run, read or written by the other's cluster."""

from __future__ import annotations

from collections.abc import Iterator

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
from support.ssh_client import SHELL, SSHClient
from support.testbed import FakeHosts, Host, Testbed
from support.users import make_user_venv

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
    print $client "HTTP/1.0 200 OK\\r\\n\\r\\nhostile"; close $client;
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
    client = SSHClient(python, cache=folder / "cache")
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


def as_hostile(host: Host, command: str) -> str:
    """What the hostile user sees."""
    return host.run(f"{command} 2>/dev/null; true", user=HOSTILE)


def test_the_victims_cluster_steps_into_no_trap(bed: Testbed, client: SSHClient) -> None:
    """It runs, from caches that only its user can change, and whatever the hostile user laid out stays as it is."""
    watched = set_traps(bed, client.do(NAMES))
    client.do(START.format(config=str(bed.ssh_config)))
    seen = client.do(USE)
    assert seen["sum"] == sum(range(100))
    assert seen["verified"]
    assert sorted(found["host"] for found in seen["where"]) == ["h1", "h2", "h3"]
    for found in seen["where"]:
        assert found["prefix"].startswith(f"{HOME_CACHE}/{found['host']}/prefixes/")
        assert found["cwd"].startswith(f"{HOME_CACHE}/{found['host']}/work/")
        assert not any(path.startswith("/tmp") for path in found["path"])
    assert all(path.startswith(f"{HOME_CACHE}/h") and "/work/" in path for path in seen["directories"])
    assert seen["page"].count("tls://") >= 2

    assert {name: traps.differences() for name, traps in watched.items()} == {"h1": {}, "h2": {}, "h3": {}}
    for host in bed:
        look_around(host)  # which reads his own files, too
        lay(host, f"LIKEWISE_CLUSTER={seen['cluster']} setsid sleep 600 >/dev/null 2>&1 &")
    client.do("client.close(); cluster.close()")

    assert {host.name: evidence(host) for host in bed} == {"h1": "", "h2": "", "h3": ""}
    assert {what for traps in watched.values() for what in traps.differences().values()} <= {"read"}
    for host in bed:
        victim = int(host.run(f"id -u {VICTIM}"))
        left = host.processes()
        assert [process for process in left if process.uid == victim] == []
        assert sum(process.argv[0] == "sleep" for process in left) == 1, "his process was ended"


def look_around(host: Host) -> None:
    """While the cluster runs, the hostile user finds nothing that he can read or write."""
    assert as_hostile(host, "grep -l 'PRIVATE KEY' /proc/[0-9]*/environ") == ""
    assert as_hostile(host, f"find /tmp /home/{VICTIM} -user {VICTIM} ! -type l -writable") == ""
    assert as_hostile(host, f"ls -A {HOME_CACHE}") == ""
    assert as_hostile(host, f"find /tmp /var/tmp /dev/shm /run -user {VICTIM} -type f -readable") == ""


def test_the_traps_work(bed: Testbed, client: SSHClient) -> None:
    """Who does run what was laid out leaves evidence."""
    del client  # after it
    for host in (bed[0], bed[2]):
        there = place(host)
        programs = f"{there}/bootstrap-*.sh; {there}/kits/*/bin/python3; {there}/prefixes/*/launch"
        host.run(programs, user=VICTIM)
        assert evidence(host).count(f"run by {VICTIM}") == 3
