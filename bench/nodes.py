"""Seconds to the first task on 1, 2 and 3 hosts without Python, cold and warm, and the bytes from each source.

The hosts are namespaces of this machine with own roots, own networks and sshd (`tests/support/testbed.py`; needs root):
all of them share its cores, so what is measured is work, hardly ever the wire. A run is one client process: from its
start to the result of a task that imports numpy and pandas on every host. Cold: the hosts have nothing; the client has
packed its environment once before. Warm: the hosts have it from the run before.

Beside it: what one can do with ssh and tar alone. The prefix that likewise made (it has its Python with it and may lie
on any host) as one gzip archive, made beforehand and not in the figures, goes to every host through ssh's stdin, is
unpacked there, and a scheduler and one worker for each host are started from it, without TLS; a warm run starts them
from what is there. Nothing is scanned and nothing verified.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from memory import Family  # noqa: E402

from support.testbed import Testbed, testbed  # noqa: E402
from support.users import make_user_venv  # noqa: E402

PREFIXES = "/tmp/likewise-0/prefixes"
_ROLES = ("client", "scheduler", "nanny", "worker", "agent", "hub", "filler")
LIKEWISE_CLIENT = """
import json, sys, time
from likewise import SSHCluster

def task():
    import numpy, pandas
    return float(pandas.Series(numpy.arange(4)).sum())

if __name__ == "__main__":
    config, *hosts = sys.argv[1:]
    with SSHCluster([hosts[0], *hosts], connect_options={"config": config},
                    worker_options={"nthreads": 1}) as cluster, cluster.get_client() as client:
        client.wait_for_workers(len(hosts))
        assert set(client.run(task).values()) == {6.0}
        at = time.monotonic()
        ship = next(stage.done for stage in cluster.report.stages if stage.name == "ship")
        stages = {stage.name: round(stage.seconds, 2) for stage in cluster.report.stages}
    print(json.dumps({"at": at, "bytes": ship, "stages": stages}))
"""
TAR_CLIENT = """
import json, sys, time
from distributed import Client

def task():
    import numpy, pandas
    return float(pandas.Series(numpy.arange(4)).sum())

if __name__ == "__main__":
    address, count = sys.argv[1:]
    with Client(address, timeout=60) as client:
        client.wait_for_workers(int(count))
        assert set(client.run(task).values()) == {6.0}
        at = time.monotonic()
        client.shutdown()
    print(json.dumps({"at": at}))
"""


def main() -> int:
    """Prepare, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind; the median counts (default 3)")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="likewise-bench-") as folder, testbed(max(arguments.hosts)) as bed:
        bench = Bench(Path(folder), bed)
        rows = [row for count in arguments.hosts for row in bench.rows(count, arguments.runs)]
    value = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "load": [round(load, 1) for load in os.getloadavg()],
        "runs": arguments.runs,
        "rows": rows,
    }
    print(as_table(value))
    if arguments.json:
        arguments.json.write_text(json.dumps(value, indent=1) + "\n")
    return 0


