"""One way from nothing to the first task, as a whole process: ``python ways.py WAY FOLDER``.

Started by `first_task.py`, which makes what each way may presume and notes the time before. Prints one JSON line: the
moment of the first result on the system-wide monotonic clock, and what the way has to tell.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def task() -> dict[str, str]:
    """The first task, the same for everybody; runs on a worker."""
    import matplotlib
    import numpy
    import pandas
    import pyarrow
    import scipy.stats
    import sklearn.linear_model

    modules = (numpy, pandas, sklearn, pyarrow, scipy, matplotlib)
    return {module.__name__: module.__version__ for module in modules} | {"prefix": sys.prefix}


def preinstalled(folder: Path) -> dict[str, Any]:
    """Nothing to install: LocalCluster in the environment itself, bytecode compiled. The limit."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        return first_result(client)


def uv_install(folder: Path) -> dict[str, Any]:
    """A new venv by uv, then a worker in it; client and scheduler stay where bytecode is compiled."""
    node = folder / "node"
    uv = os.environ["BENCH_UV"]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, node], check=True)
    argv = [uv, "pip", "install", "--quiet", "--python", node / "bin" / "python"]
    subprocess.run([*argv, *_find_links(), "--requirement", os.environ["BENCH_REQUIREMENTS"]], check=True)
    from distributed import Client, Scheduler, SpecCluster

    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": True}}
    worker = {"cls": _process_class(), "options": {"python": str(node / "bin" / "python")}}
    with SpecCluster(scheduler=scheduler, workers={0: worker}) as cluster, Client(cluster) as client:
        return first_result(client)


def pip_install(folder: Path) -> dict[str, Any]:
    """Dask's plugin: this process and its LocalCluster have nothing but Dask; workers restart afterwards."""
    from distributed import Client, LocalCluster, PipInstall

    lines = Path(os.environ["BENCH_REQUIREMENTS"]).read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    options = [*_find_links(), "--quiet", "--disable-pip-version-check"]
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster, timeout=600) as client:
        client.register_plugin(PipInstall(packages=packages, pip_options=options, restart_workers=True))
        return first_result(client)


def likewise(folder: Path) -> dict[str, Any]:
    """likewise; what its store and its node cache hold was decided by the caller."""
    from likewise import Cluster

    with Cluster(n_workers=1, threads_per_worker=1) as cluster, cluster.get_client() as client:
        answer = first_result(client)
        answer["stages"] = {stage.name: round(stage.seconds, 3) for stage in cluster.report.stages}
        return answer


def first_result(client: Any) -> dict[str, Any]:
    """Run the task; the moment its result is there is the end of the measurement."""
    result = client.submit(task).result(timeout=600)
    return {"at": time.monotonic(), "result": result}


def _find_links() -> list[str]:
    folder = os.environ.get("BENCH_FIND_LINKS")
    return ["--no-index", "--find-links", folder] if folder else []


def _process_class() -> type:
    """A worker of another prefix as SpecCluster wants it; a class made late, since its base is in distributed."""
    from distributed.deploy.spec import ProcessInterface

    class ForeignWorker(ProcessInterface):
        def __init__(self, scheduler: str, name: object, python: str) -> None:
            self.argv = [python, "-m", "distributed.cli.dask_worker", scheduler, "--nthreads", "1", "--name", str(name)]
            super().__init__()

        async def start(self) -> None:
            self.process = subprocess.Popen(self.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            await super().start()

        async def close(self) -> None:
            self.process.terminate()
            self.process.wait()
            await super().close()

    return ForeignWorker


WAYS = {"preinstalled": preinstalled, "uv": uv_install, "pip": pip_install, "likewise": likewise}

if __name__ == "__main__":
    print(json.dumps(WAYS[sys.argv[1]](Path(sys.argv[2]))), flush=True)
