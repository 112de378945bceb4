"""What all clusters of a batch system have in common: the scheduler in the client, workers as jobs, in a replica."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dask.config
import msgspec
from dask_jobqueue.core import JobQueueCluster
from distributed.comm.addressing import get_address_host
from distributed.core import Status
from distributed.security import Security

from likewise.cluster.certificates import make_security
from likewise.cluster.commands import client_environ, require_tls, split_preloads
from likewise.cluster.environ import dask_environ, tls_environ
from likewise.cluster.jobqueue.folder import JobFolder
from likewise.cluster.jobqueue.hub import LocalHub
from likewise.cluster.jobqueue.script import command_line, environ_text, merge_directives, prologue_line, python_command
from likewise.cluster.options import OWN_CONFIG
from likewise.cluster.process import failure_of
from likewise.cluster.replace import addresses_of, members
from likewise.cluster.replica import PackageSync, Replica
from likewise.cluster.scheduler_side import install
from likewise.errors import ClusterError, LikewiseError, UsageError
from likewise.events import Notice, Reporter
from likewise.settings import resolve_settings
from likewise.stages import Stages

if TYPE_CHECKING:
    from likewise.sync import Prepared

logger = logging.getLogger("likewise.cluster")

DEATH_TIMEOUT = 300
"""Seconds that a worker looks for its scheduler; dask-jobqueue's 60 are short where hundreds start at once."""

_CONFIGURATION = frozenset(dask_environ(""))
_LOOK = 1.0  # seconds between looks for what failed jobs have to tell
_LOOK_AT_QUEUE = 5.0  # seconds between looks into the queue, while there are jobs whose worker has not joined
_CLUSTER_ARGUMENTS = frozenset(inspect.signature(JobQueueCluster.__init__).parameters)
_PENDING = "tls://<scheduler>"


