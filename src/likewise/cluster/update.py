"""One update of a running cluster from one manifest to the next: who adopts what is new, and who is replaced.

Everything that can fail on a node comes before anything is changed there: deltas are made and new workers have joined
before the first process adopts anything and the first old worker is asked to end. Whatever is left behind all the same
(a worker died, joined meanwhile, or did not answer) is found in another round, or by the next sync.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from distributed import Client

from likewise.cluster.contents import contents_of, requirements, standard_modules, tops_before
from likewise.cluster.node_side import actor_holders, adopt_delta, make_delta, situation
from likewise.cluster.replace import addresses_of, away, retire, returned, specs_of, start_successors
from likewise.cluster.verify import SCHEDULER, ask
from likewise.errors import ClusterError, LikewiseError, LikewiseWarning, NodeError
from likewise.events import Notice
from likewise.model.change import Change, Changes, Loaded, Missed, SyncReport, classify, scheduler_changes
from likewise.model.digest import Digest
from likewise.model.layer import LayerKind
from likewise.model.manifest import Manifest
from likewise.node.adopt import DIGITS

if TYPE_CHECKING:
    from likewise.sync import Prepared, Resolved

_ANSWER = 30.0  # seconds in which a process that is not stuck answers a simple question
Place = tuple[str, str, str]

_ROUNDS = 4  # workers may join, or die and come back, while others are changed


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler, worker or nanny, and what it said of itself; `problem` is why it did not.

    Attributes
    ----------
    address : str
        Of the worker, for a nanny, too.
    node : str
    manifest : str
        First digits of the manifest that it has by now; "" in no replica.
    """

    address: str
    node: str
    nanny: bool = False
    manifest: str = ""
    prefix: str = ""
    missed: Missed = Missed()
    loaded: Loaded = Loaded()
    problem: str = ""

    @property
    def place(self) -> Place:
        """Those at one place share a delta."""
        return self.node, self.prefix, self.manifest


