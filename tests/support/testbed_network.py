"""The network of a testbed: a switch in a namespace of its own, the machines' namespaces, one interface of the client.

Everything bears the testbed's id, and everything goes with the namespaces, which is how a killed testbed is cleaned.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

from support.testbed_base import locked

# One file for each testbed that lives, locked by its process: the kernel says which of them were left behind.
_LIVING = Path("/run/likewise-testbed")


class Bytes(NamedTuple):
    """What went through an interface."""

    sent: int
    received: int


class Reservation:
    """An id and two subnets that nobody else on this machine has, and a folder that is removed with them."""

    def __init__(self, folders: Path) -> None:
        with locked(_LIVING / "lock"):
            _remove_stale()
            self.number = _free_number()
            self.folder = folders / self.id
            file = _LIVING / self.id
            file.write_text(str(self.folder))
            self._lock: TextIOWrapper = file.open()
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.folder.mkdir(parents=True)

    @property
    def id(self) -> str:
        """Four hex digits, part of every name."""
        return f"{self.number:04x}"

    def subnet(self, which: int) -> str:
        """The first three numbers of subnet 0 (with the client) or 1 (behind the jump host)."""
        return f"10.{64 + (self.number >> 7)}.{(self.number & 127) * 2 + which}"

    def namespace(self, name: str) -> str:
        """The network namespace called `name` in this testbed."""
        return f"lw-{self.id}-{name}"

    def release(self) -> None:
        """Remove all of it."""
        with locked(_LIVING / "lock"):
            _remove(self.id, self.folder)
            self._lock.close()


class Network:
    """The switch (two bridges, `br0` and, behind the jump host, `br1`) and the client's interface."""

    def __init__(self, reservation: Reservation) -> None:
        self.reservation = reservation
        self.switch = reservation.namespace("switch")
        self.interface = f"lw{reservation.id}"
        self.client = f"{reservation.subnet(0)}.1"
        ip(f"netns add {self.switch}")
        ip(f"-n {self.switch} link add br0 type bridge", f"-n {self.switch} link set br0 up",
           f"-n {self.switch} link add br1 type bridge", f"-n {self.switch} link set br1 up",
           f"link add {self.interface} type veth peer name client netns {self.switch}",
           f"-n {self.switch} link set client master br0 up",
           f"addr add {self.client}/24 dev {self.interface}", f"link set {self.interface} up",
           # What lies behind the jump host is nowhere for the client, rather than where its default route leads.
           f"route add {reservation.subnet(1)}.0/24 dev {self.interface}")  # fmt: skip

    def add(self, name: str, addresses: dict[int, str]) -> str:
        """A namespace for the machine `name` with an address on each given bridge; returns the namespace."""
        namespace = self.reservation.namespace(name)
        ip(f"netns add {namespace}", f"-n {namespace} link set lo up")
        run("ip", "netns", "exec", namespace, "sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
        for bridge, address in addresses.items():
            port = f"{name}-{bridge}"
            ip(f"-n {self.switch} link add {port} type veth peer name eth{bridge} netns {namespace}",
               f"-n {self.switch} link set {port} master br{bridge} up",
               f"-n {namespace} addr add {address}/24 dev eth{bridge}",
               f"-n {namespace} link set eth{bridge} up")  # fmt: skip
        return namespace

    def client_bytes(self) -> Bytes:
        """What the client has sent to and received from all machines so far, with the packets' headers."""
        folder = Path("/sys/class/net") / self.interface / "statistics"
        return Bytes(*(int((folder / name).read_text()) for name in ("tx_bytes", "rx_bytes")))


def interface_bytes(namespace: str, interface: str) -> Bytes:
    """What went through an interface of a machine."""
    (found,) = json.loads(run("ip", "-n", namespace, "-j", "-s", "link", "show", "dev", interface))
    return Bytes(found["stats64"]["tx"]["bytes"], found["stats64"]["rx"]["bytes"])


def processes_in(namespace: str) -> list[int]:
    """Ids, as the client sees them, of the processes in a network namespace; [] when there is none of that name."""
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def run(*argv: str, input: str | None = None) -> str:
    """Run a program that must succeed; returns what it printed."""
    done = subprocess.run(argv, input=input, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def ip(*commands: str) -> None:
    """Run ip(8) with each of these command lines."""
    for command in commands:
        run("ip", *command.split())


def _free_number() -> int:
    routes = json.loads(run("ip", "-j", "-4", "route", "show", "table", "all"))
    used = [ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    while True:
        number = secrets.randbelow(1 << 13)
        pair = ipaddress.ip_network(f"10.{64 + (number >> 7)}.{(number & 127) * 2}.0/23")
        taken = any(pair.overlaps(network) for network in used if network.prefixlen)
        if not taken and not (_LIVING / f"{number:04x}").exists():
            return number


def _remove_stale() -> None:
    """Remove what killed sessions left."""
    for file in _LIVING.iterdir():
        if file.name == "lock":
            continue
        with file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its session lives
            _remove(file.name, Path(lock.read()))


def _remove(identity: str, folder: Path) -> None:
    """Remove namespaces with their processes and interfaces, then the folder, then the note that they exist."""
    listed = run("ip", "netns", "list").splitlines()
    names = [line.split()[0] for line in listed if line.startswith(f"lw-{identity}-")]
    for name in names:
        for pid in processes_in(name):
            kill(pid)
    # The kernel takes its time to empty a deleted namespace. Without one end of the client's wire there is no other.
    subprocess.run(["ip", "link", "del", f"lw{identity}"], capture_output=True, check=False)
    for name in names:
        while processes_in(name):
            time.sleep(0.01)
        ip(f"netns del {name}")
    if folder.name == identity:  # and not what a session wrote that was killed while it wrote
        shutil.rmtree(folder, ignore_errors=True)
    (_LIVING / identity).unlink(missing_ok=True)


def kill(pid: int) -> None:
    """End a process at once, if it is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
