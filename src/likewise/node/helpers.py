"""Work shared among forked processes."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

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
    # Forked processes share the file's offset, so each read takes numbers that nobody else gets.
    queue = os.memfd_create("likewise-queue")
    started: list[tuple[int, int]] = []
    try:
        os.write(queue, b"".join(number.to_bytes(_INDEX, "little") for number in range(count)))
        os.lseek(queue, 0, os.SEEK_SET)
        for _ in range(helpers):
            started.append(_start(queue, work))
        outcomes = [_finish(*started.pop(0)) for _ in range(helpers)]
    finally:
        os.close(queue)
        for pid, pipe in started:
            os.kill(pid, signal.SIGKILL)
            os.close(pipe)
            os.waitpid(pid, 0)
    results: dict[int, bytes] = {}
    for outcome in outcomes:
        if outcome.error:
            what, where, todo, details = outcome.error
            raise NodeError(what, where=where, todo=todo, details=details)
        results.update(outcome.results)
    return [results[number] for number in range(count)]


def _start(queue: int, work: Callable[[int], bytes]) -> tuple[int, int]:
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _help(queue, work, writing, parent)
    os.close(writing)
    return pid, reading


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
            os.lseek(queue, 0, os.SEEK_END)  # nothing left to do for anybody
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


def _finish(pid: int, pipe: int) -> _Outcome:
    with open(pipe, "rb") as file:
        data = file.read()
    _, status = os.waitpid(pid, 0)
    if not data:
        reason = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
        raise NodeError(
            f"A helper process of the node ended without a result ({reason}).",
            todo="Look whether the machine ran out of memory.",
        )
    return msgspec.msgpack.decode(data, type=_Outcome)