class Update:
    """One update.

    Parameters
    ----------
    cluster : Replica
    client : distributed.Client
        Asynchronous, connected.
    old, new : Prepared
        The environment of the cluster, and of the client now.
    former : sequence of Manifest
        What the cluster ran before `old`; a process may have been left there.
    resolved : Resolved
        What `new` was made from.
    timeout : float
        Seconds for each of: making a delta, starting new workers, ending running tasks.
    """

    def __init__(
        self,
        cluster: Any,
        client: Client,
        old: Prepared,
        new: Prepared,
        resolved: Resolved,
        *,
        former: Sequence[Manifest],
        timeout: float,
    ) -> None:
        self._cluster, self._client, self._timeout = cluster, client, timeout
        self._old, self._new, self._resolved = old, new, resolved
        self._base, self._current = old.manifest.id[:DIGITS], new.manifest.id[:DIGITS]
        self._history = {manifest.id[:DIGITS]: manifest for manifest in (*former, old.manifest)}
        self._contents = contents_of(resolved.layers, new.manifest.python)
        self._committed = self._base == self._current
        self._begun = False
        self._passed_over: set[str] = set()  # workers that are not ours to replace
        self._refused: set[str] = set()  # workers that could not adopt
        self._replaced: list[str] = []
        self._interrupted: list[str] = []

    async def run(self) -> SyncReport:
        """Bring every process to the new manifest.

        Raises
        ------
        LikewiseError
            What could not be done. Another sync does it, once the reason is gone.
        """
        processes = await self._look()
        changes = self._classify(self._old.manifest, processes)
        self._refuse(changes)
        forget, stale = self._scheduler_changes(processes)
        if not self._committed:
            await self._cluster._offer(self._new)
        try:
            for _ in range(_ROUNDS):
                if self._committed and not self._behind(processes):
                    break
                await self._round(processes, changes.can_be_adopted, forget)
                processes = await self._look()
            else:
                raise self._unfinished(processes)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._roll_back()))
            raise
        self._tell(stale)
        return SyncReport(
            manifest=self._new.manifest.id,
            added=changes.added,
            changed=changes.changed,
            removed=changes.removed,
            **self._shipped(),
            workers_replaced=tuple(self._replaced),
            interrupted=tuple(self._interrupted),
            scheduler_stale=stale,
        )

    # What there is to do

    async def _look(self) -> list[Process]:
        """Ask every process how it is, those of workers, too, that died and are just coming back."""
        for _ in range(_ROUNDS):
            await returned(self._cluster, _ANSWER)
            processes = await self._ask_all()
            if not away(self._cluster):
                break
        return processes

    async def _ask_all(self) -> list[Process]:
        nodes = self._cluster._processes_by_address()
        workers = self._cluster.scheduler_info["workers"]
        whom = [(address, False) for address in nodes]
        whom += [(address, True) for address in nodes if workers.get(address, {}).get("nanny")]
        answers = await asyncio.gather(*(ask(self._client, a, _ANSWER, situation, nanny=n) for a, n in whom))
        there = self._cluster.scheduler_info["workers"]
        return [
            _process(address, nanny, nodes[address], answer)
            for (address, nanny), answer in zip(whom, answers, strict=True)
            if address == SCHEDULER or address in there or not isinstance(answer, Exception)  # else it is gone
        ]

    def _classify(self, base: Manifest, processes: Sequence[Process]) -> Changes:
        missed = Missed(
            modules=frozenset[str]().union(*(p.missed.modules for p in processes)),
            distributions=frozenset[str]().union(*(p.missed.distributions for p in processes)),
        )
        standard = standard_modules(self._resolved.layers, base.python)
        return classify(base, self._new.manifest, self._contents, missed=missed, standard=standard)

    def _refuse(self, changes: Changes) -> None:
        """A cluster can't exchange what it runs on itself.

        Raises
        ------
        ClusterError
        """
        fixed = {d.name for plan in (self._old.plan, self._new.plan) for d in plan.decisions if d.critical}
        fixed |= {ref.name for ref in self._old.manifest.layers if ref.kind is LayerKind.INTERPRETER}
        refused = [change for change in (*changes.changed, *changes.removed) if change.name in fixed]
        if refused:
            listed = ", ".join(f"{c.name} ({c.old} → {c.new or 'removed'})" for c in refused)
            raise ClusterError(
                f"Client, scheduler and workers themselves run on what has changed: {listed}.",
                where=str(self._cluster.name),
                todo="Start the cluster again, or install what was there before.",
                details={"changes": msgspec.to_builtins(refused)},
            )

    def _scheduler_changes(self, processes: Sequence[Process]) -> tuple[frozenset[str] | None, tuple[Change, ...]]:
        """What the scheduler has to forget (None: there is nothing but additions), and what it can't take on."""
        scheduler = next((p for p in processes if p.address == SCHEDULER), None)
        if scheduler is None or scheduler.manifest not in self._history:
            return None, ()
        changes = self._classify(self._history[scheduler.manifest], [scheduler])
        tops = tops_before(self._old.replica, self._contents.values())
        required = requirements(self._old.replica)
        forget, stale = scheduler_changes(
            changes, scheduler.loaded, tops=tops, fixed=self._old.plan.kit, requires=required
        )
        return None if changes.can_be_adopted else forget, stale

    def _behind(self, processes: Iterable[Process]) -> set[str]:
        """Addresses where a process is not at the new manifest."""
        behind = {p.address for p in processes if p.manifest != self._current} - self._passed_over
        return {address for address in behind if address != SCHEDULER or self._is_ours(address, processes)}

    @staticmethod
    def _is_ours(address: str, processes: Iterable[Process]) -> bool:
        return any(p.address == address and p.manifest for p in processes)

    def _unfinished(self, processes: Sequence[Process]) -> ClusterError:
        behind = sorted(self._behind(processes))
        return ClusterError(
            f"{len(behind)} processes are still in their old environment.",
            where=", ".join(behind),
            todo="Call sync() again.",
            details={"problems": {p.address: p.problem for p in processes if p.address in behind and p.problem}},
        )

    # Doing it

    async def _round(self, processes: Sequence[Process], can_be_adopted: bool, forget: Collection[str] | None) -> None:
        behind = self._behind(processes)
        adopting = [p for p in processes if p.address in self._adopters(processes, behind, can_be_adopted)]
        folders = await self._make_deltas(adopting)
        adopting = [p for p in adopting if p.place in folders]
        names = await self._to_replace(behind - {p.address for p in adopting})
        await self._commit()
        if names:
            await start_successors(self._cluster, names, self._timeout)
            self._begun = True
        await self._adopt(adopting, folders, forget)
        if names:
            self._replaced += map(str, names)
            self._interrupted += await retire(self._cluster, self._client, names, self._timeout)

    def _adopters(self, processes: Sequence[Process], behind: Collection[str], can_be_adopted: bool) -> set[str]:
        """Where all processes can adopt a delta: they are at its base. Schedulers in any case."""
        elsewhere = {p.address for p in processes if p.manifest not in (self._base, self._current)}
        able = set(behind) - elsewhere - self._refused if can_be_adopted else set()
        return able | {p.address for p in processes if p.address == SCHEDULER and p.manifest in self._history}

    async def _make_deltas(self, adopting: Sequence[Process]) -> dict[Place, str]:
        """Have each node make the delta; where it lies, for those that could.

        Raises
        ------
        NodeError
            When the scheduler's node can't.
        """
        places: dict[Place, Process] = {}
        for process in adopting:
            if not process.nanny:
                places.setdefault(process.place, process)
        options = {
            "cluster": self._cluster._cluster_id,
            "manifest": self._new.manifest.id,
            **self._cluster._delta_sources(),
        }
        made = await asyncio.gather(*(self._make_delta(process, options) for process in places.values()))
        folders = {}
        for (place, process), answer in zip(places.items(), made, strict=True):
            code, out, said = answer
            if code == 0:
                folders[place] = out.decode().strip()
                continue
            last = said.strip().splitlines()[-1].removeprefix("likewise: ") if said.strip() else f"exit code {code}"
            scheduler = next((p for p in adopting if p.address == SCHEDULER), None)
            if scheduler is not None and scheduler.place == place:
                raise NodeError(f"What is new can't be brought to the scheduler: {last}", where=process.node)
            self._notice(f"What was added can't be laid beside the prefix, so new workers start: {last}", process.node)
        return folders

    async def _make_delta(self, process: Process, options: Mapping[str, str]) -> tuple[int, bytes, str]:
        options = {**options, "base": self._history[process.manifest].id}
        allowed = self._timeout + _ANSWER
        answer = await ask(self._client, process.address, allowed, make_delta, options, self._timeout)
        return (1, b"", str(answer)) if isinstance(answer, Exception) else answer

    async def _to_replace(self, addresses: Collection[str]) -> list[Any]:
        """The specs of the workers at `addresses`.

        Raises
        ------
        ClusterError
            When one of them holds actors.
        """
        addresses = set(addresses) - {SCHEDULER}
        names = specs_of(self._cluster, addresses)
        strangers = addresses - set(addresses_of(self._cluster, names))
        for address in sorted(strangers & self._cluster.scheduler_info["workers"].keys()):
            self._notice("This worker was not started by the cluster, and stays in its old environment.", address)
        self._passed_over |= strangers
        holders = set(await self._client.run_on_scheduler(actor_holders)) if names else set()
        stuck = sorted(holders & set(addresses_of(self._cluster, names)))
        if stuck:
            raise ClusterError(
                "Workers have to be replaced, and they hold actors, which can't be moved.",
                where=", ".join(stuck),
                todo="Delete the actors and call sync() again, or start the cluster again.",
                details={"workers": stuck},
            )
        return names

    async def _commit(self) -> None:
        """From now on, whoever joins runs the new manifest."""
        if not self._committed:
            self._cluster._prepared = self._new
            self._committed = True
            await self._client.scheduler.likewise_set_current(manifest=self._new.manifest.id)

    async def _roll_back(self) -> None:
        """Stay with the old manifest, as long as nobody runs anything of the new one."""
        if self._begun or self._base == self._current:
            return
        self._cluster._prepared = self._old
        try:
            await self._cluster._offer(self._old)
            await self._client.scheduler.likewise_set_current(manifest=self._old.manifest.id)
        except (OSError, LikewiseError) as error:  # what went wrong before is what the user should see
            self._notice(f"The cluster could not be told that nothing has changed: {error}")

    async def _adopt(
        self, adopting: Sequence[Process], folders: Mapping[Place, str], forget: Collection[str] | None
    ) -> None:
        """Nannies first: what they start from then on has it, too. Then workers, the scheduler at last."""
        ordered = (
            [p for p in adopting if p.nanny],
            [p for p in adopting if not p.nanny and p.address != SCHEDULER],
            [p for p in adopting if p.address == SCHEDULER],
        )
        for group in ordered:
            self._begun = self._begun or bool(group)
            answers = await asyncio.gather(*(self._adopt_one(p, folders[p.place], forget) for p in group))
            for process, answer in zip(group, answers, strict=True):
                if answer != self._current and process.address != SCHEDULER:
                    self._refused.add(process.address)

    async def _adopt_one(self, process: Process, folder: str, forget: Collection[str] | None) -> Any:
        instead = tuple(forget) if forget is not None and process.address == SCHEDULER else None
        cluster = self._cluster._cluster_id
        return await ask(
            self._client, process.address, _ANSWER, adopt_delta, folder, cluster, instead, nanny=process.nanny
        )

    # Telling

    def _shipped(self) -> dict[str, Any]:
        new = set(self._new.manifest.digests()) - set(self._old.manifest.digests())
        if not self._replaced:
            new -= _for_prefixes(self._new.manifest)
        size = sum(self._new.form.size(digest) for digest in new)
        names = [ref.name for ref in self._new.manifest.layers if not new.isdisjoint((ref.digest, ref.bytecode))]
        return {"layers": tuple(dict.fromkeys(names)), "shipped_bytes": size}

    def _tell(self, stale: Sequence[Change]) -> None:
        if stale:
            listed = ", ".join(f"{change.name} {change.old}".strip() for change in stale)
            text = f"The scheduler goes on with {listed}, which it has loaded; start the cluster again to change that."
            warnings.warn(text, LikewiseWarning, stacklevel=2)
            self._notice(text, "scheduler")

    def _notice(self, message: str, subject: str = "") -> None:
        self._cluster._reporter.report(Notice(message=message, subject=subject))


def _for_prefixes(manifest: Manifest) -> set[Digest | None]:
    """What only who starts in the new prefix needs: the outline, and conda's records."""
    return {manifest.outline, *(ref.digest for ref in manifest.layers if ref.kind is LayerKind.RECORDS)}


def _process(address: str, nanny: bool, node: str | None, answer: Any) -> Process:
    if isinstance(answer, Exception):
        problem = f"{type(answer).__name__}: {answer}"
        return Process(address=address, nanny=nanny, node=node or address, problem=problem)
    return Process(
        address=address,
        nanny=nanny,
        node=node or answer["host"],
        manifest=answer["manifest"],
        prefix=answer["prefix"],
        missed=Missed(modules=frozenset(answer["missed"]), distributions=frozenset(answer["missed_distributions"])),
        loaded=Loaded(modules=frozenset(answer["loaded"]), compiled=frozenset(answer["compiled"])),
    )
