"""However the client ends, and whenever: its scheduler and workers end, too. Real clients in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.prefixes import clean_environ
from support.processes import dask_processes, wait_until_gone

SCRIPT = """
import os, sys, time
from likewise import Cluster

class Teller:
    def report(self, event):
        print(type(event).__name__, flush=True)

if __name__ == "__main__":
    print("import", flush=True)
    cluster = Cluster(1, package_sync=False, nanny={nanny}, dashboard_address=None, env={{"M": {marker!r}}},
                      reporter=Teller())
    client = cluster.get_client()
    future = client.submit(time.sleep, 60)
    client.submit(lambda: 1).result()
    print("running", flush=True)
    {then}
"""


@contextmanager
def running(
    tmp_path: Path, marker: str, *, until: str, nanny: bool = False, then: str = "time.sleep(60)"
) -> Iterator[subprocess.Popen[str]]:
    """A client that has just printed `until`."""
    script = tmp_path / "client.py"
    script.write_text(SCRIPT.format(marker=marker, nanny=nanny, then=then))
    client = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environ(TMPDIR=str(tmp_path)),  # what a killed client leaves there goes with the test
        start_new_session=True,  # its Ctrl-C is not ours
    )
    assert client.stdout is not None
    try:
        while client.stdout.readline().strip() != until:
            assert client.poll() is None, client.communicate()
        yield client
    finally:
        client.kill()
        client.wait()


@pytest.fixture
def marker() -> str:
    """A word that is in the environment of every process of the test's cluster."""
    return f"likewise-test-{uuid.uuid4()}"


@pytest.mark.parametrize(
    ("until", "later", "nanny"),
    [("StageStarted", 0.02, False), ("StageStarted", 0.5, True), ("StageFinished", 0, False), ("running", 0, False)],
)
def test_ctrl_c(tmp_path: Path, marker: str, until: str, later: float, nanny: bool) -> None:
    """Ctrl-C at any moment ends the client with a KeyboardInterrupt, and everything with it."""
    with running(tmp_path, marker, until=until, nanny=nanny) as client:
        time.sleep(later)
        os.killpg(client.pid, signal.SIGINT)  # what a terminal does
        _, said = client.communicate(timeout=30)
        assert "KeyboardInterrupt" in said
        assert client.returncode == -signal.SIGINT
        assert wait_until_gone(marker, 1) == {}


@pytest.mark.parametrize(
    ("until", "later", "nanny"),
    [("StageStarted", 0.02, False), ("StageStarted", 0.6, True), ("running", 0, True)],
)
def test_kill(tmp_path: Path, marker: str, until: str, later: float, nanny: bool) -> None:
    """`kill -9` at any moment, which the client can't notice: within seconds nothing runs any more."""
    with running(tmp_path, marker, until=until, nanny=nanny) as client:
        time.sleep(later)
        if until == "running":
            assert len(dask_processes(marker)) >= (3 if nanny else 2)
        client.kill()
        assert wait_until_gone(marker, 12) == {}


def test_leaving_without_closing(tmp_path: Path, marker: str) -> None:
    """A script that ends without closing its cluster closes it at exit."""
    with running(tmp_path, marker, until="running", then="sys.exit(3)") as client:
        client.communicate(timeout=30)
        assert client.returncode == 3
        assert wait_until_gone(marker, 0) == {}


def test_a_forked_child_holds_nothing_up(tmp_path: Path, marker: str) -> None:
    """A child forked off the client that outlives it does not keep the nodes alive."""
    fork = "os.fork() or (os.setsid(), os.closerange(0, 3), time.sleep(25), os._exit(0)); os.kill(os.getpid(), 9)"
    with running(tmp_path, marker, until="running", then=fork):
        assert wait_until_gone(marker, 12) == {}
