"""A process that ends when whoever started it is gone.

The client keeps the other end of this process's standard input open. When the client ends, in whatever way, the kernel
closes that end, and reading finds the end of the file. What the client writes before are lines for this process.
"""

from __future__ import annotations

import os
import select
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
        Called with each line that comes before, without its end. Without it nothing is read: what comes is for the
        program that this process becomes.
    """
    try:
        kind = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            return
        if heard is None:
            _wait_for_end(fd)
        else:
            _read_lines(fd, heard)
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(128 + signal.SIGTERM)


def _wait_for_end(fd: int) -> None:
    poll = select.poll()
    # A pipe without writers hangs up whatever is left in it; of a socket the other end may have closed one direction.
    poll.register(fd, getattr(select, "POLLRDHUP", 0))
    while not poll.poll():
        pass


def _read_lines(fd: int, heard: Callable[[bytes], None]) -> None:
    rest = b""
    while data := os.read(fd, 1024):
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[:_MAX_LINE]
        for line in lines:
            heard(line)
