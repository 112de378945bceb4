"""The hub of a cluster whose scheduler lives in the client: a process beside it that serves the client's store."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from likewise.cluster.environ import basic_environ
from likewise.cluster.local_process import LocalProcess
from likewise.cluster.process import Command

_ANNOUNCEMENT = '{"hub"'
_POLL = 0.02  # seconds
_PATIENCE = 60.0  # seconds in which it has to listen


class LocalHub(LocalProcess):
    """A hub on this machine; it ends with this process.

    Parameters
    ----------
    cluster : str
        The cluster's id.
    host : str
        The address under which the nodes reach the scheduler.
    store : Path
        The client's store.
    folder : Path
        An existing folder without Python files.
    environ : mapping
        Dask's configuration and the scheduler's credentials.
    """

    def __init__(self, cluster: str, host: str, store: Path, folder: Path, environ: Mapping[str, str]) -> None:
        words = ("--cluster", cluster, "--host", host, "--store", str(store), "--lifeline")
        # Where likewise itself is found by PYTHONPATH alone, its process has to know.
        path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if os.environ.get("PYTHONPATH") else {}
        command = Command(
            label="hub",
            node="this machine",
            argv=(sys.executable, "-m", "likewise.transport", "hub", *words),
            cwd=str(folder),
            env={**basic_environ(os.environ), **path, **environ},
        )
        super().__init__(command)

    async def listening(self) -> str:
        """Wait for its address.

        Raises
        ------
        LikewiseError
            When it ends instead.
        """

        async def announced() -> str:
            while True:
                for line in self.output.lines():
                    if line.startswith(_ANNOUNCEMENT):
                        return str(json.loads(line)["hub"])
                if self.exited.is_set():
                    raise self.failure("ended before it listened")
                await asyncio.sleep(_POLL)

        try:
            return await asyncio.wait_for(announced(), _PATIENCE)
        except asyncio.TimeoutError:
            raise self.failure(f"did not listen within {_PATIENCE:g} seconds") from None
