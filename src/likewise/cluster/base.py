"""A Dask cluster whose scheduler and workers are processes on nodes. The backends say how such a process is started.

What it adds to `distributed.SpecCluster`: scheduler and workers start together instead of one after the other, a node
that can't start ends the launch with its last words, scaling down keeps the data (workers are retired by address), and
whatever happens nothing is left running.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from abc import abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from distributed.core import Status
from distributed.deploy.spec import SpecCluster

from likewise.cluster.process import NodeProcess, SchedulerProcess
from likewise.cluster.verify import SCHEDULER
from likewise.errors import ClusterError, LikewiseError, LikewiseWarning
from likewise.events import Notice, Reporter, Silent
from likewise.stages import OpenStage, Stages, counted

logger = logging.getLogger("likewise.cluster")

_FAREWELL = 1.0  # seconds
_GRACE = 2.0  # seconds that a process has at the end of the cluster: running tasks are lost anyway
_T = TypeVar("_T")

_starter: ContextVar[int] = ContextVar("likewise_starter", default=0)
"""Id of the cluster that this task, or the one that made it, starts: there `_close` must not wait for the start."""


class NodeCluster(SpecCluster):  # type: ignore[misc]
    """Base of all backends.

    Parameters
    ----------
    n_workers : int
        Workers that are there when the cluster has started.
    worker_options : dict
        What `scale` and `adapt` need to know of a worker: ``nthreads`` and ``memory_limit``.
    reporter : Reporter, optional
    **kwargs
        For `distributed.SpecCluster`.
    """

    def __init__(
        self, *, n_workers: int, worker_options: dict[str, Any], reporter: Reporter | None = None, **kwargs: Any
    ) -> None:
        self._stages = Stages(reporter or Silent())
        self._processes: list[NodeProcess] = []
        self._early: dict[Any, NodeProcess] = {}
        self._watchers: set[asyncio.Future[None]] = set()
        self._starting: asyncio.Task[Any] | None = None
        self._ending = asyncio.Event()
        self._joined = asyncio.Event()
        self._lost: list[LikewiseError] = []
        self._correcting = asyncio.Lock()
        worker = {"cls": self._open_worker, "options": worker_options}
        try:
            super().__init__(workers=dict.fromkeys(range(n_workers), worker), worker=worker, **kwargs)
        except BaseException:  # Ctrl-C, too
            self._abandon()
            raise
        self._i = n_workers

    # What a backend provides

    tolerates_lost_workers = False
    """Whether the cluster starts without a worker that ended before it joined, as long as any is left."""

    async def _prepare(self) -> None:
        """Do what has to be done before the first process starts."""

    @abstractmethod
    def _scheduler_process(self) -> SchedulerProcess:
        """The scheduler, not started yet."""

    @abstractmethod
    def _worker_process(self, name: Any, scheduler: str | None) -> NodeProcess:
        """A worker, not started yet. `scheduler` is None when the scheduler's address is not known yet."""

    def _cleanup(self) -> None:
        """Give back what was taken; every process has ended. May be called more than once."""

    # Starting

    async def _start(self) -> None:
        if self._starting is not None:  # awaited twice
            await asyncio.wait([self._starting])
        if self.status != Status.created:
            await super()._start()
            return
        self._starting = asyncio.current_task()
        token = _starter.set(id(self))
        try:
            await self._prepare()
            with self._stages.stage("start", total=1 + len(self.worker_spec), unit="processes") as stage:
                await self._bring_up(stage)
                stage.did(processes=len(self._processes))
                workers, nodes = counted(len(self.worker_spec), "worker"), counted(self._node_count(), "node")
                stage.summary = f"scheduler and {workers} on {nodes}"
        except BaseException:
            await self._close()
            raise
        finally:
            self._starting = None
            _starter.reset(token)

    async def _bring_up(self, stage: OpenStage) -> None:
        scheduler = self._scheduler_process()
        self._early = {name: self._worker_process(name, None) for name in self.worker_spec}
        self._processes += [scheduler, *self._early.values()]
        await self._spawn_all(scheduler)
        self.scheduler = scheduler
        await self._unless_ended("ended before it was ready", scheduler.listening())
        stage.advance(1, "scheduler")
        try:
            await self._unless_ended("ended while the cluster started", super()._start())
        except RuntimeError as error:  # SpecCluster puts every error into one
            cause = error.__cause__ or error
            if isinstance(cause, LikewiseError):
                raise cause from None
            raise ClusterError(f"The scheduler can't be reached: {cause}.", where=scheduler.command.node) from error
        await self._unless_ended("ended before it joined the cluster", self._all_joined(stage))
        for process in self._processes:
            self._watch(process)

    async def _spawn_all(self, scheduler: SchedulerProcess) -> None:
        results = await asyncio.gather(*self._processes, return_exceptions=True)
        for process, result in zip(list(self._processes), results, strict=True):
            if isinstance(result, BaseException):
                if process is scheduler or not self.tolerates_lost_workers or not isinstance(result, LikewiseError):
                    raise result
                self._lose(process, result)

    async def _unless_ended(self, what: str, awaitable: Awaitable[_T]) -> _T:
        """The result of `awaitable`; a ClusterError as soon as a process ends before it is there that must not."""
        wanted = asyncio.ensure_future(awaitable)
        ends = {asyncio.ensure_future(p.exited.wait()): p for p in self._processes}
        try:
            while not wanted.done():
                await asyncio.wait({wanted, *ends}, return_when=asyncio.FIRST_COMPLETED)
                for future in [future for future in ends if future.done()]:
                    process = ends.pop(future)
                    if not wanted.done() and process in self._processes:
                        self._lose(process, process.failure(what))
            return await wanted
        finally:
            for future in (wanted, *ends):
                future.cancel()
            await asyncio.gather(wanted, *ends, return_exceptions=True)

    def _lose(self, process: NodeProcess, error: LikewiseError) -> None:
        """Go on without the worker that ended while the cluster started, where that is tolerated; else raise `error`.

        Raises
        ------
        LikewiseError
            `error`, or one that names every worker when none is left.
        """
        if process.name not in self._early or not self.tolerates_lost_workers:
            raise error
        self._lost.append(error)
        self._processes.remove(process)
        self._early.pop(process.name)
        self.worker_spec.pop(process.name, None)
        if not self._early:
            raise _none_left(self._lost)
        warnings.warn(
            f"The cluster goes on without the {process.command.label}: {error}", LikewiseWarning, stacklevel=2
        )
        self._stages.reporter.report(Notice(message=error.what, subject=error.where))
        self._joined.set()

    async def _all_joined(self, stage: OpenStage) -> None:
        joined: set[Any] = set()
        while missing := self._early.keys() - joined:
            self._joined.clear()
            for name in missing & self.observed:
                stage.advance(1, self._early[name].command.label)
                joined.add(name)
            if self._early.keys() - joined:
                await self._joined.wait()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        super()._update_worker_status(op, msg)
        self._joined.set()

    def _node_count(self) -> int:
        return len({process.command.node for process in self._processes})

    # Workers come and go

    def _open_worker(self, address: str, name: Any, **_options: Any) -> NodeProcess:
        """The process for the worker `name`: the one that was started early, or a new one."""
        if name in self._early:
            return self._early.pop(name)
        process = self._worker_process(name, address)
        self._processes = [p for p in self._processes if p.status != Status.closed] + [process]
        self._watch(process)
        return process

    def new_worker_spec(self) -> dict[Any, Any]:
        """Name and spec of the next worker. A name is never used twice, so logs and retirement stay unambiguous."""
        self._i += 1
        return {self._i - 1: self.new_spec}

    async def _correct_state_internal(self) -> None:
        try:
            async with self._correcting:
                while surplus := set(self.workers) - set(self.worker_spec):
                    await self._retire(surplus)
                await super()._correct_state_internal()
        except BaseException:
            self._correct_state_waiting = None
            raise

    async def _retire(self, names: Iterable[Any]) -> None:
        """Move the data off the workers `names`, then end them.

        SpecCluster asks the scheduler to retire them by name where it expects addresses (distributed 2024.8 to 2026.8),
        which does nothing, and the data is lost.
        """
        names = set(names)
        addresses = [a for a, worker in self.scheduler_info["workers"].items() if worker["name"] in names]
        if addresses and self.scheduler.status == Status.running and not self._ending.is_set():
            retiring = asyncio.ensure_future(
                self.scheduler_comm.retire_workers(workers=addresses, remove=True, close_workers=True)
            )
            ending = asyncio.ensure_future(self._ending.wait())
            await asyncio.wait({retiring, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if not retiring.done():
                retiring.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await retiring
        await asyncio.gather(*(self.workers[name].close() for name in names if name in self.workers))
        for name in names:
            self.workers.pop(name, None)

    def _processes_by_address(self) -> dict[str, str]:
        """The node of each process that is in the cluster now; a stranger's worker is on the host that it names."""
        by_name = {name: process.command.node for name, process in self.workers.items()}
        workers = self.scheduler_info["workers"].items()
        nodes = {address: by_name.get(info["name"], info["host"]) for address, info in workers}
        return {SCHEDULER: self.scheduler.command.node, **nodes}

    def _watch(self, process: NodeProcess) -> None:
        watcher = asyncio.ensure_future(self._report_end(process))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _report_end(self, process: NodeProcess) -> None:
        await process.exited.wait()
        # A worker that was retired (by adaptive scaling, say) or whose lifetime is over ends by itself, with 0.
        expected = process.returncode == 0 and process is not self.scheduler
        if process.status == Status.failed and not expected and not self._ending.is_set():
            error = process.failure("ended")
            logger.warning("%s", error)
            self._stages.reporter.report(Notice(message=error.what, subject=error.where))

    # Ending

    async def _close(self) -> None:
        self._ending.set()
        for process in self._processes:
            process.grace = min(process.grace, _GRACE)
        starting = self._starting
        if starting is not None and _starter.get() != id(self):
            starting.cancel()
            await asyncio.wait([starting])
        try:
            if self.scheduler_comm:  # Dask would try for half a minute to say farewell to a scheduler that is gone
                self.scheduler_comm.timeout = _FAREWELL
            await super()._close()
        finally:
            await asyncio.gather(*(process.close() for process in self._processes))
            await asyncio.gather(*self._watchers)
            self._cleanup()

    def _abandon(self) -> None:
        """End everything after `__init__` failed."""
        try:
            with suppress(Exception):
                self.close()
        finally:
            self._cleanup()

    # Two clusters may bear the same name; Dask would take them for the same.

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def _none_left(errors: Sequence[LikewiseError]) -> LikewiseError:
    """What stopped the cluster when every worker was lost."""
    if len(errors) == 1:
        return errors[0]
    said = "".join(f"\n  {error}" for error in errors)
    return ClusterError(
        f"None of the {len(errors)} workers could be started:{said}",
        details={"errors": [error.as_dict() for error in errors]},
    )
