"""A real sshd of the test's own on this machine, with its own keys and its own configuration for clients."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.prefixes import run

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))


class Sshd:
    """sshd at a port of 127.0.0.1.

    Attributes
    ----------
    port : int
    folder : Path
        With the keys, and ``ssh_config``: the host is called ``here`` in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for key in ("host", "user", "other"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
        shutil.copy(folder / "user.pub", folder / "authorized")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "MaxSessions": "2",
        }
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self.known_hosts = folder / "known_hosts"
        self.trust("host")
        self.config = folder / "ssh_config"
        self.write_config()
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        self._process = subprocess.Popen(
            [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=(folder / "log").open("wb")
        )
        self._wait()

    def trust(self, key: str) -> None:
        """Make the public key `key` the one that known_hosts has; "" for none."""
        public = (self.folder / f"{key}.pub").read_text() if key else ""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}" if key else "")

    def write_config(self, **more: str) -> None:
        """A configuration for clients; `more` comes first, so it counts."""
        settings = {
            **more,
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": getpass.getuser(),
            "IdentityFile": str(self.folder / "user"),
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
        }
        lines = [*(f"{k} {v}" for k, v in more.items()), *(f"{k} {v}" for k, v in settings.items() if k not in more)]
        self.config.write_text("\n".join(["Host here", *lines, ""]))

    def _wait(self) -> None:
        while True:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)

    def close(self) -> None:
        """End it; sessions that run go on, as with any sshd."""
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A running sshd."""
    if SSHD is None or os.geteuid() != 0:
        pytest.skip("needs sshd and root")
    server = Sshd(tmp_path)
    yield server
    server.close()
