"""Credentials and keys while a cluster starts and runs on hosts: nobody sees them who must not have them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from support.canaries import CARGO, Planted, credentials, plant, words_beneath, words_said
from support.prefixes import UV, run
from support.ssh_client import SHELL, SSHClient
from support.testbed import FakeHosts, Host, Testbed

pytestmark = [pytest.mark.root, pytest.mark.registry]

START = """
import from_archive, from_path_token, from_vcs, loose_package, mine, stubborn

cluster = SSHCluster(["h1", "h2"], connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}})
client = cluster.get_client()
"""

KEYS = """
security = cluster.security
answer = {role: getattr(security, f"tls_{role}_key") for role in ("scheduler", "worker", "client")}
"""

WORDS = """
def words():
    modules = from_archive, from_path_token, from_vcs, loose, loose_package, mine, stubborn
    return [module.WORD for module in modules]

answer = list(client.run(words).values())
"""

SAID = """
answer = repr([cluster, cluster.environment, cluster.verify(), cluster.report, cluster.get_logs(),
               client.get_scheduler_logs(), client.get_worker_logs(), cluster._commands, cluster._machines])
"""

FOLDERS = ("tmp", "root", "home", "var/tmp", "var/log", "run", "dev/shm")
"""Where something could have been written on a host."""

ROLES = {
    "distributed.cli.dask_scheduler": "scheduler",
    "distributed.cli.dask_worker": "worker",
    "likewise.transport.__main__ hub": "scheduler",
}
"""Part of a command line → whose key that process has."""


class Sampler:
    """Looks at everything that runs on hosts, all the time; keeps every command line with the variables it had."""

    def __init__(self, hosts: Testbed) -> None:
        self.seen: dict[tuple[str, int, str], bytes] = {}
        self._hosts = hosts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="sampler")
        self._thread.start()

    def _look(self) -> None:
        while not self._over.is_set():
            for host in self._hosts:
                for process in host.processes():
                    self.seen[host.name, process.pid, process.command] = process.environ
            time.sleep(0.02)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A user's computer full of credentials, with a client that waits for orders."""
    planted = plant(tmp_path_factory.mktemp("secrets") / "user")
    run(UV, "pip", "install", "-q", "--python", planted.python, "asyncssh")
    (planted.project / "client.py").write_text(SHELL)
    (planted.folder / "work").symlink_to(planted.project)
    return planted


@pytest.fixture(scope="module")
def seen(fake_hosts: FakeHosts, planted: Planted) -> Iterator[SimpleNamespace]:
    """What could be seen on two hosts and on the client from before a cluster's start until after its end."""
    hosts = fake_hosts(2, fresh=True)
    sampler = Sampler(hosts)
    cache = planted.folder.parent / "cache"
    client = SSHClient(planted.python, cache=cache, **planted.environ)
    try:
        client.do(START.format(config=str(hosts.ssh_config)))
        keys = client.do(KEYS)
        words, said = client.do(WORDS), client.do(SAID)
        found = {host.name: files_with(host, keys) for host in hosts}
        client.do("client.close(); cluster.close()")
        left = {host.name: host.wait_idle() for host in hosts}
    finally:
        client.end()
        sampler.stop()
    yield SimpleNamespace(
        keys=keys,
        words=words,
        said=said + client.stderr.read_text(),
        found=found,
        left=left,
        processes=sampler.seen,
        written=words_beneath(*(host.root / name for host in hosts for name in FOLDERS)),
        here=words_beneath(cache, planted.home, planted.project, without=planted.own),
    )


def body(key: str) -> str:
    """A line of a private key that is in no other one."""
    return key.splitlines()[2]


def files_with(host: Host, keys: dict[str, str]) -> list[str]:
    """Files of a host that hold any of the private keys."""
    folders = " ".join(f"/{name}" for name in FOLDERS)
    bodies = "\n".join(map(body, keys.values()))  # on standard input, as command lines are being watched
    return host.run(f"grep -rlsF -D skip -f - {folders}", input=bodies, check=False).split()


def test_the_search_sees_what_travelled(seen: SimpleNamespace) -> None:
    """The code that has to travel arrived, and the search finds it in the hosts' files and among what was said."""
    travelled = {word for words in seen.words for word in words}
    assert travelled and all(word.startswith(CARGO) for word in travelled)
    assert travelled <= seen.written.keys()
    assert len(seen.words) == 1


def test_no_command_line_shows_any(seen: SimpleNamespace) -> None:
    """Nothing that ran on a host at any time had a credential or a key among its arguments."""
    commands = [command for _, _, command in seen.processes]
    assert len(commands) > 10
    assert credentials(words_said("\n".join(commands))) == set()
    assert not [command for command in commands for key in seen.keys.values() if body(key) in command]
    assert not [command for command in commands if "PRIVATE KEY" in command]


def test_no_variable_has_the_clients_credentials(seen: SimpleNamespace) -> None:
    """Nor among its environment variables, where Dask's configuration is, too."""
    variables = {environ.decode(errors="replace") for environ in seen.processes.values()}
    assert len(variables) > 5
    assert credentials(words_said("\n".join(variables))) == set()


def test_each_process_has_the_key_of_its_role_alone(seen: SimpleNamespace) -> None:
    """Scheduler and hub have the scheduler's, workers the workers', nobody two, nobody the client's.

    An agent has the key of the process that it was started beside; so the scheduler's does not leave its host, nor the
    workers' theirs.
    """
    keys = {role: body(key).encode() for role, key in seen.keys.items()}
    had: dict[str, set[str]] = {}
    by_host: dict[str, set[str]] = {}
    for (host, _, command), environ in seen.processes.items():
        held = {role for role, key in keys.items() if key in environ}
        assert len(held) <= 1, (host, command, held)
        by_host.setdefault(host, set()).update(held)
        for part in ROLES:
            if part in command:
                had.setdefault(part, set()).update(held)
    assert had == {part: {role} for part, role in ROLES.items()}
    assert by_host == {"h1": {"scheduler"}, "h2": {"worker"}}


def test_no_file_has_any(seen: SimpleNamespace) -> None:
    """Nothing that was written on a host or by likewise on the client holds a credential or a key."""
    assert seen.found == {"h1": [], "h2": []}
    assert credentials(seen.written) == set()
    assert credentials(seen.here) == set()


def test_nothing_that_is_said_has_any(seen: SimpleNamespace) -> None:
    """Logs, representations, reports and the client's messages are free of them."""
    assert credentials(words_said(seen.said)) == set()
    assert not [role for role, key in seen.keys.items() if body(key) in seen.said]


def test_nothing_is_left(seen: SimpleNamespace) -> None:
    """After the end no process has anything at all."""
    assert seen.left == {"h1": [], "h2": []}
