"""Real machines on this one: each with its own root, processes and network, with sshd, without Python.

No container engine is needed, only root, namespaces and an overlay file system. Three machines take a second. In tests
use the fixture `fake_hosts`; elsewhere::

    with testbed(3) as hosts:
        hosts[0].run("uname -a")
        subprocess.run(["ssh", *hosts.ssh_options(), "h1", "true"])
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

import pytest

from support.testbed_base import base_system, missing, testbed_folder
from support.testbed_host import Host, make_key
from support.testbed_network import Bytes, Network, Reservation

__all__ = ["FakeHosts", "Host", "Testbed", "fake_hosts", "testbed"]


class Testbed(Sequence[Host]):
    """Machines ``h1``, ``h2``, …, and behind the first of them ``b1``, …, which the client cannot reach.

    Attributes
    ----------
    behind : list of Host
        The machines that only the first one reaches (and each other); the sequence itself has the others.
    folder : Path
        What the testbed consists of; goes with it.
    """

    __test__ = False  # no test class, whatever its name

    def __init__(self, hosts: int, behind: int = 0) -> None:
        base = base_system()
        self._reservation = Reservation(testbed_folder() / "sessions")
        self.folder = self._reservation.folder
        self._hosts: list[Host] = []
        self.behind: list[Host] = []
        try:
            self._start(base, hosts, behind)
        except BaseException:
            self.close()
            raise

    def _start(self, base: Path, hosts: int, behind: int) -> None:
        self._network = Network(self._reservation)
        outer, inner = (self._reservation.subnet(which) for which in (0, 1))
        for number in range(1, hosts + 1):
            addresses = {0: f"{outer}.{10 + number}"} | ({1: f"{inner}.11"} if number == 1 and behind else {})
            self._hosts.append(Host(f"h{number}", addresses, base=base, folder=self.folder, network=self._network))
        for number in range(1, behind + 1):
            addresses = {1: f"{inner}.{100 + number}"}
            self.behind.append(Host(f"b{number}", addresses, base=base, folder=self.folder, network=self._network))
        everyone = [*self._hosts, *self.behind]
        self._write_ssh_files(everyone)
        for host in everyone:
            host.knows(everyone)
            host.start()
        for host in everyone:
            host.wait_started()

    def close(self) -> None:
        """Remove everything."""
        for host in (*self._hosts, *self.behind):
            host.kill()
        self._reservation.release()

    @overload
    def __getitem__(self, index: int) -> Host: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Host]: ...
    def __getitem__(self, index: int | slice) -> Host | Sequence[Host]:
        return self._hosts[index]

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def names(self) -> list[str]:
        """What to give ssh: the names of the machines that the client reaches."""
        return [host.name for host in self._hosts]

    @property
    def id(self) -> str:
        """Part of the names of everything that belongs to this testbed."""
        return self._reservation.id

    @property
    def client_address(self) -> str:
        """The client's address among the machines."""
        return self._network.client

    def client_bytes(self) -> Bytes:
        """What the client has sent to and received from all machines so far."""
        return self._network.client_bytes()

    # ---- ssh

    @property
    def ssh_config(self) -> Path:
        """A configuration for ssh: names, keys (one for each user name), known hosts, the jump host."""
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        """The host keys of all machines."""
        return self.folder / "known_hosts"

    def key(self, user: str = "root") -> Path:
        """The private key of a user."""
        make_key(self.folder / "keys", user)
        return self.folder / "keys" / user

    def ssh_options(self) -> list[str]:
        """What to give ssh before a machine's name."""
        return ["-F", str(self.ssh_config)]

    def _write_ssh_files(self, hosts: list[Host]) -> None:
        self.known_hosts.write_text("".join(f"{host.name},{host.address} {host.public_key}\n" for host in hosts))
        lines = [
            "Host *",
            "User root",
            f"IdentityFile {self.folder}/keys/%r",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
            "StrictHostKeyChecking yes",
            "BatchMode yes",
            "ConnectTimeout 10",
        ]
        for host in hosts:
            lines += [f"Host {host.name}", f"HostName {host.address}"]
            lines += [f"ProxyJump root@{self._hosts[0].name}"] if host in self.behind else []
        self.ssh_config.write_text("\n".join([*lines, ""]))


@contextlib.contextmanager
def testbed(hosts: int, behind: int = 0) -> Iterator[Testbed]:
    """Machines that are gone afterwards."""
    bed = Testbed(hosts, behind)
    try:
        yield bed
    finally:
        bed.close()


testbed.__test__ = False  # type: ignore[attr-defined]

FakeHosts = Callable[..., Testbed]


@pytest.fixture(scope="session")
def fake_hosts() -> Iterator[FakeHosts]:
    """``fake_hosts(3)``: the same three machines for all tests of a process that ask for three.

    ``fake_hosts(2, behind=1)``: two, and one more that only the first of them reaches. ``fresh=True``: a testbed of the
    test's own, for what others must not meet. All are gone when the tests end.
    """
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root")
    if lacking := missing():
        pytest.skip(f"needs {', '.join(lacking)}")
    shared: dict[tuple[int, int], Testbed] = {}
    with contextlib.ExitStack() as stack:

        def hosts(count: int, *, behind: int = 0, fresh: bool = False) -> Testbed:
            if fresh:
                return stack.enter_context(testbed(count, behind))
            if (count, behind) not in shared:
                shared[count, behind] = stack.enter_context(testbed(count, behind))
            return shared[count, behind]

        yield hosts
