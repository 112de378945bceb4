"""One machine of a testbed: what tests do to it and see of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from support.testbed_network import Bytes, Network, interface_bytes, ip, kill, run

_MACHINE = Path(__file__).with_name("testbed_machine.sh")

_DISK = 32 << 30
"""Bytes of a machine's disk. It takes no more space than is written to it."""

_SSHD = """
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
MaxStartups 100
MaxSessions 100
Subsystem sftp /usr/lib/openssh/sftp-server
"""


class Process(NamedTuple):
    """A process of a machine; `pid` is as the machine sees it."""

    pid: int
    uid: int
    argv: tuple[str, ...]
    environ: bytes

    @property
    def command(self) -> str:
        """The command line as `ps` shows it."""
        return " ".join(self.argv)


class Host:
    """A machine with its own root, users, processes, network and sshd.

    Attributes
    ----------
    name, address : str
        Its name in the ssh configuration and for the other machines; its address on the first network it is in.
    """

    def __init__(self, name: str, addresses: dict[int, str], *, base: Path, folder: Path, network: Network) -> None:
        self.name = name
        self.addresses = addresses
        self.address = next(iter(addresses.values()))
        self.folder = folder / name
        self._base = base
        self._network = network
        self._init = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.namespace = network.add(name, addresses)
        self._keys = folder / "keys"
        self._put_up()

    @property
    def root(self) -> Path:
        """Its root directory, as long as it runs."""
        assert self._init, f"{self.name} is not running"
        return Path(f"/proc/{self._init}/root")

    # ---- its life

    def start(self) -> None:
        """Start it. After `kill` it comes back with the same disk, as after a power cut."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace,
                 "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private",
                 "sh", _MACHINE, self.name, self._base, self.folder],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait_started(self, seconds: float = 30) -> None:
        """Wait until its sshd answers."""
        assert self._process
        deadline = time.monotonic() + seconds
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        (self._init,) = _children(self._process.pid)

    def kill(self) -> None:
        """End it and all its processes at once. Its disk stays, for `start`."""
        if self._process:
            # Its first process is not gone before all others are, and the one that waits for that not before it.
            kill(self._init or self._process.pid)
            self._process.wait()
        self._process, self._init = None, 0

    def pause(self) -> None:
        """Stop all its processes, as a machine that hangs."""
        stopped: set[int] = set()
        while new := set(self._pids()) - stopped:
            self._signal(new, signal.SIGSTOP)
            stopped |= new

    def resume(self) -> None:
        """Go on after `pause`."""
        self._signal(self._pids(), signal.SIGCONT)

    # ---- what runs on it

    def run(
        self, command: str, *, user: str = "root", input: str | bytes = b"", check: bool = True, timeout: float = 60
    ) -> str:
        """Run a shell command on it, without ssh; returns its stdout. With `check`, a failure is an error."""
        done = self.start_command(command, user=user, input=input, timeout=timeout)
        if check and done.returncode:
            words = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise RuntimeError(f"{self.name}: {command!r} ended with {done.returncode}: {words}")
        return done.stdout.decode(errors="replace")

    def start_command(
        self, command: str, *, user: str = "root", input: str | bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a shell command on it as `user` with a login's environment; returns how it ended."""
        enter = ["nsenter", f"--target={self._init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        return subprocess.run(
            [*enter, "env", "-i", "su", "--login", "--shell=/bin/sh", "--command", command, user],
            input=input.encode() if isinstance(input, str) else input,
            capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip

    def processes(self) -> list[Process]:
        """What runs on it, apart from the sshd that it consists of. Zombies are none."""
        found = []
        for entry in (self.root / "proc").iterdir():
            if entry.name.isdigit() and entry.name != "1":
                with contextlib.suppress(OSError):
                    found.append(_process(entry))
        return [process for process in found if process.argv]

    def wait_idle(self, seconds: float = 10) -> list[Process]:
        """Wait at most so long until nothing runs on it; returns what still does."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def add_user(self, name: str) -> None:
        """A user with a home and with the key that the ssh configuration has for that name."""
        public = make_key(self._keys, name)
        # "*" is a password that nobody has; the usual "!" is a locked account, which sshd lets in with no key.
        self.run(f"useradd --create-home --shell /bin/bash --password '*' {shlex.quote(name)}")
        self.run("umask 077; mkdir -p .ssh; cat > .ssh/authorized_keys", user=name, input=public)

    # ---- its network and disks

    def firewall(self, *ports: int, towards: str = "", refuse: bool = False) -> None:
        """Let the client (or who is at the address `towards`) reach these TCP ports alone, and let it reach it at none.

        What is asked of other ports is dropped, or refused with `refuse`. For others everything is as before.
        """
        client = towards or self._network.client
        verdict = "reject with tcp reset" if refuse else "drop"
        allowed = ", ".join(map(str, ports))
        run("ip", "netns", "exec", self.namespace, "nft", "-f", "-", input=f"""
            table inet firewall {{
                chain in {{
                    type filter hook input priority 0; policy accept;
                    ip saddr {client} tcp dport {{ {allowed} }} accept
                    ip saddr {client} meta l4proto tcp {verdict}
                    ip saddr {client} drop
                }}
                chain out {{
                    type filter hook output priority 0; policy accept;
                    ip daddr {client} ct state established,related accept
                    ip daddr {client} drop
                }}
            }}
        """)  # fmt: skip

    def unplug(self) -> None:
        """Take its network cables out: packets go nowhere, nobody is told."""
        for bridge in self.addresses:
            ip(f"-n {self._network.switch} link set {self.name}-{bridge} down")

    def plug(self) -> None:
        """Put them in again."""
        for bridge in self.addresses:
            ip(f"-n {self._network.switch} link set {self.name}-{bridge} up")

    def shape(self, megabits: float) -> None:
        """Let its first network carry at most so many Mbit/s each way. (Latency is beyond many kernels.)"""
        bridge = next(iter(self.addresses))
        limit = f"root tbf rate {megabits}mbit burst 64kb latency 100ms"
        for namespace, device in ((self.namespace, f"eth{bridge}"), (self._network.switch, f"{self.name}-{bridge}")):
            run("tc", "-n", namespace, "qdisc", "replace", "dev", device, *limit.split())

    def bytes(self) -> Bytes:
        """What it has sent and received on its first network."""
        return interface_bytes(self.namespace, f"eth{next(iter(self.addresses))}")

    def small_disk(self, path: str, megabytes: int, *, user: str = "root", options: str = "") -> None:
        """Put an empty disk of that size, the user's own, at `path`; `options` as mount(8) has, such as ``noexec``."""
        where = shlex.quote(path)
        more = f"size={megabytes}m,mode=700,uid=$(id -u {user}),gid=$(id -g {user})" + (options and f",{options}")
        self.run(f"mkdir -p {where} && mount -t tmpfs -o {more} tmpfs {where}")

    def fill_disk(self, path: str, *, leave: int = 0) -> None:
        """Fill the `small_disk` at `path`, all but `leave` MB, with the file ``filler``; remove that to make room."""
        free = int(self.run(f"df --output=avail -BM {shlex.quote(path)} | tail -n 1").strip().rstrip("M"))
        self.run(f"head -c {max(free - leave, 0)}M /dev/zero > {shlex.quote(path)}/filler", check=leave > 0)

    # ---- inside

    def _put_up(self) -> None:
        """Make its disk, and a copy of what will be this machine's own on it."""
        for name in ("seed", "disk", "root"):
            (self.folder / name).mkdir(parents=True)
        with (self.folder / "image").open("wb") as image:
            image.truncate(_DISK)
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "nodiscard", "-N", "1000000", str(self.folder / "image"))
        etc, home = self.folder / "seed/etc", self.folder / "seed/root"
        (etc / "ssh").mkdir(parents=True)
        (home / ".ssh").mkdir(parents=True)
        home.chmod(0o700)
        (home / ".ssh").chmod(0o700)
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "ssh/sshd_config").write_text(_SSHD)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(etc / "ssh/ssh_host_ed25519_key"))
        (home / ".ssh/authorized_keys").write_text(make_key(self._keys, "root"))
        os.chmod(home / ".ssh/authorized_keys", 0o600)

    @property
    def public_key(self) -> str:
        """Its host key, as a line of ``known_hosts`` without the names."""
        return (self.folder / "seed/etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()

    def knows(self, hosts: list[Host]) -> None:
        """Tell it the names of all machines on its networks."""
        lines = ["127.0.0.1 localhost"]
        for bridge in self.addresses:
            lines += [f"{host.addresses[bridge]} {host.name}" for host in hosts if bridge in host.addresses]
        (self.folder / "seed/etc/hosts").write_text("\n".join([*dict.fromkeys(lines), ""]))

    def _answers(self) -> bool:
        """Whether sshd listens in the machine's network namespace."""
        listening = run("ip", "netns", "exec", self.namespace, "cat", "/proc/net/tcp")
        return ":0016 00000000:0000 0A" in listening

    def _pids(self) -> list[int]:
        """All its processes, as the client counts."""
        found = []
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"/proc/{self._init}/ns/pid")
            for entry in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if os.readlink(entry / "ns/pid") == namespace:
                        found.append(int(entry.name))
        return found

    def _signal(self, pids: Iterable[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def make_key(folder: Path, name: str) -> str:
    """The public key that the user `name` has on all machines of a testbed; the private one is ``folder/name``."""
    private = folder / name
    if not private.exists():
        folder.mkdir(exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(private))
    return private.with_name(f"{name}.pub").read_text()


def _process(entry: Path) -> Process:
    """Read one entry of a machine's ``/proc``. What has ended, a zombie too, has no arguments."""
    argv = tuple((entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0"))
    environ = (entry / "environ").read_bytes()
    return Process(int(entry.name), entry.stat().st_uid, () if argv == ("",) else argv, environ)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
