"""What every cluster that runs in a replica of the client's environment has in common, whoever starts its nodes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, overload

import msgspec
from distributed import Client
from distributed.core import Status

from likewise.arguments import levels, names, source
from likewise.cluster.arrivals import deliveries_from_store
from likewise.cluster.auto import SyncingClient
from likewise.cluster.environment import Environment, environment_of
from likewise.cluster.live import LiveSync
from likewise.cluster.node_side import loaded_in_order
from likewise.cluster.verify import SCHEDULER, ask, client_differences, stale_differences, verify_nodes
from likewise.console.render import ConsoleReporter, default_reporter
from likewise.errors import ClusterError, UsageError, VerifyError
from likewise.events import Reporter
from likewise.model.change import SyncReport
from likewise.model.plan import Plan
from likewise.model.report import Delivery, LaunchReport
from likewise.model.target import Target
from likewise.model.verify import Difference, VerifyReport
from likewise.settings import resolve_settings
from likewise.stages import OpenStage, Stages

if TYPE_CHECKING:
    from likewise.sync import Prepared

_LAST_LOOK = 2.0  # seconds that the end of a cluster waits for what makes the next start quicker


class PackageSync(msgspec.Struct, frozen=True, kw_only=True):
    """The ``package_sync…`` arguments of every cluster.

    Attributes
    ----------
    enabled : bool
        False: plain Dask in the nodes' own prefix.
    strict, ignore, only, level, extras, fail_on
        See `likewise.sync.plan_options`; None: as the settings say.
    goal : Target, Plan or None
        ``package_sync_target``: what the nodes are, where they are not like this machine; see `likewise.sync.prepare`.
    source : str or None
        ``package_sync_source``: who gives nodes what an index offers, too; None: as the settings say.
    auto : bool
        ``auto_sync``: look for changes before work is sent, see `Replica.get_client`.
    """

    enabled: bool = True
    strict: bool | None = None
    ignore: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    level: Mapping[str, str] | None = None
    extras: tuple[str, ...] | None = None
    conda_extras: tuple[str, ...] | None = None
    fail_on: str | None = None
    goal: Target | Plan | None = None
    source: str | None = None
    auto: bool = False

    @classmethod
    def take(cls, arguments: dict[str, Any]) -> PackageSync:
        """Take ``package_sync``, ``package_sync_…`` and ``auto_sync`` out of keyword `arguments`.

        Raises
        ------
        UsageError
            When a single name stands where a list of names is meant, or for a platform that is not known.
        """
        return cls(
            enabled=bool(arguments.pop("package_sync", True)),
            strict=arguments.pop("package_sync_strict", None),
            ignore=names(arguments.pop("package_sync_ignore", None), "package_sync_ignore"),
            only=names(arguments.pop("package_sync_only", None), "package_sync_only"),
            level=levels(arguments.pop("package_sync_level", None), "package_sync_level"),
            extras=names(arguments.pop("package_sync_extras", None), "package_sync_extras"),
            conda_extras=names(arguments.pop("package_sync_conda_extras", None), "package_sync_conda_extras"),
            fail_on=arguments.pop("package_sync_fail_on", None),
            goal=goal(arguments.pop("package_sync_target", None)),
            source=source(arguments.pop("package_sync_source", None), "package_sync_source"),
            auto=bool(arguments.pop("auto_sync", False)),
        )

    @property
    def plan_options(self) -> Mapping[str, Any]:
        """For `likewise.sync.plan_options`."""
        asked = ("strict", "ignore", "only", "level", "extras", "conda_extras", "fail_on")
        return {name: getattr(self, name) for name in asked}


def goal(given: str | Target | Plan | None) -> Target | Plan | None:
    """The value of ``package_sync_target``, where it may be the name of a platform: ``linux-64``.

    Raises
    ------
    UsageError
        For a name that is not known.
    """
    if isinstance(given, str):
        from likewise.sync import target_named

        return target_named(given)
    return given


class Replica:
    """Mixin for a `distributed.SpecCluster` whose nodes run in a replica; it comes first among the base classes.

    `_listen` and `_begin_replica` come before the cluster's own ``__init__``, `_end_replica` when every process has
    ended.
    """

    packs_behind = True
    """Whether nodes may start before every layer is packed."""

    nodes_fetch = False
    """Whether nodes are other machines, which fetch from public indexes by themselves, and ask the client else."""

    name: Any
    status: Status
    scheduler: Any
    _stages: Stages
    _prepared: Prepared | None
    _reporter: Reporter
    _package_sync: PackageSync
    scheduler_info: Mapping[str, Any]
    _processes_by_address: Any
    """A method: the node of each process that is in the cluster now; None: it will say so itself."""

    def _listen(self, reporter: Reporter | None) -> None:
        """Take an id; report to `reporter`, or to the person at the terminal or notebook."""
        self._cluster_id = secrets.token_hex(8)
        self._away: set[str] = set()
        self._reporter = reporter or default_reporter()
        self._own_reporter = reporter is None

    def _begin_replica(self, package_sync: PackageSync, *, prepare: bool, known: bool = True) -> None:
        """Take the arguments. With `prepare` the environment is prepared at once, in the caller's thread, where Ctrl-C
        arrives; else, or when it is not `known` yet what the nodes are, `_prepare_replica` does it."""
        if package_sync.auto and not (package_sync.enabled and prepare):
            raise UsageError(
                "Only a replica can be kept in sync, and only where a call can wait for it.",
                where="auto_sync",
                todo="Leave it out with package_sync=False and with asynchronous=True.",
            )
        self._package_sync = package_sync
        self._prepared = None
        self._live = LiveSync(self)
        if package_sync.enabled and prepare and known:
            self._prepared = self._prepare_environment()

    async def _prepare_replica(self) -> None:
        """Prepare the environment unless it is prepared, in a thread."""
        if not self._package_sync.enabled or self._prepared is not None:
            return
        preparing = asyncio.get_running_loop().run_in_executor(None, self._prepare_environment)
        try:
            self._prepared = await asyncio.shield(preparing)
        except asyncio.CancelledError:
            preparing.add_done_callback(_give_back)
            raise

    def _prepare_environment(self) -> Prepared:
        from likewise.sync import plan_options, prepare  # plain Dask needs none of it

        try:
            options = plan_options(**self._package_sync.plan_options)
            return prepare(
                options,
                reporter=self._reporter,
                behind=self.packs_behind,
                loose=self._shares_store(),
                goal=self._package_sync.goal,
                leave=self.nodes_fetch and self._source() != "client",
            )
        except BaseException:
            self._end_show()
            raise

    def _shares_store(self) -> bool:
        """Whether the nodes' caches are where the store's files can be linked to."""
        return False

    def _end_show(self) -> None:
        """Leave the terminal as it was, where the reporter is our own."""
        if self._own_reporter and isinstance(self._reporter, ConsoleReporter):
            self._reporter.close()

    async def _bring_up(self, stage: OpenStage) -> None:
        await super()._bring_up(stage)  # type: ignore[misc]
        if self._prepared is not None:
            self._prepared.launched()

    async def _close(self) -> None:
        if self.status is Status.running:
            with suppress(Exception):  # whatever is wrong with it, the cluster ends
                await asyncio.wait_for(self._remember(), _LAST_LOOK)
        await super()._close()  # type: ignore[misc]

    async def _remember(self) -> None:
        """Note what a worker has loaded, and in which order: the next launch has it brought in this order."""
        prepared, workers = self._prepared, list(self.scheduler_info["workers"])
        if prepared is None or not prepared.streams or not workers:
            return
        async with Client(self, asynchronous=True, set_as_default=False) as client:
            modules = await ask(client, workers[0], _LAST_LOOK, loaded_in_order)
        if not isinstance(modules, Exception):
            prepared.remember(modules)

    def _end_replica(self) -> None:
        """Give back what was taken. May be called more than once."""
        self._end_show()
        self._live.close()
        if self._prepared is not None:
            self._prepared.close()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Remember by name which workers the scheduler has lost: their nannies may be starting them again."""
        if op == "remove":
            self._away.add(str(self.scheduler_info["workers"][msg]["name"]))
        elif op == "add":
            self._away.difference_update(str(worker["name"]) for worker in msg["workers"].values())
        super()._update_worker_status(op, msg)  # type: ignore[misc]

    async def _offer(self, prepared: Prepared) -> None:
        """Let nodes that can't read the store have the layers of `prepared`, from now on the current environment."""

    def _delta_sources(self) -> dict[str, str]:
        """Where nodes find layers: options of ``likewise.node delta``, ``store`` or ``hub``."""
        assert self._prepared is not None
        return {"store": str(self._prepared.store.root)}

    @property
    def environment(self) -> Environment | None:
        """What the nodes run: its id and distributions. None with ``package_sync=False``."""
        return environment_of(self._prepared.manifest) if self._prepared else None

    @property
    def report(self) -> LaunchReport:
        """What each stage of the launch did, how long it took, and where each layer came from, as far as it has."""
        prepared = self._prepared.report.stages if self._prepared else ()
        return LaunchReport(stages=(*prepared, *self._stages.launch_report().stages), layers=self._deliveries())

    def _deliveries(self) -> tuple[Delivery, ...]:
        """Where the layers came from; where nodes read the store, from there."""
        return deliveries_from_store(self._prepared.manifest) if self._prepared is not None else ()

    def _source(self) -> str:
        """Who gives nodes what an index offers, too."""
        return self._package_sync.source or resolve_settings().source

    def verify(self, *, timeout: float = 600, raise_on_difference: bool = False) -> VerifyReport:
        """Check that every node runs exactly the manifest, and that the manifest is still your environment.

        Every file on every node is read. Computations go on meanwhile.

        Parameters
        ----------
        timeout : float
            Seconds that each node has for its report.
        raise_on_difference : bool
            Whether a difference is an error.

        Returns
        -------
        VerifyReport
            Awaitable in an asynchronous cluster.

        Raises
        ------
        UsageError
            When nothing was replicated (``package_sync=False``).
        ClusterError
            When the cluster is closed, or has lost its scheduler.
        VerifyError
            With `raise_on_difference`, when anything differs.
        """
        self._require_replica("verify")
        return self.sync(self._verify, timeout, raise_on_difference)  # type: ignore[no-any-return]

    def _require_replica(self, what: str) -> None:
        if not self._package_sync.enabled:
            raise UsageError(
                f"There is no replica to {what}: this cluster runs in the nodes' own prefix.",
                where=str(self.name),
                todo="Start it without package_sync=False.",
            )
        if self.status is not Status.running or self.scheduler.status is not Status.running:
            raise ClusterError("The cluster does not run.", where=str(self.name), todo="Start a new one.")

    @overload
    def sync(self, *, timeout: float = 600) -> SyncReport: ...

    @overload
    def sync(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...

    def sync(self, func: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        """Bring what changed in your environment to the running cluster: after ``pip install``, or an edited module.

        Only layers that changed are shipped. Running workers take on what was added, where they can't tell it from
        having been there from the start; anything else starts new workers, and the old ones end what they have begun,
        hand over their data and close. Client, scheduler and results stay.

        With a function this is Dask's own ``sync``, which runs it on the event loop.

        Parameters
        ----------
        timeout : float, default 600
            Seconds that new workers have to join, and then tasks that run on old workers have to end: those that take
            longer begin anew on the new ones.

        Returns
        -------
        SyncReport
            Awaitable in an asynchronous cluster.

        Raises
        ------
        UsageError
            When nothing was replicated (``package_sync=False``).
        ClusterError
            When the cluster does not run; when something changed that client, scheduler and workers themselves run on
            (Dask, Python); when workers hold actors, or data that can't be moved; when new workers don't start.
        LikewiseError
            Anything else that goes wrong while the environment is prepared. The cluster goes on as it was.
        """
        dask_sync = super().sync  # type: ignore[misc]
        if func is not None:
            return dask_sync(func, *args, **kwargs)
        self._require_replica("sync")
        return dask_sync(self._live.sync, kwargs.pop("timeout", 600.0), **kwargs)

    def drift(self) -> tuple[Difference, ...]:
        """How your environment differs from what the cluster runs: what `sync` would bring to it.

        Where nothing was touched since the last time, that takes a few milliseconds.

        Returns
        -------
        tuple of Difference
            One for each distribution or code root. Awaitable in an asynchronous cluster.

        Raises
        ------
        UsageError, ClusterError
            As `sync`.
        """
        self._require_replica("compare")
        return self.sync(self._live.drift)  # type: ignore[no-any-return]

    def get_client(self) -> Client:
        """The client of this cluster. With ``auto_sync=True`` it looks for changes before it sends work.

        What an installation touches, loose modules and editables are looked at before each `submit`, `map`, `compute`,
        `persist` and `get`; when anything was touched, `sync` comes first, and its errors are raised there.
        """
        if not self._package_sync.auto:
            return super().get_client()  # type: ignore[misc]
        with suppress(ValueError):
            current = Client.current()
            if isinstance(current, SyncingClient) and current.cluster is self:
                return current
        return SyncingClient(self)

    async def _verify(self, timeout: float, raise_on_difference: bool) -> VerifyReport:
        assert self._prepared is not None
        looking = asyncio.get_running_loop().run_in_executor(None, client_differences, self._prepared.drift)
        try:
            async with Client(self, asynchronous=True, set_as_default=False) as client:
                nodes = self._processes_by_address()
                report = await verify_nodes(client, nodes, self._prepared.manifest, timeout=timeout)
        except OSError as error:
            raise ClusterError(f"The scheduler can't be reached: {error}.", where=str(self.name)) from error
        finally:
            differences = await looking
        differences += stale_differences(self._live.stale.values(), nodes.get(SCHEDULER) or SCHEDULER)
        report = msgspec.structs.replace(report, differences=(*report.differences, *differences))
        if raise_on_difference and not report.ok:
            raise VerifyError(
                f"The cluster differs from its manifest in {len(report.differences)} places.",
                where=str(self.name),
                todo="Look at cluster.verify().differences, and start the cluster again.",
                details={"differences": msgspec.to_builtins(report.differences)},
            )
        return report


def _give_back(preparing: asyncio.Future[Prepared]) -> None:
    if not preparing.cancelled() and preparing.exception() is None:
        preparing.result().close()
