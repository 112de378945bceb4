"""A process that ends when whoever started it is gone.

The client keeps the other end of this process's standard input open. When the client ends, in whatever way, the kernel
closes that end, and reading finds the end of the file. What the client writes before are lines for this process.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable

GRACE = 5.0
"""Seconds between asking the process to end and ending it."""

_MAX_LINE = 1 << 16


def watch(fd: int = 0, grace: float = GRACE, *, heard: Callable[[bytes], None] | None = None) -> None:
    """Wait for the end of the pipe or socket `fd`, then end the process: by SIGTERM, and after `grace` seconds at once.

    Anything else that may be there (a terminal, ``/dev/null`` in a worker that a nanny started) is not watched.

    Parameters
    ----------
    fd : int
    grace : float
        Seconds.
    heard : callable, optional
        Called with each line that comes before, without its end.
    """
    try:
        kind = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            return
        rest = b""
        while data := os.read(fd, 1024):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[:_MAX_LINE]
            for line in lines:
                if heard is not None:
                    heard(line)
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(128 + signal.SIGTERM)