class Bench:
    """The client's environment, the archive of it, and the hosts."""

    def __init__(self, folder: Path, bed: Testbed) -> None:
        self.bed = bed
        say("preparing the client's environment")
        self.python = make_user_venv(folder / "venv", "numpy", "pandas", "asyncssh")
        self.cwd = folder / "work"
        self.cwd.mkdir()
        (self.cwd / "with_likewise.py").write_text(LIKEWISE_CLIENT)
        (self.cwd / "with_tar.py").write_text(TAR_CLIENT)
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "DASK"))}
        self.environ["LIKEWISE_CACHE"] = str(folder / "cache")
        self.archive = folder / "packed.tar.gz"
        say("filling the client's store")
        self._likewise(1)
        self._pack()

    def rows(self, count: int, runs: int) -> list[dict[str, Any]]:
        """All figures for one number of hosts; the two ways take turns."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for _ in range(runs):
            for way, start in (("likewise", self._likewise), ("ssh and tar", self._tar)):
                self._forget()
                for state in ("cold", "warm"):
                    found.setdefault((way, state), []).append(run := start(count))
                    say(f"{count} hosts, {way}, {state}: {run['seconds']:.2f} s")
        return [summary(count, way, state, measured) for (way, state), measured in found.items()]

    def _forget(self) -> None:
        for host in self.bed:
            host.wait_idle(30)
            host.run("rm -rf /tmp/likewise-*")

    def _likewise(self, count: int) -> dict[str, Any]:
        started = time.monotonic()
        answer = self._client("with_likewise.py", str(self.bed.ssh_config), *self.bed.names[:count])
        return {**answer, "seconds": answer["at"] - started}

    def _tar(self, count: int) -> dict[str, Any]:
        started = time.monotonic()
        hosts = self.bed[:count]
        with ThreadPoolExecutor(count) as pool:
            sent = sum(pool.map(lambda host: self._push(host.name), hosts))
        address = f"tcp://{hosts[0].address}:8786"
        running = [self._ssh(hosts[0].name, "-m distributed.cli.dask_scheduler --no-dashboard --port 8786")]
        for host in hosts:
            running.append(
                self._ssh(host.name, f"-m distributed.cli.dask_worker {address} --nthreads 1 --no-dashboard")
            )
        answer = self._client("with_tar.py", address, str(count))
        seconds = answer["at"] - started
        for process in running:
            process.wait()
        return {"seconds": seconds, "bytes": {"client": sent}}

    def _push(self, host: str) -> int:
        """Unpack the archive on the host unless it was there before; bytes sent."""
        ssh = ["ssh", *self.bed.ssh_options(), host]
        if subprocess.run([*ssh, f"test -d {PREFIXES}"], check=False).returncode == 0:
            return 0
        with self.archive.open("rb") as archive:
            subprocess.run([*ssh, "tar -xzf - -C /"], stdin=archive, check=True)
        return self.archive.stat().st_size

    def _ssh(self, host: str, arguments: str) -> subprocess.Popen[bytes]:
        python = f"exec {self.prefix}/bin/python {arguments}"
        argv = ["ssh", *self.bed.ssh_options(), host, python]
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def _client(self, script: str, *arguments: str) -> dict[str, Any]:
        argv = [str(self.python), script, *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, cwd=self.cwd, env=self.environ, stdout=pipe, stderr=pipe, text=True)
        family = Family(process.pid)
        with family.watched():  # the hosts' processes are descendants of this one, too
            out, said = process.communicate()
        if process.returncode:
            sys.exit(f"{script} exited {process.returncode}:\n{out[-2000:]}{said[-4000:]}")
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return {**answer, "peak MB": {role: round(peak / 1e6) for role, peak in sorted(family.peaks.items())}}

    def _pack(self) -> None:
        """The prefix that likewise made on the first host: it has its Python with it, which can be moved."""
        done = self.bed[0].start_command(f"tar -C / -c {PREFIXES.lstrip('/')} | gzip -1", timeout=600)
        self.archive.write_bytes(done.stdout)
        (self.prefix,) = self.bed[0].run(f"echo {PREFIXES}/*").split()


def summary(count: int, way: str, state: str, measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The median run, and the spread."""
    seconds = [round(run["seconds"], 2) for run in measured]
    value = {"hosts": count, "way": way, "state": state, "median": statistics.median(seconds), "seconds": seconds}
    value["bytes"] = measured[-1]["bytes"]
    roles = {role for run in measured for role in run.get("peak MB", {})}
    value["peak MB"] = {role: max(run.get("peak MB", {}).get(role, 0) for run in measured) for role in sorted(roles)}
    if "stages" in measured[-1]:
        value["stages"] = measured[-1]["stages"]
    return value


def as_table(value: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = ["| hosts | way | | median, s | min | max | MB from … | peak MB of one |", "|---" * 8 + "|"]
    for row in value["rows"]:
        sizes = ", ".join(f"{source} {size / 1e6:.1f}" for source, size in row["bytes"].items() if size) or "–"
        low, high = min(row["seconds"]), max(row["seconds"])
        figures = f"{row['median']:.1f} | {low:.1f} | {high:.1f}"
        peaks = ", ".join(f"{role} {size}" for role, size in row["peak MB"].items() if role in _ROLES) or "–"
        lines.append(f"| {row['hosts']} | {row['way']} | {row['state']} | {figures} | {sizes} | {peaks} |")
    return "\n".join(lines)


def say(what: str) -> None:
    """How far it is."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
