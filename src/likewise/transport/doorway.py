"""The agent's side of the door (see `likewise.node.door`)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from likewise.errors import LikewiseError
from likewise.model.digest import Digest, is_digest
from likewise.node.door import door_name, short_path
from likewise.transport.agent import Agent
from likewise.transport.tasks import end

_BEAT = 3.0
"""Seconds between two signs of life for whoever waits."""


def bind_door(folder: str, cluster: str) -> socket.socket:
    """A socket that takes connections from now on. The caller must be the only agent of the cluster here."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(folder, door_name(cluster)) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            door.bind(path)
        door.listen(64)
    except BaseException:
        door.close()
        raise
    return door


@contextlib.asynccontextmanager
async def open_door(door: socket.socket, agent: Agent) -> AsyncIterator[None]:
    """Answer questions as long as the block lasts."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await _talk(agent, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # whoever asked is gone, or the agent ends
        finally:
            talks.discard(task)
            writer.close()

    # not start_unix_server, which from Python 3.13 on looks at the socket's path: it was bound by a short one
    server = await asyncio.start_server(talk, sock=door)
    try:
        yield
    finally:
        server.close()
        await end(list(talks))


def close_door(folder: str, cluster: str) -> None:
    """Nobody is behind it any more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{door_name(cluster)}")


async def _talk(agent: Agent, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        question = msgspec.json.decode(await reader.readline(), type=dict[str, str])
        work = asyncio.create_task(_answer(agent, question))
    except (msgspec.MsgspecError, ValueError):
        return
    gone = asyncio.create_task(reader.read(1))  # ends when whoever asked does
    try:
        while not work.done():
            await asyncio.wait([work, gone], timeout=_BEAT, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            if not work.done():
                await _write(writer, {"waiting": True})
        await _write(writer, work.result())
    finally:
        await end([work, gone])


async def _write(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
    writer.write(msgspec.json.encode(line) + b"\n")
    await writer.drain()


async def _answer(agent: Agent, question: dict[str, str]) -> dict[str, Any]:
    try:
        (verb, digest), *_ = question.items()
        if not is_digest(digest):
            return {"error": f"{digest!r} is not a digest"}
        if verb == "manifest":
            return {"data": base64.b64encode(await agent.manifest(Digest(digest))).decode()}
        if verb == "get":
            return {"path": (await agent.get(Digest(digest))).path}
        if verb == "good":
            await agent.good(Digest(digest))
            return {}
        if verb == "bad":
            return {"again": await agent.bad(Digest(digest))}
        return {"error": f"The agent does not understand {verb!r}."}
    except FileNotFoundError as error:
        return {"error": str(error), "missing": True}
    except LikewiseError as error:
        return {"error": error.what, "where": error.where, "todo": error.todo, "details": error.details}
    except OSError as error:
        return {"error": f"The node's agent failed ({error})."}
