"""What deployers need in tests: their client side in one user's prefix, their servers in another one, both made once.

The user's prefix has likewise, the deployers, and a small distribution that is nowhere else. All tests share one cache
of likewise, so that the environment is compiled once.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.prefixes import clean_environ, make_venv
from support.users import make_user_venv
from support.wheels import write_wheel

EXAMPLES = Path(__file__).parents[2] / "examples"
"""The examples of this checkout; tests run these very files."""

ONLY = ("dask-gateway", "measurements")
"""What is shipped beside Dask and likewise: the deployers themselves, but for dask-gateway, are of no use on a node."""

_CLIENTS = ("dask-gateway", "dask-cloudprovider[aws]", "dask-kubernetes")
_SERVERS = ("dask-gateway-server[local]", "moto[server,ec2]", "kubernetes-validate", "jsonschema", "pyyaml")
_MEASUREMENTS = b"import sys\n\n\ndef where(x):\n    return [2 * x, sys.prefix, __file__]\n"


class Deployers(msgspec.Struct, frozen=True):
    """Two prefixes and a cache.

    Attributes
    ----------
    python : Path
        The user's: likewise, the deployers' client side, and ``measurements``, whose ``where(x)`` returns twice x,
        ``sys.prefix`` and its own file.
    servers : Path
        The operator's: the servers, and what checks files; no Dask, no likewise.
    cache : Path
        For ``LIKEWISE_CACHE``.
    """

    python: Path
    servers: Path
    cache: Path

    @property
    def prefixes(self) -> list[Path]:
        """What has to be hidden to prove that nothing leans on the user's prefix."""
        return [self.python.parents[1]]

    @property
    def origins(self) -> list[Path]:
        """The same, and what the user's prefix is based on, where that is no part of the system."""
        base = self.python.resolve().parents[1]
        return [*self.prefixes, *([] if base == Path("/usr") else [base])]

    def run(self, *argv: str | Path, timeout: float = 420, cwd: Path | None = None, **environ: str) -> str:
        """Run the user's Python; what it prints on stdout."""
        done = subprocess.run(
            [str(self.python), *map(str, argv)],
            cwd=cwd,
            env=clean_environ(LIKEWISE_CACHE=str(self.cache), **environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def deployers(tmp_path_factory: pytest.TempPathFactory) -> Deployers:
    """Made by the first test that needs them, for all test processes.

    ``LIKEWISE_TEST_DEPLOYERS`` may name a folder where they are, or will be, kept from run to run.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = Path(os.environ.get("LIKEWISE_TEST_DEPLOYERS") or shared / "deployers")
    folder.mkdir(exist_ok=True)
    made = Deployers(
        python=folder / "user" / "bin" / "python",
        servers=folder / "servers" / "bin" / "python",
        cache=folder / "likewise-cache",
    )
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            only_here = write_wheel(folder, {"measurements.py": _MEASUREMENTS}, name="measurements")
            make_user_venv(folder / "user", only_here, *_CLIENTS)
            make_venv(folder / "servers", *_SERVERS)
            (folder / "complete").touch()
    return made


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    argv: Sequence[str | Path], log: Path, *, ready: Callable[[], bool], seconds: float = 60, **options: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A server for the time of a block; it and its output are told about when it does not get ready."""
    with log.open("wb") as out:
        process = subprocess.Popen(  # type: ignore[call-overload]
            [*map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            **{"env": clean_environ(), **options},
        )
    try:
        deadline = time.monotonic() + seconds
        while not ready():
            assert process.poll() is None and time.monotonic() < deadline, f"{argv[0]}: {log.read_text()[-3000:]}"
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)


def listens(port: int, host: str = "127.0.0.1") -> Callable[[], bool]:
    """Whether somebody accepts connections there, as a function to ask again and again."""

    def ask() -> bool:
        with socket.socket() as caller:
            caller.settimeout(1)
            return caller.connect_ex((host, port)) == 0

    return ask


def pythons() -> list[Path]:
    """Every Python on this machine's usual ``PATH`` folders, to be hidden from a node that has none."""
    found = {
        path
        for folder in ("/usr/bin", "/usr/local/bin", "/bin", "/opt/conda/bin")
        for path in Path(folder).glob("python*")
        if Path(folder).resolve() == Path(folder)
    }
    assert found or not shutil.which("python3")
    return sorted(found)


def document(output: str) -> dict[str, Any]:
    """The one line of JSON among what an example prints; deployers print lines of their own."""
    [line] = [line for line in output.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(line)
    return found
