"""What the cluster asks its schedulers and workers to do. Runs inside them, on their event loops, and never blocks."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

_UNSTARTED = frozenset({"waiting", "ready", "constrained"})  # states of distributed.worker_state_machine


async def whereabouts() -> dict[str, Any]:
    """Where this process runs, and from which prefix."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "prefix": sys.prefix, "executable": sys.executable}


async def verify_prefix(node: str, timeout: float) -> tuple[int, bytes, str]:
    """Have this process's prefix checked, by a process beside it: reading a gigabyte would stop heartbeats.

    Parameters
    ----------
    node : str
        How the node is called in the report.
    timeout : float
        Seconds.

    Returns
    -------
    int
        Exit code.
    bytes
        A NodeReport as JSON, when the exit code is 0.
    str
        What else was said.
    """
    # -I: none of the user's modules, or of his variables, has a say in the check; -B: it leaves no trace.
    argv = [sys.executable, "-I", "-B", "-X", "utf8", "-m", "likewise.node", "verify"]
    process = await asyncio.create_subprocess_exec(
        *argv,
        *("--prefix", sys.prefix, "--node", node),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath)},
    )
    try:
        out, said = await asyncio.wait_for(process.communicate(), timeout)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    return process.returncode or 0, out, said.decode("utf-8", "replace")


def unstarted_tasks(dask_worker: Any) -> list[Any]:
    """Keys of the tasks that this worker was given and has not begun."""
    return [ts.key for ts in dask_worker.state.tasks.values() if ts.state in _UNSTARTED]
