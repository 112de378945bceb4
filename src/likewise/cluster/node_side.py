"""What the cluster asks its schedulers and workers to do. Runs inside them, on their event loops, and never blocks."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

from likewise.node.adopt import adopt, adopted, effective, hold
from likewise.node.missed import missed

_UNSTARTED = frozenset({"waiting", "ready", "constrained"})  # states of distributed.worker_state_machine


async def whereabouts() -> dict[str, Any]:
    """Where this process runs, and from which prefix, with what it has adopted since."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "prefix": sys.prefix,
        "deltas": adopted(),
        "executable": sys.executable,
    }


async def situation() -> dict[str, Any]:
    """What a change of the environment would meet here.

    The first digits of the manifest that this process has by now ("" when it runs in no replica), what it looked for in
    vain, and what it has loaded.
    """
    modules, distributions = missed()
    loaded = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return {
        **await whereabouts(),
        "manifest": effective(),
        "missed": modules,
        "missed_distributions": distributions,
        "loaded": tuple({name.partition(".")[0] for name in loaded}),
        "compiled": tuple({name.partition(".")[0] for name, file in loaded.items() if str(file).endswith(".so")}),
    }


async def loaded_in_order() -> tuple[str, ...]:
    """Top-level names of the modules that this process has loaded, in the order in which it began to."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name in list(sys.modules)))


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
    deltas = ":".join(adopted())
    return await _node_command(
        ["verify", "--prefix", sys.prefix, "--node", node, *(["--deltas", deltas] if deltas else [])], timeout
    )


async def make_delta(options: Mapping[str, str], timeout: float) -> tuple[int, bytes, str]:
    """Have the node make a delta beside this process's prefix; whoever asks first makes it.

    Parameters
    ----------
    options : mapping
        ``cluster``, ``manifest``, ``base`` and the sources: see `likewise.node.__main__`.
    timeout : float
        Seconds.

    Returns
    -------
    int
        Exit code.
    bytes
        Where it is, when the exit code is 0.
    str
        What else was said.
    """
    hold(options["cluster"])
    words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
    cache = os.path.dirname(os.path.dirname(sys.prefix))
    return await _node_command(["delta", "--cache", cache, *words], timeout)


async def adopt_delta(folder: str, cluster: str, instead: tuple[str, ...] | None = None) -> str:
    """Adopt a delta; the first digits of the manifest that this process has then. See `likewise.node.adopt.adopt`."""
    hold(cluster)
    adopt(folder, instead=instead)
    return effective()


async def _node_command(words: list[str], timeout: float) -> tuple[int, bytes, str]:
    """Run a command of `likewise.node` in this prefix; its exit code, its output, and what else it said."""
    # -I: none of the user's modules, or of his variables, has a say in it; -B: it leaves no trace.
    argv = [sys.executable, "-I", "-B", "-X", "utf8", "-m", "likewise.node", *words]
    process = await asyncio.create_subprocess_exec(
        *argv,
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


def known_workers(dask_scheduler: Any) -> list[str]:
    """Addresses of the scheduler's workers."""
    return list(dask_scheduler.workers)


def actor_holders(dask_scheduler: Any) -> list[str]:
    """Addresses of the workers that hold actors, which can't be moved."""
    return [ws.address for ws in dask_scheduler.workers.values() if ws.actors]
