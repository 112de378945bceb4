"""Running the command ``likewise`` as a real process."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

from support.prefixes import clean_environ

LIKEWISE = [sys.executable, "-m", "likewise"]


def likewise(
    *arguments: str | Path, cwd: Path | None = None, timeout: float = 120, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run ``likewise`` with `arguments`; its outputs are pipes, and it may fail."""
    return subprocess.run(
        [*LIKEWISE, *map(str, arguments)],
        cwd=cwd,
        env=clean_environ(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def likewise_on_terminal(*arguments: str | Path, cwd: Path, timeout: float = 60, **environ: str) -> tuple[str, int]:
    """Run ``likewise`` on a terminal of its own; returns all that it wrote there, and its exit code."""
    ours, theirs = pty.openpty()
    env = clean_environ(**{"TERM": "xterm-256color", "COLUMNS": "100", **environ})
    process = subprocess.Popen(
        [*LIKEWISE, *map(str, arguments)], cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written, deadline = b"", time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    return written.decode(), process.wait(timeout=10)
