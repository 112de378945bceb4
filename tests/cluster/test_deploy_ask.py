"""A deployment whose prefixes are older than its environment: workers that ask their scheduler run the newer one."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.deploy import Deployers, deployers, free_port, listens, running  # noqa: F401
from support.prefixes import clean_environ

pytestmark = pytest.mark.registry

CLIENT = """
import json, sys
from distributed import Client

address, manifest = sys.argv[1:]
with Client(address, timeout=30) as client:
    if manifest:
        client.sync(client.scheduler.likewise_set_current, manifest=manifest)
    else:
        client.wait_for_workers(2, timeout=120)
        print(json.dumps({n: p for n, p in client.run(
            lambda dask_worker: (dask_worker.name, sys.prefix)).values()}))
"""


def test_workers_that_ask_run_what_is_current(deployers: Deployers, tmp_path: Path) -> None:  # noqa: F811
    """Of two workers with the first prefix, the one that was told to ask runs the second environment."""
    folder, work = tmp_path / "bundle", tmp_path / "work"
    work.mkdir()

    def bundle(*options: str) -> dict[str, Any]:
        shared = ("--cache", str(tmp_path / "node"), "--json", "-q", *options)
        value: dict[str, Any] = json.loads(deployers.run("-m", "likewise", "bundle", folder, *shared, cwd=work))
        return value

    first = bundle("--only", "measurements", "--ask")
    second = bundle("--only", "measurements", "--only", "dask-gateway")
    assert first["manifest"] != second["manifest"]
    asks = first["prefix"]
    tells = [word for word in asks if word != "--ask"]

    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = ["-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard", "--name"]
    with ExitStack() as ends:
        preload = ["--preload", "likewise.cluster.scheduler_side"]
        argv = [*tells, *scheduler, *preload]
        ends.enter_context(running(argv, tmp_path / "scheduler.log", ready=listens(port), seconds=240))
        client(deployers, address, second["manifest"])
        for name, prefix in (("old", tells), ("new", asks)):
            ends.enter_context(running([*prefix, *worker, name], tmp_path / f"{name}.log", ready=lambda: True))
        seen = json.loads(client(deployers, address, ""))
    prefixes = tmp_path / "node" / "prefixes"
    assert seen == {
        "old": f"{prefixes}/{first['manifest'][:16]}",
        "new": f"{prefixes}/{second['manifest'][:16]}",
    }


def client(deployers: Deployers, *arguments: str) -> str:  # noqa: F811
    """What the client above prints; it runs in the first prefix's own environment, the user's."""
    done = subprocess.run(
        [str(deployers.python), "-c", CLIENT, *arguments],
        env=clean_environ(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
