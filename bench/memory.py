"""What the processes of one run need at most: the peak resident set of each, looked up while it lives.

The kernel keeps every process's peak itself (``VmHWM`` in proc(5)), so a look now and then is enough; what a process
reaches in its last moments, and one that lives for less than that, go unseen. (The figure that wait4(2) has in the end
is no help: it counts what a process was before its exec, and its own children, too.) Children that nobody waits for
stay in the family, because this process adopts them (``PR_SET_CHILD_SUBREAPER``, prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator

INTERVAL = 0.05
"""Seconds between looks. A look at ten processes takes less than a millisecond."""
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

ROLES = (
    ("likewise.transport.__main__ agent", "agent"),
    ("likewise.transport.__main__ hub", "hub"),
    ("likewise.node", "filler"),
    ("dask_scheduler", "scheduler"),
    ("dask_worker", "nanny"),
    ("raylet", "raylet"),
    ("gcs_server", "gcs"),
    ("ray::", "worker"),
    ("pip install", "installer"),
    ("uv pip", "installer"),
)
"""What is found in a process's command line first says what it is; all else is the client's, or a nanny's worker."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends before it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Family:
    """The peaks of a process and of all that it starts, by role.

    Parameters
    ----------
    client : int
        Process id.
    """

    def __init__(self, client: int) -> None:
        self.client = client
        self.peaks: dict[str, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_often, name="memory", daemon=True)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Look until the block ends."""
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join()

    def _look_often(self) -> None:
        while not self._end.wait(INTERVAL):
            for pid, line in descendants(os.getpid()).items():
                self._look_at(pid, line)

    def _look_at(self, pid: int, line: str) -> None:
        if peak := peak_bytes(pid):
            self.note(role_of(line, is_client=pid == self.client), peak)

    def note(self, role: str, peak: int) -> None:
        """A process of this role has had `peak` bytes."""
        self.peaks[role] = max(peak, self.peaks.get(role, 0))


def role_of(command_line: str, *, is_client: bool) -> str:
    """What a process is, from its command line."""
    if is_client:
        return "client"
    for words, role in ROLES:
        if words in command_line:
            return role
    # a nanny's child is started by multiprocessing's spawn, and so are the client's own helpers
    return "worker" if "spawn_main" in command_line else "helper"


def descendants(root: int) -> dict[int, str]:
    """The command lines of all living descendants of `root`, by process id."""
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        for task in _listed(f"/proc/{pid}/task"):
            for child in map(int, _read(f"/proc/{pid}/task/{task}/children").split()):
                if child not in found and (line := _read(f"/proc/{child}/cmdline")):  # a zombie has none
                    found[child] = line.replace("\0", " ")
                    waiting.append(child)
    return found


def peak_bytes(pid: int) -> int:
    """The peak resident set of a living process, 0 when it is gone."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def end_descendants(patience: float = 30.0) -> list[str]:
    """Wait until every descendant of this process has ended; those that do not are ended. Their command lines.

    Whatever one way leaves running would be measured with the next one.
    """
    left = _left_after(patience)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        _left_after(5.0)
    reap()
    return list(left.values())


def _left_after(patience: float) -> dict[int, str]:
    """The descendants that live on, as soon as there are none or `patience` is over."""
    deadline = time.monotonic() + patience
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        time.sleep(0.05)
        reap()
    return left


def reap() -> None:
    """Forget adopted children that have ended. No child that somebody here waits for may be running."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> str:
    """What a small file says, with little work: this is done all the time beside what is measured."""
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.read(fd, 1 << 16).decode("utf-8", "replace")
        finally:
            os.close(fd)
    except OSError:
        return ""
