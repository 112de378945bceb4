"""A process that ends when whoever started it is gone.

The client keeps the other end of this process's standard input open and never writes to it. When the client ends, in
whatever way, the kernel closes that end, and reading finds the end of the file.
"""

from __future__ import annotations

import os
import signal
import stat
import time

GRACE = 5.0
"""Seconds between asking the process to end and ending it."""


def watch(fd: int = 0, grace: float = GRACE) -> None:
    """Wait for the end of the pipe or socket `fd`, then end the process: by SIGTERM, and after `grace` seconds at once.

    Anything else that may be there (a terminal, ``/dev/null`` in a worker that a nanny started) is not watched.
    """
    try:
        kind = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            return
        while os.read(fd, 1024):
            pass
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(128 + signal.SIGTERM)
