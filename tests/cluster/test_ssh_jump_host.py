"""Hosts of which the client reaches nothing but sshd, and that through a jump host: everything goes through SSH."""

from __future__ import annotations

from typing import Any

import pytest

from support.prefixes import UV, run
from support.testbed import FakeHosts, Testbed
from support.users import common_cache, make_user_venv, run_script

pytestmark = [pytest.mark.root, pytest.mark.registry]

SCRIPT = """
import json, socket, ssl, sys, threading, urllib.request
import loose
from distributed import Client
from likewise import SSHCluster

CONFIG = sys.argv[1]

def get(link):
    with urllib.request.urlopen(link, timeout=30) as page:
        return page.status, page.read().decode()

def compute(hosts):
    with SSHCluster(hosts, connect_options={"config": CONFIG}, worker_options={"nthreads": 1}) as cluster:
        client = cluster.get_client()
        seen = {
            "sum": client.submit(sum, client.map(loose.double, range(100))).result(timeout=60),
            "scheduler": client.run_on_scheduler(socket.gethostname),
            "workers": sorted(client.run(socket.gethostname).values()),
            "addresses": list(client.run(socket.gethostname)),
            "verified": cluster.verify().ok,
            "scheduler address": cluster.scheduler_address,
            "dashboard": cluster.dashboard_link,
            "page": get(cluster.dashboard_link),
            "listed": get(cluster.dashboard_link.replace("/status", "/info/main/workers.html")),
        }
        client.close()
        return seen, cluster.security, cluster.scheduler_address

class Impostor:
    # Listens where the scheduler was, with the certificate of one role; notes how each handshake ends.
    def __init__(self, address, security, role):
        host, port = address.removeprefix("tls://").split(":")
        self.context = security.get_listen_args(role)["ssl_context"]
        self.listener = socket.create_server((host, int(port)))
        self.accepted = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            try:
                with connection, self.context.wrap_socket(connection, server_side=True) as secure:
                    secure.settimeout(5)
                    self.accepted.append(len(secure.recv(1)) == 1)  # it talks to us
            except OSError:
                self.accepted.append(False)

def taken_in(address, security, role):
    impostor = Impostor(address, security, role)
    try:
        Client(address, security=security, timeout=3).close()
        said = "nothing"
    except (OSError, ValueError) as error:
        said = f"{type(error).__name__}: {error} {error.__cause__}"
    impostor.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, without which the port would stay taken
    impostor.listener.close()
    return impostor.accepted, said

if __name__ == "__main__":
    seen, security, address = compute(["b1", "b1", "b2"])
    seen["impostor"] = {role: taken_in(address, security, role) for role in ("worker", "scheduler")}
    print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def bed(fake_hosts: FakeHosts) -> Testbed:
    """A jump host that the client reaches on port 22 only, and two machines behind it, that the jump host does."""
    hosts = fake_hosts(1, behind=2, fresh=True)
    hosts[0].firewall(22)
    for host in hosts.behind:
        host.firewall(22, towards=hosts[0].addresses[1])
    return hosts


@pytest.fixture(scope="module")
def seen(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a client saw that used them."""
    folder = tmp_path_factory.mktemp("jump")
    python = make_user_venv(folder / "venv", "asyncssh")
    # What the dashboard needs to come up, without what its plots could need besides.
    run(UV, "pip", "install", "-q", "--no-deps", "--python", python, "bokeh", "numpy", "xyzservices", "narwhals")
    (folder / "work").mkdir()
    (folder / "work/loose.py").write_text("def double(x):\n    return 2 * x\n")
    script = folder / "work/script.py"
    script.write_text(SCRIPT)
    return run_script(python, script, str(bed.ssh_config), cache=common_cache(tmp_path_factory))


def test_a_whole_computation_goes_through_port_22(seen: dict[str, Any]) -> None:
    """Scheduler and workers run on hosts of which sshd alone can be reached, in a replica that verifies."""
    assert seen["sum"] == 9900
    assert (seen["scheduler"], seen["workers"]) == ("b1", ["b1", "b2"])
    assert seen["verified"]
    assert seen["scheduler address"].startswith("tls://127.0.0.1:")


def test_the_dashboard_answers(seen: dict[str, Any]) -> None:
    """`dashboard_link` leads to the scheduler's pages, through SSH too."""
    assert seen["dashboard"].startswith("http://127.0.0.1:")
    status, page = seen["page"]
    assert status == 200
    assert "Dask" in page
    assert all(address.removeprefix("tls://") in seen["listed"][1] for address in seen["addresses"])


def test_who_only_has_a_workers_key_is_no_scheduler(seen: dict[str, Any]) -> None:
    """A man in the middle at the forwarded port is refused, because the name in his certificate is another."""
    accepted, said = seen["impostor"]["worker"]
    assert accepted
    assert not any(accepted), "the client talked to him"
    assert "hostname mismatch" in said.lower()


def test_the_schedulers_key_would_have_been_believed(seen: dict[str, Any]) -> None:
    """The same impostor with the scheduler's own key is talked to: it is the name that the refusal is about."""
    accepted, _ = seen["impostor"]["scheduler"]
    assert any(accepted)


def test_nothing_is_left_on_any_host(seen: dict[str, Any], bed: Testbed) -> None:
    """When the client is done, no process is left on the hosts, and no connection on the jump host."""
    assert seen
    assert {host.name: host.wait_idle() for host in [*bed, *bed.behind]} == {"h1": [], "b1": [], "b2": []}
