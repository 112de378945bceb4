"""Work shared among forked processes."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

import msgspec

from likewise.errors import LikewiseError, NodeError

_INDEX = 4  # bytes of a number in the queue


class _Outcome(msgspec.Struct):
    """What a helper tells at its end: results by number, and the error that stopped it."""

    results: dict[int, bytes]
    error: tuple[str, str, str, dict[str, Any]] | None = None


def run_forked(count: int, work: Callable[[int], bytes], helpers: int) -> list[bytes]:
    """Call ``work(0)`` … ``work(count - 1)`` in forked processes, each taking the next number when it is free.

    Parameters
    ----------
    count : int
    work : callable
    helpers : int
        Processes; with one, or with one thing to do, it is done here.

    Returns
    -------
    list of bytes
        The results in order.

    Raises
    ------
    NodeError
        The first one that a helper raised. The others stop after what they are doing.
    """
    helpers = min(helpers, count)
    if helpers <= 1:
        return [work(number) for number in range(count)]
    # A pipe gives each number to exactly one reader. (An anonymous file with a shared offset does not: memfd_create
    # makes files whose position is not locked.)
    queue, feed = os.pipe()
    started: dict[int, BinaryIO] = {}
    try:
        try:
            for _ in range(helpers):
                pid, told = _start(queue, feed, work)
                started[pid] = told
            os.close(queue)
            with contextlib.suppress(BrokenPipeError):  # all helpers have ended, and will say why
                os.write(feed, b"".join(number.to_bytes(_INDEX, "little") for number in range(count)))
        finally:
            os.close(feed)
        outcomes = []
        for pid, told in list(started.items()):
            outcomes.append(_finish(pid, told))
            del started[pid]
    finally:
        for pid, told in started.items():  # those that are left when something went wrong here
            told.close()
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    results: dict[int, bytes] = {}
    for outcome in outcomes:
        if outcome.error:
            what, where, todo, details = outcome.error
            raise NodeError(what, where=where, todo=todo, details=details)
        results.update(outcome.results)
    return [results[number] for number in range(count)]


def _start(queue: int, feed: int, work: Callable[[int], bytes]) -> tuple[int, BinaryIO]:
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.close(feed)
        _help(queue, work, writing, parent)
    os.close(writing)
    return pid, open(reading, "rb")


def _help(queue: int, work: Callable[[int], bytes], pipe: int, parent: int) -> NoReturn:
    """The life of a helper. It must never return into the code that forked it."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        outcome = _Outcome(results={})
        try:
            while os.getppid() == parent and (raw := os.read(queue, _INDEX)):
                number = int.from_bytes(raw, "little")
                outcome.results[number] = work(number)
        except BaseException as error:
            while os.read(queue, 1 << 16):  # nothing left to do for anybody
                pass
            outcome.error = _describe(error)
        with open(pipe, "wb") as file:
            file.write(msgspec.msgpack.encode(outcome))
    finally:
        os._exit(0)


def _describe(error: BaseException) -> tuple[str, str, str, dict[str, Any]]:
    if isinstance(error, LikewiseError):
        return error.what, error.where, error.todo, error.details
    details = {"traceback": traceback.format_exc()}
    return f"A helper process failed ({type(error).__name__}: {error}).", "", "", details


def _finish(pid: int, told: BinaryIO) -> _Outcome:
    with told:
        data = told.read()
    _, status = os.waitpid(pid, 0)
    if not data:
        reason = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
        raise NodeError(
            f"A helper process of the node ended without a result ({reason}).",
            todo="Look whether the machine ran out of memory.",
        )
    return msgspec.msgpack.decode(data, type=_Outcome)
