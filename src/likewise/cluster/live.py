"""Live sync: what changed on the client comes to a running cluster. Scheduler, client and results stay.

What was added is adopted by the running workers, where they can't tell it from having been there from the start
(`likewise.model.change`). Anything else starts new workers, and the old ones give up what they have. The scheduler
adopts both: it only has to know the user's modules by name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from distributed import Client

from likewise.cluster.replace import no_scaling
from likewise.cluster.update import Update
from likewise.cluster.watch import Watch, watch_all, watch_quickly
from likewise.errors import ClusterError, LikewiseError
from likewise.events import Notice
from likewise.model.change import Change, SyncReport
from likewise.model.layer import LayerKind
from likewise.model.snapshot import Severity
from likewise.model.verify import Difference
from likewise.stages import Stages, counted

if TYPE_CHECKING:
    from likewise.sync import Prepared, Resolved

_T = TypeVar("_T")


class LiveSync:
    """Keeps one cluster up to date. One sync at a time.

    Parameters
    ----------
    cluster : Replica
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._lock = asyncio.Lock()
        self._former: list[Prepared] = []
        self._prepared_at = time.time()
        self._unchanged: Watch | None = None
        self._looking = threading.Lock()
        self._quick: Watch | None = None
        self._next_look = 0.0
        self.stale: dict[str, Change] = {}
        """What the scheduler uses in its old state, by name."""

    def close(self) -> None:
        """Give former environments back to expiry."""
        while self._former:
            self._former.pop().close()

    async def sync(self, timeout: float) -> SyncReport:
        """See `likewise.cluster.replica.Replica.sync`."""
        async with self._lock:
            started, before = time.perf_counter(), time.time()
            old = self._cluster._prepared
            resolved, new = await _in_thread(lambda: self._prepare(old), lambda made: made[1].close())
            try:
                async with Client(self._cluster, asynchronous=True, set_as_default=False) as client:
                    with self._cluster._stages.stage("sync") as stage:
                        report = await self._update(client, old, new, resolved, timeout)
                        stage.summary = _summary(report)
            except OSError as error:
                raise ClusterError(f"The cluster can't be reached: {error}.", where=str(self._cluster.name)) from error
            finally:
                if self._cluster._prepared is new:
                    self._former.append(old)
                else:
                    new.close()
            self._remember(report)
            self._prepared_at, self._quick, self._unchanged = before, None, None
            return msgspec.structs.replace(report, seconds=time.perf_counter() - started)

    async def _update(
        self, client: Client, old: Prepared, new: Prepared, resolved: Resolved, timeout: float
    ) -> SyncReport:
        former = [prepared.manifest for prepared in self._former]
        with await no_scaling(self._cluster):
            return await Update(self._cluster, client, old, new, resolved, former=former, timeout=timeout).run()

    def _remember(self, report: SyncReport) -> None:
        """What the scheduler has loaded stays loaded, whatever is changed and changed back afterwards."""
        for change in report.scheduler_stale:
            earlier = self.stale.pop(change.name, None)
            if earlier is None or earlier.old != change.new:
                self.stale[change.name] = msgspec.structs.replace(change, old=earlier.old) if earlier else change

    def _prepare(self, old: Prepared) -> tuple[Resolved, Prepared]:
        """Look at the client again, and put what is new into the store. Runs in a thread."""
        from likewise.settings import resolve_settings
        from likewise.sync import publish

        with suppress(LikewiseError):  # what could not be packed then is tried again
            old.finish()
        stages = Stages(self._cluster._reporter)
        resolved = old.resolve_again(stages)
        known = {problem.message for problem in old.problems}
        for problem in resolved.problems:
            if problem.severity is not Severity.NOTE and problem.message not in known:
                self._notice(problem.message, problem.subject, problem.severity.value)
        how: dict[str, Any] = {"settings": resolve_settings(), "store": old.store, "stages": stages}
        new = publish(resolved, old.options, form=old.form, python=old.python, goal=old.goal, **how)
        # The kit that the nodes have goes on starting them; what it lacks they fetch. The report is that of the launch.
        kept = {"kit_id": old.kit_id, "kit_sha256": old.kit_sha256, "script": old.script, "report": old.report}
        return resolved, dataclasses.replace(new, **kept)  # type: ignore[arg-type]

    async def drift(self) -> tuple[Difference, ...]:
        """See `likewise.cluster.replica.Replica.drift`."""
        async with self._lock:
            return await asyncio.get_running_loop().run_in_executor(None, self._drift, self._cluster._prepared)

    def _drift(self, prepared: Prepared) -> tuple[Difference, ...]:
        from likewise.events import Silent
        from likewise.sync import compare

        if self._unchanged is not None and not self._unchanged.changed():
            return ()
        before = time.time()
        now = prepared.resolve_again(Stages(Silent()))
        found = compare(prepared.manifest, now.layers)
        if not found:
            own = (LayerKind.DISTRIBUTION, LayerKind.CODE)
            files = [file.path for layer in now.layers if layer.kind in own for file in layer.files if file.path]
            self._unchanged = watch_all(now.snapshot, files, since=before)
        return found

    def look(self) -> None:
        """Sync when something was touched since the last time; for ``auto_sync``. Waits for a sync that is under way.

        Looks that follow each other closely are left out, so that they never take more than a tenth of the time.

        Raises
        ------
        LikewiseError
            As `sync`.
        """
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            return  # on the event loop, where nothing can be waited for
        with self._looking:
            started = time.monotonic()
            if started < self._next_look:
                return
            prepared = self._cluster._prepared
            if self._quick is None:
                self._quick = watch_quickly(prepared.snapshot, prepared.loose, since=self._prepared_at)
            report = self._cluster.sync() if self._quick.changed() else None
            if report is None or not report.layers:
                self._next_look = time.monotonic() + 10 * (time.monotonic() - started)

    def _notice(self, message: str, subject: str = "", severity: str = "warning") -> None:
        self._cluster._reporter.report(Notice(message=message, subject=subject, severity=severity))


async def _in_thread(work: Callable[[], _T], undo: Callable[[_T], object]) -> _T:
    """The result of `work`; when nobody waits for it any more, `undo` gets it."""
    running = asyncio.get_running_loop().run_in_executor(None, work)

    def forget(done: asyncio.Future[_T]) -> None:
        if not done.cancelled() and done.exception() is None:
            undo(done.result())

    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(forget)
        raise


def _summary(report: SyncReport) -> str:
    parts = [
        f"{len(changes)} {what}"
        for what, changes in (("added", report.added), ("changed", report.changed), ("removed", report.removed))
        if changes
    ]
    parts += [f"{counted(len(report.workers_replaced), 'worker')} replaced"] if report.workers_replaced else []
    return ", ".join(parts) or "nothing changed"
