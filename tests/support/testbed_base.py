"""The file system under every testbed machine: a minimal Debian without Python, made once and kept."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("openssh-server", "iproute2", "procps")
NEEDED = ("debootstrap", "ip", "mkfs.ext4", "nft", "nsenter", "pivot_root", "ssh", "ssh-keygen", "unshare")
"""The client's programs that a testbed is made with."""

_LITTER = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale",
           "etc/resolv.conf", "etc/hostname")  # fmt: skip


def testbed_folder() -> Path:
    """Where testbeds keep what they need: ``.testbed`` in the checkout, or where ``LIKEWISE_TESTBED`` says."""
    return Path(os.environ.get("LIKEWISE_TESTBED") or Path(__file__).parents[2] / ".testbed")


def missing() -> list[str]:
    """The programs of `NEEDED` that this machine does not have."""
    return [name for name in NEEDED if not shutil.which(name)]


def base_system() -> Path:
    """The root of a minimal Debian with sshd. Made once, by debootstrap, in about a minute."""
    release = _release()
    digest = hashlib.sha256(" ".join((release, *PACKAGES, *_LITTER)).encode()).hexdigest()[:8]
    base = testbed_folder() / f"base-{release}-{digest}"
    if not base.exists():
        with locked(testbed_folder() / "base.lock"):
            if not base.exists():
                _make(base, release)
    return base


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else who locks `path` runs meanwhile. The kernel gives the lock back when a process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(base: Path, release: str) -> None:
    unfinished = base.with_name(f"{base.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    debootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", release, str(unfinished)]
    # Debootstrap mounts things in there. In a mount namespace of its own they go with it, also when it is killed.
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *debootstrap, *_mirror(release)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"debootstrap ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    for name in _LITTER:
        path = unfinished / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for key in (unfinished / "etc/ssh").glob("ssh_host_*"):
        key.unlink()  # every machine has its own
    unfinished.rename(base)


def _release() -> str:
    """This machine's release: its own package source has it."""
    lines = Path("/etc/os-release").read_text().splitlines()
    names = [line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME=")]
    return names[0] if names else "stable"


def _mirror(release: str) -> list[str]:
    """The place that this machine's apt takes `release` from; [] where that is not known."""
    asked = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"]
    try:
        lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line.split()[0] for line in lines if line.split()[1:] == [release]][:1]
