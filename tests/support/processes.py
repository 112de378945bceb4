"""Looking at other processes: which run, and waiting until none of them does."""

from __future__ import annotations

import os
import time
from pathlib import Path


def dask_processes(marker: str) -> dict[int, str]:
    """Processes whose environment has `marker`: id → command line. Zombies are none."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and marker.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, IndexError):
            continue  # it has just ended, or is somebody else's
    return found


def wait_until_gone(marker: str, seconds: float = 10) -> dict[int, str]:
    """What is left of `dask_processes(marker)` after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := dask_processes(marker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
