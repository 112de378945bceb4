"""The door of a node's agent: a unix socket in the node's cache, through which other processes of the node ask it.

One JSON object for each line, one question for each connection. While the agent is at work it says so
(``{"waiting": …}``) every few seconds, so that silence means that something is wrong.

    {"manifest": id}                          → {"data": base64}
    {"get": digest}                           → {"path": an archive, not checked yet}
    {"good": digest}, {"bad": digest}         → {}, {"again": whether another copy may be had}
    anything                                  → {"error": what, "where": …, "todo": …, "missing": nobody has it}
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from likewise.errors import NodeError
from likewise.node.disk import DIRECTORY

WAIT = 30.0
"""Seconds until an agent that was just started must have opened its door: it imports Dask on a busy machine."""

SILENCE = 30.0
"""Seconds without a line after which the agent counts as stuck."""

_LINE_LIMIT = 64 << 20  # a manifest of many thousand layers


def door_name(cluster: str) -> str:
    """The socket's name in the cache's folder ``agents``."""
    return f"{cluster}.sock"


def log_name(cluster: str) -> str:
    """The name of the file beside it with all that the agent has to say."""
    return f"{cluster}.log"


@contextlib.contextmanager
def short_path(folder: str, name: str) -> Iterator[str]:
    """A path to `name` in `folder` that is short enough for a socket's address (108 bytes, unix(7))."""
    fd = os.open(folder, DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def ask(folder: str, cluster: str, question: dict[str, str], *, wait: float = WAIT) -> dict[str, Any]:
    """Ask the agent of `cluster` and wait for its answer.

    Parameters
    ----------
    folder : str
        The cache's folder ``agents``.
    cluster : str
        The cluster's id.
    question : dict
    wait : float
        Seconds to wait for the door to open. The answer itself may take as long as the agent says that it is at work.

    Raises
    ------
    FileNotFoundError
        When nobody in the cluster has what was asked for.
    NodeError
        When there is no agent, it does not answer, or it could not do it (no space, say).
    """
    try:
        with _connected(folder, cluster, wait) as connection, connection.makefile("rb") as lines:
            connection.sendall(msgspec.json.encode(question) + b"\n")
            while line := lines.readline(_LINE_LIMIT):
                answer: dict[str, Any] = msgspec.json.decode(line)
                if "waiting" not in answer:
                    return _checked(answer)
    except (OSError, msgspec.MsgspecError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise _no_agent(folder, cluster, f"does not answer ({error})") from error
    raise _no_agent(folder, cluster, "ended")


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" not in answer:
        return answer
    if answer.get("missing"):
        raise FileNotFoundError(answer["error"])
    raise NodeError(
        answer["error"],
        where=answer.get("where", ""),
        todo=answer.get("todo", ""),
        details=answer.get("details"),
    )


def _connected(folder: str, cluster: str, wait: float) -> socket.socket:
    deadline = time.monotonic() + wait
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(SILENCE)
            with short_path(folder, door_name(cluster)) as path:
                connection.connect(path)
            return connection
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
            connection.close()
            if time.monotonic() > deadline:
                raise _no_agent(
                    folder, cluster, f"has not opened its door ({os.strerror(error.errno or 0)})"
                ) from error
            time.sleep(0.02)
        except BaseException:
            connection.close()
            raise


def _no_agent(folder: str, cluster: str, problem: str) -> NodeError:
    log = f"{folder}/{log_name(cluster)}"
    said = ""
    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as file:
        said = next((line.strip() for line in reversed(file.read()[-4000:].splitlines()) if line.strip()), "")
    return NodeError(
        f"The node's agent {problem}." + (f" Its last words: {said}" if said else ""),
        where=os.path.dirname(folder),
        todo=f"Look at {log}, and start the node again.",
        details={"cluster": cluster, "last_words": said},
    )
