"""A user's client of an SSHCluster, in a process of its own and in the user's own prefix; tests tell it what to do."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from support.prefixes import clean_environ
from support.users import make_user_venv

EDITABLE = """
[project]
name = "shapes"
version = "1.0"
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""

# Reads one line of Python after the other, runs it, and answers with what is in `answer`.
SHELL = """
import base64, json, os, sys, time, traceback, warnings
import loose
from likewise import SSHCluster, LikewiseError

warned = []
warnings.showwarning = lambda message, *rest, **more: warned.append(str(message))

def main():
    names = globals()
    for line in sys.stdin:
        names["answer"] = None
        try:
            exec(base64.b64decode(line), names)
            said = {"answer": names["answer"]}
        except BaseException as error:
            said = {"error": type(error).__name__, "text": str(error), "traceback": traceback.format_exc()}
        print("ANSWER " + json.dumps(said), flush=True)

if __name__ == "__main__":
    main()
"""


def make_client_prefix(folder: Path) -> Path:
    """A venv with numpy, pandas, an editable package ``shapes`` and what a client needs; its python."""
    tree = folder / "shapes"
    (tree / "shapes").mkdir(parents=True)
    (tree / "pyproject.toml").write_text(EDITABLE)
    (tree / "shapes" / "__init__.py").write_text("def area(a, b):\n    return a * b\n")
    python = make_user_venv(folder / "venv", "numpy", "pandas", "asyncssh", "-e", tree)
    (folder / "work").mkdir()
    (folder / "work" / "loose.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "work" / "client.py").write_text(SHELL)
    return python


class ClientError(AssertionError):
    """Something that the client was told to do failed."""


class SSHClient:
    """A running client. `stderr` is a file with what it said."""

    def __init__(self, python: Path, *, cache: Path, **environ: str) -> None:
        work = python.parents[2] / "work"
        self.stderr = work / f"stderr-{os.urandom(4).hex()}"
        with self.stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [str(python), str(work / "client.py")],
                cwd=work,
                env=clean_environ(LIKEWISE_CACHE=str(cache), **environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )

    def do(self, code: str) -> Any:
        """Run `code` in the client; what it put into ``answer``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(textwrap.dedent(code).encode()).decode() + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                said = json.loads(line.removeprefix("ANSWER "))
                if "error" in said:
                    raise ClientError(f"{said['text']}\n{said['traceback']}\n{self.stderr.read_text()[-3000:]}")
                return said["answer"]
        raise ClientError(f"The client ended: {self.stderr.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does (kill -9)."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Let it end by itself; killed when it does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
