"""Threads that work behind what somebody waits for."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

NICE = 10
"""How much they give way to other processes: those that are being started need a core more often."""


def give_way() -> None:
    """Have this thread, and the processes that it starts, give way to all others, from now on.

    Only where a thread has a priority of its own, and its number is no process's: on Linux. Where that schedules by
    sessions (``kernel.sched_autogroup_enabled``, see sched(7)), the others are above all those of its own session.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
