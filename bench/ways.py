"""The ways from nothing to the first task, each a whole process: ``python first_task.py WAY``.

That program is a user's (`environments.PROGRAM`): it has the task, says by plain imports what the task needs, lies in a
folder with a copy of this module, and calls `main`. The bench makes what each way may presume, notes the time before,
and says in BENCH (JSON) what the way has to know. One JSON line is printed: the moment of the first result on the
system-wide monotonic clock, and what the way has to tell.
"""

from __future__ import annotations

import glob
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

TIMEOUT = 900
"""Seconds after which a way that gives no result has failed."""
PATIENCE = 120
"""Seconds that a worker whose prefix is there has to join."""


Task = Callable[[], dict[str, str]]
"""The first task; it is sent to a worker, and answers with the versions that it found there."""


class Told:
    """What the bench says, and what the way tells: its stages, one after the other, and its result."""

    def __init__(self, task: Task) -> None:
        told = json.loads(os.environ["BENCH"])
        self.task = task
        self.folder = Path(told["folder"])
        self.uv: str = told["uv"]
        self.index: list[str] = ["--default-index", told["index"]]
        self.requirements: str = told["requirements"]
        self.packages = Path(self.requirements).read_text().split()
        self.archive: str = told["archive"]
        self._last: float = told["started"]
        self.answer: dict[str, Any] = {"stages": {}}

    def stage(self, name: str) -> None:
        """What was done since the last stage bears this name."""
        now = time.monotonic()
        self.answer["stages"][name] = round(now - self._last, 3)
        self._last = now

    def first_result(self, client: Any) -> None:
        """Run the task; the moment its result is there is the end of the measurement."""
        self.got(client.submit(self.task).result(timeout=TIMEOUT))

    def got(self, result: dict[str, str]) -> None:
        """The first result is there."""
        self.answer["at"] = time.monotonic()
        self.stage("task")
        self.answer["result"] = result


def preinstalled(told: Told) -> None:
    """Nothing to install: LocalCluster in the prefix itself. The limit."""
    from distributed import Client, LocalCluster

    told.stage("imports")
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        told.stage("start")
        told.first_result(client)


def same_processes(told: Told, *options: str) -> None:
    """What likewise starts, from the prefix itself: scheduler and worker as processes that start together."""
    from distributed import Client

    told.stage("imports")
    file = f"{told.folder}/scheduler.json"
    Path(file).unlink(missing_ok=True)
    with ExitStack() as stack:
        commands: list[list[str]] = [
            ["dask_scheduler", "--port", "0", *options],
            ["dask_worker", "--nthreads", "1", "--no-dashboard"],
        ]
        for module, *arguments in commands:
            argv = [sys.executable, "-m", f"distributed.cli.{module}", "--scheduler-file", file]
            stack.enter_context(running([*argv, "--host", "127.0.0.1", *arguments], told))
        with Client(scheduler_file=file) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
            told.stage("start")
            told.first_result(client)


def same_processes_bare(told: Told) -> None:
    """The same without a dashboard."""
    same_processes(told, "--no-dashboard")


def uv_install(told: Told) -> None:
    """A new venv by uv, then a worker in it; client and scheduler stay where bytecode is compiled."""
    node = told.folder / "node"
    subprocess.run([told.uv, "venv", "--quiet", "--python", sys.executable, node], check=True)
    argv = [told.uv, "pip", "install", "--quiet", "--python", node / "bin" / "python", *told.index]
    subprocess.run([*argv, "--requirement", told.requirements], check=True)
    told.stage("install")
    worker_in(node, told)


def venv_pack(told: Told) -> None:
    """An archive that venv-pack made before is unpacked, then a worker starts in it, as in the way with uv."""
    node = told.folder / "node"
    node.mkdir()
    subprocess.run(["tar", "-xzf", told.archive, "-C", node], check=True)
    told.stage("unpack")
    worker_in(node, told)


def worker_in(node: Path, told: Told) -> None:
    """Client and scheduler here, the worker in the prefix `node`."""
    from distributed import Client, LocalCluster

    told.stage("imports")
    with LocalCluster(n_workers=0, host="127.0.0.1") as cluster, Client(cluster) as client:
        python = str(node / "bin" / "python")
        argv = [python, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--nthreads", "1"]
        with running(argv, told):
            client.wait_for_workers(1, timeout=PATIENCE)
            told.stage("start")
            told.first_result(client)


def pip_install(told: Told) -> None:
    """Dask's plugin: this process and its LocalCluster have nothing but Dask; workers restart afterwards."""
    from distributed import Client, LocalCluster, PipInstall

    told.stage("imports")
    options = ["--index-url", told.index[1], "--quiet", "--disable-pip-version-check"]
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster, timeout=TIMEOUT) as client:
        told.stage("start")
        client.register_plugin(PipInstall(packages=told.packages, pip_options=options, restart_workers=True))
        told.stage("install")
        told.first_result(client)


def ray_uv(told: Told) -> None:
    """Ray with a runtime environment that uv installs; this process has nothing but Ray."""
    import ray

    told.stage("imports")
    wanted = {"packages": told.packages, "uv_pip_install_options": []}  # Ray's own choice is not to use uv's cache
    with tempfile.TemporaryDirectory(prefix="ray.", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env={"uv": wanted}, _temp_dir=folder
        )  # fmt: skip
        told.stage("start")
        told.got(ray.get(ray.remote(told.task).remote(), timeout=TIMEOUT))
        ray.shutdown()


def likewise(told: Told) -> None:
    """likewise; what its store and its node cache hold was decided by the caller."""
    from likewise import Cluster

    told.stage("imports")
    with Cluster(n_workers=1, threads_per_worker=1) as cluster:
        told.stage("launch")
        with cluster.get_client() as client:
            told.first_result(client)
            told.answer["launch"] = {stage.name: round(stage.seconds, 3) for stage in cluster.report.stages}
            wait_until_complete()
            told.answer["complete"] = time.monotonic()


def wait_until_complete() -> None:
    """Wait until no prefix of the node grows any more: what comes after the first task is not left to the next way."""
    deadline = time.monotonic() + TIMEOUT
    while glob.glob(f"{os.environ['LIKEWISE_CACHE']}/node/*/prefixes/*/growing"):
        if time.monotonic() > deadline:
            raise TimeoutError("The prefix is not complete yet.")
        time.sleep(0.02)


@contextmanager
def running(argv: list[str], told: Told) -> Iterator[None]:
    """Run a Dask process during the block; when that fails, what the process said is in the error's output."""
    log = told.folder / f"{argv[2].rpartition('.')[2]}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(argv, stdout=said, stderr=said)
    try:
        yield
    except BaseException:
        print(log.read_text("utf-8", "replace")[-2000:], file=sys.stderr)
        raise
    finally:
        process.terminate()
        process.wait(30)


WAYS: dict[str, Callable[[Told], None]] = {
    way.__name__: way
    for way in (preinstalled, same_processes, same_processes_bare, uv_install, venv_pack, pip_install, ray_uv, likewise)
}


def main(task: Task) -> None:
    """Go the way that the command line names, and tell of it."""
    told = Told(task)
    try:
        WAYS[sys.argv[1]](told)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{Path(error.cmd[0]).name} exited {error.returncode}")  # it has said why
    told.answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(told.answer), flush=True)
