"""An environment that is ready to be launched."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from likewise.events import Silent
from likewise.forms import Form
from likewise.layers.order import Order
from likewise.model.digest import Digest
from likewise.model.keys import layer_key
from likewise.model.manifest import Manifest
from likewise.model.offer import Offer
from likewise.model.plan import Plan
from likewise.model.report import LaunchReport
from likewise.model.snapshot import Problem, Snapshot
from likewise.model.target import Target
from likewise.model.verify import Difference
from likewise.node.command import Launch
from likewise.packing import Packing
from likewise.planner.plans import PlanOptions
from likewise.resolving import Resolved, compare, resolve
from likewise.settings import resolve_settings
from likewise.stages import Stages
from likewise.store.local import LocalStore
from likewise.supply import Later


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An environment whose layers, manifest and kit are in the store, leased until `close`."""

    snapshot: Snapshot  # the client
    replica: Snapshot  # what the nodes get; of the same platform: the client
    plan: Plan
    manifest: Manifest
    problems: tuple[Problem, ...]
    kit_id: Digest
    kit_sha256: Digest
    script: Path
    store: LocalStore
    form: Form
    report: LaunchReport
    options: PlanOptions
    python: str | None = None
    goal: Target | Plan | None = None
    loose: tuple[str, ...] = field(default=(), repr=False)  # the files of the loose code
    leaves: bool = False  # whether nodes may fetch wheels by themselves
    offers: tuple[Offer, ...] = field(default=(), repr=False)  # what they could fetch, as far as the plan says
    _order: Order | None = field(default=None, repr=False)
    _packing: Packing | None = field(default=None, repr=False)
    _later: Later | None = field(default=None, repr=False)
    _lease: ExitStack = field(default_factory=ExitStack, repr=False)

    def launch(self, cache: Path) -> Launch:
        """The command prefix that runs Python in this environment on a node with the cache folder `cache`."""
        return Launch(
            script=str(self.script),
            cache=str(cache),
            store=str(self.store.root),
            manifest=self.manifest.id,
            kit=str(self.form.kit_path(self.kit_id)),
            kit_id=self.kit_id,
            kit_sha256=self.kit_sha256,
            stream=self.streams,
            first=self.first,
        )

    @property
    def streams(self) -> bool:
        """Whether processes start before they have all layers."""
        return self.manifest.outline is not None

    @property
    def first(self) -> tuple[str, ...]:
        """The layers that are wanted first, the most urgent first."""
        return self._order.first if self._order else ()

    def remember(self, modules: Iterable[str]) -> None:
        """Note in which order a process has loaded `modules` (top-level names): next time it is the order of layers."""
        if self._order is not None:
            self._order.remember(modules)

    def drift(self) -> tuple[Difference, ...]:
        """How the client's environment differs now from the manifest."""
        return compare(self.manifest, self.resolve_again(Stages(Silent())).layers)

    def resolve_again(self, stages: Stages) -> Resolved:
        """What the environment is now, for the same nodes. As long as the client is the same, so is the plan.

        Raises
        ------
        LikewiseError
        """
        return resolve(
            self.options,
            settings=resolve_settings(),
            store=self.store,
            stages=stages,
            python=self.python,
            goal=self.goal,
            leave=self.leaves,
            former=(self.snapshot, self.plan),
        )

    def open_layer(self, digest: Digest) -> BinaryIO:
        """The archive of a layer, for reading, once it is packed; what was left to the nodes is fetched before that.

        Raises
        ------
        LikewiseError
            When it can't be fetched, packed or read.
        """
        if self._later is not None:
            self._later.bring(digest)
        if self._packing is not None:
            self._packing.wait(digest)
        return self.store.open(layer_key(digest))

    def launched(self) -> None:
        """What was to be started is there: what nobody has waited for is packed from now on."""
        if self._packing is not None:
            self._packing.launched()

    def finish(self) -> None:
        """Wait until all layers are packed.

        Raises
        ------
        LikewiseError
            When one of them can't be.
        """
        if self._packing is not None:
            self._packing.finish()

    def close(self) -> None:
        """Give the layers back to expiry; what is not packed yet stays so."""
        self._lease.close()
