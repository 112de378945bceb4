"""What environment does the cluster run *now*? A command prefix that a job queue kept for a week can't know; the
scheduler does.

Runs in the kit's Python before a node is made, so it needs nothing but distributed and msgspec.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from likewise.errors import LikewiseError, NodeError
from likewise.model.digest import Digest, is_digest

HANDLER = "likewise_current"
"""Name of the scheduler's handler that answers."""

_RETRY = 0.5  # seconds
_PATIENCE = 60.0  # seconds


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """What a node that starts now should run.

    Attributes
    ----------
    manifest : Digest
        The environment's id.
    cluster : str
        The cluster's id.
    hub : str
        Address of the hub; empty when there is none.
    """

    manifest: Digest
    cluster: str = ""
    hub: str = ""


def ask_scheduler(address: str, timeout: float = 30.0) -> Current:
    """Ask the scheduler at `address` what its nodes run now.

    TLS comes from Dask's configuration, as for the worker that will follow: the worker's certificate is shown.

    Parameters
    ----------
    address : str
        As a worker is given it: ``tls://10.0.0.1:8786``.
    timeout : float
        Seconds in which the scheduler has to answer; a connection that is refused is tried again until then.

    Raises
    ------
    NodeError
        When it can't be reached, is no scheduler of ours, or answers something else.
    """
    try:
        answer = asyncio.run(asyncio.wait_for(_ask(address), timeout))
    except (asyncio.TimeoutError, OSError, ValueError) as error:
        reason = str(error) or f"no answer within {timeout:g} s"
        raise NodeError(
            f"The scheduler can't be asked what to run: {reason}.",
            where=address,
            todo="Is the cluster still there, and can this machine reach it?",
        ) from error
    return _decode(answer, address)


async def _ask(address: str) -> Any:
    # Not at the top: a node whose prefix is there already need not load distributed before it knows that it must ask.
    from distributed.comm.core import CommClosedError
    from distributed.core import connect, send_recv
    from distributed.security import Security

    arguments = Security().get_connection_args("worker")
    while True:
        comm = None
        with suppress(CommClosedError):
            try:
                comm = await connect(address, **arguments)
                return await send_recv(comm, op=HANDLER)
            finally:
                if comm is not None:
                    comm.abort()
        await asyncio.sleep(_RETRY)


def _decode(answer: Any, where: str) -> Current:
    try:
        current = msgspec.convert(answer, Current)
        if not is_digest(current.manifest):
            raise ValueError(f"{current.manifest!r} is no manifest's id")
        return current
    except ValueError as error:  # msgspec's own is one
        raise NodeError(
            f"The scheduler's answer to what it runs can't be understood ({error}).",
            where=where,
            todo="Its likewise is another version than this one's: start the cluster again.",
        ) from error


def scheduler_address(argv: list[str]) -> str | None:
    """The scheduler that Dask's command `argv` will connect to, found as ``dask worker`` finds it.

    The first argument that is an address, else the file after ``--scheduler-file`` when it is there already, else
    ``DASK_SCHEDULER_ADDRESS``; None when there is neither.
    """
    for word in argv:
        if word.startswith(("tls://", "tcp://")):
            return word
    for flag, value in pairwise(argv):
        if flag == "--scheduler-file":
            with suppress(OSError, msgspec.MsgspecError, KeyError, TypeError):
                return str(msgspec.json.decode(Path(value).read_bytes())["address"])
    return os.environ.get("DASK_SCHEDULER_ADDRESS") or None


def main(argv: list[str] | None = None) -> None:
    """Print what the scheduler that Dask's command `argv` names says: manifest, cluster and hub, ``-`` for none.

    What ``bootstrap.sh --ask`` runs. When the scheduler does not say it, the process ends with one line on standard
    error and `NodeError.exit_code`.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        address = scheduler_address(argv)
        if address is None:
            raise NodeError("The command names no scheduler that could be asked what to run.", where=" ".join(argv[:2]))
        current = ask_scheduler(address, _timeout(argv))
    except LikewiseError as error:
        print(f"likewise: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print(current.manifest, current.cluster or "-", current.hub or "-")


def _timeout(argv: list[str]) -> float:
    """How long the command itself would wait for its scheduler, at most a minute."""
    for flag, value in pairwise(argv):
        if flag == "--death-timeout":
            with suppress(ValueError):
                return min(float(value), _PATIENCE)
    return _PATIENCE
