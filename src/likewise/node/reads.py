"""While the prefix grows, Dask reads its messages in threads of their own.

A task is unpickled where its message is read: on the event loop, unless the message is large. An import in there may
have to wait for a layer, and a worker whose event loop waits neither sends heartbeats nor serves its peers. Dask's own
way for large messages (``distributed.comm.offload``) has one thread for all of them, in which a heartbeat's answer
would wait behind the task.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from importlib.machinery import ModuleSpec
from threading import Thread
from types import ModuleType
from typing import Any


def read_elsewhere(spec: ModuleSpec, grows: Callable[[], bool]) -> ModuleSpec:
    """Make the module ``distributed.comm.utils`` read messages in threads for as long as `grows` says.

    Parameters
    ----------
    spec : ModuleSpec
        Of that module, as it was found.
    grows : callable
        Asked for each message; cheap.
    """
    if spec.loader is not None:
        spec.loader = _Wrapped(spec.loader, grows)  # type: ignore[assignment]
    return spec


class _Wrapped:
    """A loader that changes the module that it has loaded, and leaves no other trace."""

    def __init__(self, loader: Any, grows: Callable[[], bool]) -> None:
        self._loader = loader
        self._grows = grows

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        inline = vars(module).get("from_frames")
        if inline is not None:
            vars(module)["from_frames"] = _from_frames(inline, self._grows)


def _from_frames(inline: Callable[..., Any], grows: Callable[[], bool]) -> Callable[..., Any]:
    """``distributed.comm.utils.from_frames``, which is `inline`, in a thread while the prefix grows."""

    async def from_frames(
        frames: Any, deserialize: bool = True, deserializers: Any = None, allow_offload: bool = True
    ) -> Any:
        if not (deserialize and allow_offload and grows()):
            return await inline(frames, deserialize, deserializers, allow_offload)
        return await _in_thread(lambda: _result(inline(frames, deserialize, deserializers, False)))

    return from_frames


def _result(coroutine: Any) -> Any:
    """What a coroutine returns that never waits: without ``allow_offload``, reading is done in one go."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("Dask waited for something while it read a message.")


async def _in_thread(work: Callable[[], Any]) -> Any:
    """The result of `work`, done in a thread of its own that keeps no process from ending."""
    import asyncio  # loaded long ago where anybody awaits this

    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle(how: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():  # cancelled meanwhile
            how(outcome)

    def run() -> None:
        try:
            how, outcome = future.set_result, work()
        except BaseException as error:
            how, outcome = future.set_exception, error
        try:
            loop.call_soon_threadsafe(settle, how, outcome)
        except RuntimeError:
            return  # the loop has been closed: nobody asks any more

    Thread(target=copy_context().run, args=(run,), name="likewise-reads", daemon=True).start()
    return await future