class ReplicaQueue(Replica):
    """Mixin for `dask_jobqueue.JobQueueCluster`. See `describe` for its parameters."""

    packs_behind = False  # the hub serves what the store has

    added_directives: ClassVar[Mapping[str, str]] = {}
    """Directives that every job gets unless the user sets them: flag to value."""

    job_cls: ClassVar[Any]
    workers: dict[Any, Any]
    worker_spec: dict[Any, Any]
    new_spec: dict[str, Any]
    scheduler_comm: Any
    _dummy_job: Any
    _job_kwargs: dict[str, Any]
    _name: str
    _i: int

    @staticmethod
    def describe(system: str, base: type) -> str:
        """The documentation of a class."""
        return f"""A Dask cluster whose workers are {system} jobs and run in a replica of your environment.

    The scheduler lives in this process. The nodes need no Python.

    Parameters
    ----------
    n_workers : int
        Workers to ask for at once; `scale` and `adapt` ask for more.
    shared_folder : path, optional
        A folder that this process and the nodes see under the same name. Default: in likewise's cache folder. Nodes
        that can't read the store beside it get their layers over the cluster's own connections.
    package_sync, package_sync_strict, package_sync_ignore, package_sync_only, package_sync_level, \
package_sync_extras, package_sync_conda_extras, package_sync_fail_on
        As in `likewise.Cluster`.
    package_sync_target : str, Target or Plan, optional
        As in `likewise.SSHCluster`.
    package_sync_source : str, optional
        As in `likewise.SSHCluster`. What is here, jobs get from here.
    env : mapping of str to str, optional
        Environment variables for the workers.
    reporter : Reporter, optional
        Listens to the progress of the launch.
    security : distributed.Security, optional
        Default: certificates of this cluster. TLS is always on; no key is on a command line or in a job script.
    **kwargs
        As in `{base.__module__.partition(".")[0]}.{base.__name__}`, but for ``python`` and ``shared_temp_directory``.
    """

    def __init__(
        self,
        n_workers: int = 0,
        job_cls: Any = None,
        *,
        shared_folder: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        reporter: Reporter | None = None,
        security: Security | bool | None = None,
        asynchronous: bool = False,
        **kwargs: Any,
    ) -> None:
        sync = PackageSync.take(kwargs)
        if job_cls is not None:
            raise UsageError("The class of the jobs can't be chosen.", where="job_cls", todo="Leave it out.")
        self._listen(reporter)
        self._stages = Stages(self._reporter)
        self._folder: JobFolder | None = None
        self._hub: LocalHub | None = None
        self._hub_address = ""
        self._watching: asyncio.Task[None] | None = None
        self._wanted = n_workers
        self._joined: set[str] = set()
        self._lost: set[Any] = set()
        self._cluster_security = make_security() if security in (None, True) else require_tls(security)
        self._environ = self._node_environ(env, sync.enabled)
        self._shared = _shared_folder(shared_folder)
        kwargs = self._with_ours(kwargs, sync.enabled)
        self._check_job(kwargs)
        self._begin_replica(sync, prepare=not asynchronous)
        try:
            super().__init__(  # type: ignore[call-arg]
                security=self._cluster_security, asynchronous=asynchronous, **kwargs
            )
        except BaseException:  # Ctrl-C, too
            self._give_back()
            raise

    # Arguments

    def _node_environ(self, env: Mapping[str, str] | None, replica: bool) -> dict[str, str]:
        """The workers' variables: nothing of this machine's own, which is another one than theirs."""
        environ, self._config = client_environ({}, env, replica=replica, notice=self._note)
        environ |= tls_environ(self._cluster_security, "worker")
        environ_text(environ)  # refuses what a shell can't take, before anything is made
        return environ

    def _with_ours(self, kwargs: dict[str, Any], replica: bool) -> dict[str, Any]:
        """The arguments for dask-jobqueue, with what makes a worker one of ours."""
        section = kwargs.get("config_name") or self.job_cls.default_config_name()
        if kwargs.get("shared_temp_directory"):
            raise UsageError(
                "Keys have a place of their own.", where="shared_temp_directory", todo="Use shared_folder."
            )
        folder = self._shared / f"likewise-{self._cluster_id}"
        ours: dict[str, Any] = {
            "protocol": "tls://",
            "death_timeout": _given(kwargs, section, "death-timeout", default=60) or DEATH_TIMEOUT,
            "job_script_prologue": [
                *_given(kwargs, section, "job-script-prologue", "env-extra"),
                prologue_line(str(folder / "environ")),
            ],
            "note_script": str(folder / "note.sh"),
        }
        if self.added_directives:
            given = _given(kwargs, section, "job-extra-directives", "job-extra")
            ours["job_extra_directives"] = merge_directives(given, self.added_directives)
        if replica:
            if kwargs.get("python") or dask.config.get(f"jobqueue.{section}.python", None):
                raise UsageError(
                    "The Python of the workers is the replica's.",
                    where="python",
                    todo="Leave it out (also in jobqueue.yaml), or use package_sync=False.",
                )
            preloads = split_preloads(self._config, {}, {})
            words = [word for name in (OWN_CONFIG, *preloads["worker"]) for word in ("--preload", name)]
            words += [word for name in preloads["nanny"] for word in ("--preload-nanny", name)]
            extra = _given(kwargs, section, "worker-extra-args", "extra")
            ours["worker_extra_args"] = [*extra, *map(_word, words)]
            ours["python"] = python_command(["sh", str(folder / "bootstrap.sh"), "--"])  # until it is prepared
        return {**kwargs, **ours}

    def _check_job(self, kwargs: Mapping[str, Any]) -> None:
        """Have dask-jobqueue look at the arguments of a job before anything is scanned."""
        arguments = {k: v for k, v in kwargs.items() if k not in _CLUSTER_ARGUMENTS}
        try:
            self.job_cls(_PENDING, name="name", config_name=kwargs.get("config_name"), **arguments)
        except (TypeError, ValueError) as error:
            text = str(error).replace(f"{self.job_cls.__name__}.__init__() ", "")
            raise UsageError(f"{text}.", where=type(self).__name__, todo="See its documentation.") from error

    def _get_worker_security(self, security: Any) -> None:
        """Nothing: dask-jobqueue would put the files of keys on the command line."""

    # Starting

    async def _start(self) -> None:
        if self.status != Status.created:
            await super()._start()  # type: ignore[misc]
            return
        try:
            await self._prepare_replica()
            with self._stages.stage("start") as stage:
                self._folder = JobFolder(self._shared, self._cluster_id)
                self._folder.write("environ", environ_text(self._environ).encode())
                await self._start_scheduler()
                if self._prepared is not None:
                    await self._start_hub(self._prepared, self._folder)
                stage.summary = "scheduler"
        except BaseException:
            await self._close()
            raise
        self._watching = asyncio.ensure_future(self._watch_jobs())
        if self._wanted:
            jobs = math.ceil(self._wanted / self._dummy_job.worker_processes)
            while len(self.worker_spec) < jobs:
                self.worker_spec.update(self.new_worker_spec())

    async def _start_scheduler(self) -> None:
        try:
            await super()._start()  # type: ignore[misc]
        except RuntimeError as error:  # SpecCluster puts every error into one
            if isinstance(error.__cause__, LikewiseError):
                raise error.__cause__ from None
            raise

    async def _start_hub(self, prepared: Prepared, folder: JobFolder) -> None:
        """Serve layers to nodes that can't read the store, and tell all nodes what to run."""
        host = get_address_host(self.scheduler.address)
        configuration = {k: v for k, v in self._environ.items() if k in _CONFIGURATION}
        environ = {**configuration, **tls_environ(self._cluster_security, "scheduler")}
        self._hub = LocalHub(self._cluster_id, host, prepared.store.root, folder.path, environ)
        await self._hub
        hub = await self._hub.listening()
        install(self.scheduler, manifest=prepared.manifest.id, cluster=self._cluster_id, hub=hub)
        self._hub_address = hub
        await self._offer(prepared)

    async def _offer(self, prepared: Prepared) -> None:
        """Let jobs that are submitted from now on start in `prepared`. The hub finds its layers in the store."""
        assert self._folder is not None
        launch, bring = prepared.launch(Path("auto")), self._folder.bring
        kit = await asyncio.to_thread(bring, f"kit-{launch.kit_id[:16]}", Path(launch.kit))
        ours = msgspec.structs.replace(
            launch,
            script=str(bring("bootstrap.sh", Path(launch.script))),
            kit=str(kit),
            cluster=self._cluster_id,
            hub=self._hub_address,
            ask=True,
        )
        self._job_kwargs["python"] = python_command(ours.argv())  # the very mapping that every worker's spec holds

    def _delta_sources(self) -> dict[str, str]:
        return {**super()._delta_sources(), "hub": self._hub_address}

    def new_worker_spec(self) -> dict[Any, Any]:
        """Name and spec of the next job. A name is never used twice, so logs and notes stay unambiguous."""
        self._i += 1
        return {self._new_worker_name(self._i - 1): self.new_spec}  # type: ignore[attr-defined]

    # Jobs come and go

    async def _correct_state_internal(self) -> None:
        await self._retire(set(self.workers) - set(self.worker_spec))
        try:
            await super()._correct_state_internal()  # type: ignore[misc]
        except LikewiseError as error:
            for name in [name for name, job in self.workers.items() if job.status != Status.running]:
                del self.workers[name]  # so that the next change of scale tries again
            self._warn(error)
            raise

    async def _retire(self, names: Iterable[Any]) -> None:
        """Move the data off the workers of the jobs `names`.

        SpecCluster asks the scheduler to retire them by name where it expects addresses, which does nothing.
        """
        if self.status is not Status.running:
            return
        addresses = addresses_of(self, names)
        if addresses:
            with suppress(OSError):
                await self.scheduler_comm.retire_workers(workers=addresses, remove=True, close_workers=True)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        super()._update_worker_status(op, msg)
        self._joined.update(str(info["name"]) for info in self.scheduler_info["workers"].values())

    async def _watch_jobs(self) -> None:
        """Tell of jobs that failed. A job that waits in the queue, for however long, is no failure."""
        assert self._folder is not None
        hub, look_at = self._hub, time.monotonic() + _LOOK_AT_QUEUE
        while True:
            await asyncio.sleep(_LOOK)
            if hub is not None and hub.exited.is_set():
                self._warn(hub.failure("ended"))
                hub = None
            for note in await asyncio.to_thread(self._folder.take_notes):
                self._job_failed(*note)
            if time.monotonic() > look_at:
                await self._find_lost_jobs()
                look_at = time.monotonic() + _LOOK_AT_QUEUE

    async def _find_lost_jobs(self) -> None:
        """Tell of jobs that are over without a worker and without a note: killed, or where the folder is not seen."""
        waiting = {n: job for n, job in self.workers.items() if job.job_id and not members(self, n) & self._joined}
        queue = await self.job_cls.in_queue() if waiting else None
        lost = {n: job for n, job in waiting.items() if queue is not None and job.job_id not in queue}
        for name in self._lost & lost.keys() & self.workers.keys():  # for the second time: a note may be on its way
            del self.workers[name]
            self._warn(
                ClusterError(
                    f"The job {lost[name].job_id} ({name}) is over, and its worker has not joined.",
                    where=type(self).__name__,
                    todo="Look at its output. Was it killed, or can its node not see shared_folder?",
                )
            )
        self._lost = set(lost)

    def _job_failed(self, note: str, code: int, host: str, said: list[str]) -> None:
        found = next(((n, job) for n, job in self.workers.items() if job.note_name == note), None)
        if found is None or self.status is not Status.running:  # it was cancelled
            return
        name, job = found
        what = "ended" if members(self, name) & self._joined else "ended before its worker joined"
        del self.workers[name]
        self._warn(failure_of(f"job {job.job_id} ({name})", host, what, code, said))

    def _warn(self, error: LikewiseError) -> None:
        logger.warning("%s", error)
        self._reporter.report(Notice(message=f"{error.what} {error.todo}".strip(), subject=error.where))

    def _note(self, text: str) -> None:
        self._reporter.report(Notice(message=text, severity="note"))

    def _processes_by_address(self) -> dict[str, str | None]:
        """Every worker; what its node is called, it says itself. The scheduler is in this process, and no replica."""
        return dict.fromkeys(self.scheduler_info["workers"])

    # Ending

    async def _close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        try:
            await super()._close()
        finally:
            if self._hub is not None:
                await self._hub.close()
            self._give_back()

    def _give_back(self) -> None:
        if self._folder is not None:
            self._folder.remove()
        self._end_replica()

    # Two clusters may bear the same name; Dask would take them for the same.

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def _given(kwargs: dict[str, Any], section: str, *names: str, default: Any = None) -> Any:
    """What the user says of one thing: by argument, else in Dask's configuration, under its new or its old name.

    The argument is taken out of `kwargs`. `default` is what dask-jobqueue's own configuration says.
    """
    for name in names:
        value = kwargs.pop(name.replace("-", "_"), None)
        if value is not None:
            return value
        value = dask.config.get(f"jobqueue.{section}.{name}", None)
        if value not in (None, [], default):
            return value
    return [] if default is None else None


def _shared_folder(given: str | os.PathLike[str] | None) -> Path:
    folder = Path(given).expanduser().absolute() if given else resolve_settings().cache / "jobs"
    command_line([str(folder)])  # refuses what a job script can't take
    return folder


def _word(word: str) -> str:
    return command_line([word], where="distributed.worker.preload")
