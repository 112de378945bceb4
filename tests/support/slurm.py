"""A real SLURM on this machine: munged, slurmctld and some nodes, each of which is a machine without Python.

A node is a slurmd in mount, UTS and process namespaces of its own. Its root is this machine's with a tmpfs above, so
nothing that it writes reaches the machine; there Python, the home folders and ``/tmp`` are gone, and only the folders
that the test names are shared. Needs root, Linux, and the Debian packages slurm-wlm and munge.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo", "unshare", "chroot")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What a node does before its slurmd: $1 the node's name, then folders to share, "--", and the command.
_NODE = r"""
set -e
name=$1; shift
hostname "$name"
new=/run/likewise-node
mkdir -p $new
mount -t tmpfs -o mode=755 tmpfs $new
mkdir $new/upper $new/work $new/root
mount -t overlay -o lowerdir=/,upperdir=$new/upper,workdir=$new/work overlay $new/root
root=$new/root
rm -f $root/usr/bin/python* $root/usr/local/bin/python* $root/usr/bin/pip* $root/usr/bin/curl $root/usr/bin/wget
rm -rf $root/usr/lib/python3* $root/usr/local/lib/python3*
mount -t proc proc $root/proc
mount --rbind /dev $root/dev
mount --rbind /sys $root/sys
for hidden in /tmp /root /home /work /opt /run; do
    mkdir -p $root$hidden
    mount -t tmpfs -o mode=755 tmpfs $root$hidden
done
chmod 1777 $root/tmp
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    shift
done
shift
exec chroot $root bash -c '"$@" & wait' init "$@" # bash, as the first process, also waits for orphans
"""

_CONF = """
ClusterName=likewise
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={munge}/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=5
MinJobAge=300
"""


@dataclass
class Slurm:
    """A running SLURM.

    Attributes
    ----------
    folder : Path
        Its configuration, state and logs.
    nodes : tuple of str
    processes : dict
        Name of each node (and daemon) to the process at the top of it.
    """

    folder: Path
    nodes: tuple[str, ...]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """The configuration's file."""
        return self.folder / "slurm.conf"

    @property
    def environ(self) -> dict[str, str]:
        """What a submitter's environment needs."""
        return {"SLURM_CONF": str(self.conf)}

    def call(self, *argv: str) -> str:
        """Run one of SLURM's commands; what it said."""
        done = subprocess.run(
            argv, env={"PATH": _PATH, **self.environ}, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def on_node(self, node: str, script: str) -> str:
        """Run a shell script on a node, beside its slurmd; what it printed."""
        inside = _children(self.processes[node].pid)[0]
        argv = ["nsenter", "--target", str(inside), "--mount", "--uts", "--pid", f"--root=/proc/{inside}/root"]
        done = subprocess.run(
            [*argv, "sh", "-c", script],
            env={"PATH": _PATH}, cwd="/", capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.stdout

    def logs(self) -> str:
        """The ends of all logs, for a failure."""
        texts = [f"\n== {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in self.folder.glob("log/*")]
        return "".join(texts)


def missing_programs() -> list[str]:
    """What of SLURM this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]


@contextlib.contextmanager
def running_slurm(folder: Path, shares: Mapping[str, Sequence[Path]]) -> Iterator[Slurm]:
    """A SLURM that ends with the block, with everything that runs in it.

    Parameters
    ----------
    folder : Path
        An empty folder of the test's own, root's from top to bottom (munge insists).
    shares : mapping
        Name of each node to the folders that it shares with this machine.
    """
    slurm = Slurm(folder, tuple(shares))
    try:
        _start(slurm, shares)
        yield slurm
    finally:
        _stop(slurm)


def _start(slurm: Slurm, shares: Mapping[str, Sequence[Path]]) -> None:
    folder, munge = slurm.folder, slurm.folder / "munge"
    for name in ("munge", "log", "state", "spool"):
        (folder / name).mkdir()
    (munge / "key").write_bytes(os.urandom(128))
    (munge / "key").chmod(0o400)
    ports = _free_ports(1 + len(slurm.nodes))
    lines = [_CONF.format(host=socket.gethostname().split(".")[0], port=ports[0], munge=munge, folder=folder)]
    lines += [
        f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 State=UNKNOWN\n"
        for node, port in zip(slurm.nodes, ports[1:], strict=True)
    ]
    lines.append(f"PartitionName=main Nodes={','.join(slurm.nodes)} Default=YES MaxTime=INFINITE State=UP\n")
    slurm.conf.write_text("".join(lines))
    files = {name: munge / name for name in ("key", "socket", "pid", "log", "seed")}
    _run(
        slurm, "munged", "munged", "--foreground", "--force", f"--key-file={files['key']}",
        f"--socket={files['socket']}", f"--pid-file={files['pid']}", f"--log-file={files['log']}",
        f"--seed-file={files['seed']}",
    )  # fmt: skip
    _wait(slurm, files["socket"].exists, "munged")
    _run(slurm, "slurmctld", "slurmctld", "-D", "-i", "-f", str(slurm.conf))
    for node, shared in shares.items():
        _run(
            slurm, node, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private",
            "sh", "-c", _NODE, "node", node, str(folder), *map(str, shared), "--",
            "slurmd", "-D", "-N", node, "-f", str(slurm.conf),
        )  # fmt: skip
    _wait(slurm, lambda: _idle(slurm) == len(slurm.nodes), "nodes")


def _run(slurm: Slurm, name: str, *argv: str) -> None:
    with (slurm.folder / "log" / f"out.{name}").open("wb") as log:
        slurm.processes[name] = subprocess.Popen(
            argv, env={"PATH": _PATH}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _idle(slurm: Slurm) -> int:
    done = subprocess.run(
        ["sinfo", "-h", "-t", "idle", "-o", "%D"],
        env={"PATH": _PATH, **slurm.environ}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return int(done.stdout.strip() or 0)


def _wait(slurm: Slurm, ready: object, what: str, seconds: float = 30) -> None:
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not start{slurm.logs()}"
        time.sleep(0.05)


def _stop(slurm: Slurm) -> None:
    # Nodes first: killing the process at the top of a namespace (its `unshare`) kills all in it.
    for name, process in reversed(slurm.processes.items()):
        process.send_signal(signal.SIGKILL if name in slurm.nodes else signal.SIGTERM)
    for process in slurm.processes.values():
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
