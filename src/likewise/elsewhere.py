"""What another platform than the client's own changes: wheels are fetched, and nothing of this machine goes along.

The plan says what is fetched. All else is as on the same platform: what is pure is copied, editables are built, loose
code is shipped. likewise itself always comes from the client's own files: both ends have to be the same one.

Where nodes can fetch wheels by themselves, the client leaves to them what anybody may have: it reads no more of such a
wheel than it takes to know its layer (`likewise.layers.claimed`). The kit's wheels it has to have, since nodes can do
nothing before, and what wants a credential.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from likewise.errors import FetchError, LayerError, PlanError, UnsupportedError
from likewise.layers.fetched import claim_layers, fetch_layers, kept_layers
from likewise.model.conda import CondaPackage
from likewise.model.conda_identity import PYTHON
from likewise.model.digest import Digest
from likewise.model.layer import LayerSource
from likewise.model.offer import Offer
from likewise.model.outline import tops
from likewise.model.plan import Action, CondaDecision, Decision, LockedFile, Plan
from likewise.model.snapshot import (
    Distribution,
    Interpreter,
    Origin,
    OriginKind,
    Problem,
    Snapshot,
)
from likewise.model.target import Target
from likewise.nodes_python import Base, is_own
from likewise.planner.requirements import requirement_graph
from likewise.planner.selection import conda_beneath, kit_closure, kit_names
from likewise.planner.tables import critical_distributions
from likewise.planner.targets import check_client
from likewise.scanner.metadata import parse_metadata, parse_wheel_tags
from likewise.settings import Settings
from likewise.stages import OpenStage, Stages, counted
from likewise.versions import same_version

if TYPE_CHECKING:
    from likewise.indexes import Indexes

OWN = "likewise"
"""The distribution that is never fetched."""

_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")
_LEGACY = {"manylinux1_": (2, 5), "manylinux2010_": (2, 12), "manylinux2014_": (2, 17)}
"""What such wheels were called before PEP 600 (PEP 513, 571, 599) -> the glibc they need."""

_METADATA = re.compile(r"purelib/[^/]+\.dist-info/(METADATA|WHEEL)")


def is_elsewhere(goal: Target | Plan | None, interpreter: Interpreter) -> bool:
    """Whether the nodes are another platform than `interpreter`'s, or are to get what was planned for one."""
    return not is_own(goal, interpreter) if isinstance(goal, Target) else goal is not None


def settle(plan: Plan, snapshot: Snapshot) -> Plan:
    """`plan` as it can be carried out here: likewise is the client's own, loose code is what is here.

    Raises
    ------
    PlanError
        When the plan is for another Python than the client's, copies what is not here, has other versions of what is
        critical, or lacks what every node needs.
    UnsupportedError
        When nodes of that kind can't be served.
    """
    own = snapshot.get(OWN)
    if own is None:
        raise PlanError("likewise itself is not installed in the prefix.", where=snapshot.interpreter.prefix)
    _check_target(plan.target, snapshot.interpreter)
    about = {decision.name: decision for decision in plan.decisions}
    about[OWN] = Decision(
        name=OWN,
        version=own.version,
        action=Action.BUILD if own.origin.kind is OriginKind.EDITABLE else Action.COPY,
        reason="both ends run the very same likewise",
        critical=True,
    )
    for root in snapshot.code:
        shipped = Decision(
            name=root.name, version="", action=Action.SHIP, reason=f"loose code ({root.why}: {root.path})"
        )
        about.setdefault(root.name, shipped)
    here = {root.name for root in snapshot.code}
    kept = [one for one in about.values() if one.action is not Action.SHIP or one.name in here]
    _check_here(kept, snapshot)
    _check_conda(plan.conda, snapshot)
    there = {one.name for one in kept if one.action is not Action.DROP} | _brought(plan.conda)
    if is_beside(plan, snapshot.interpreter):
        there.update(one.layer for one in snapshot.conda)
    if missing := sorted({*plan.kit, "distributed"} - there):
        raise PlanError(
            f"The plan lacks what every node needs to join a cluster: {', '.join(missing)}.",
            todo=f"Have it installed where the plan's snapshot is made: pip install {' '.join(missing)}",
            details={"missing": missing},
        )
    known = tuple(problem for problem in plan.problems if problem.code != "kit-missing")  # it is here, or was refused
    return msgspec.structs.replace(
        plan, decisions=tuple(kept), kit=tuple(sorted({*plan.kit, "distributed", OWN})), problems=known
    )


def _check_target(target: Target, interpreter: Interpreter) -> None:
    """Tasks are code and data of the client's Python: they mean the same only to one of its own minor version."""
    if target.platform.os != "linux":
        raise UnsupportedError(
            f"Nodes have to run Linux, and the target is {target.platform}.", todo="Name a target like linux-64."
        )
    check_client(interpreter, target)
    here, there = (tuple(version.split(".")[:2]) for version in (interpreter.version, target.python))
    if here != there:
        raise PlanError(
            f"The plan is for Python {target.python}, and the client runs {interpreter.version}.",
            todo=f"Run the client with Python {'.'.join(there)}, or plan anew.",
        )


def _check_here(decisions: Iterable[Decision], snapshot: Snapshot) -> None:
    installed = {one.name: one.version for one in snapshot.distributions}
    other = [one for one in decisions if one.action is not Action.SHIP and installed.get(one.name) != one.version]
    wrong = [
        f"{one.name} {one.version} ({installed.get(one.name) or 'not installed'} here)"
        for one in other
        if one.action in (Action.COPY, Action.BUILD) or (one.critical and one.action is Action.FETCH)
    ]
    if wrong:
        raise PlanError(
            f"The plan needs on this machine what is not there: {', '.join(wrong)}.",
            where=snapshot.interpreter.prefix,
            todo="Plan anew, or install these versions.",
            details={"wrong": wrong},
        )


def is_beside(plan: Plan, interpreter: Interpreter) -> bool:
    """Whether nodes run the client's own Python: then they get what there is of conda beneath it, and the plan's conda
    packages besides."""
    brings_python = any(one.name == PYTHON and one.action is not Action.DROP for one in plan.conda)
    return is_own(plan.target, interpreter) and not brings_python


def _brought(packages: Iterable[CondaDecision]) -> set[str]:
    """The distributions that conda packages bring."""
    return {name for one in packages if one.action is not Action.DROP for name in one.distributions}


def _check_conda(packages: Iterable[CondaDecision], snapshot: Snapshot) -> None:
    """What is critical among conda's packages is installed here in the same version, whoever has installed it."""
    installed = {one.name: one.version for one in snapshot.distributions}
    wrong = [
        f"{one.name} {one.version} ({installed.get(name) or 'not installed'} here)"
        for one in packages
        if one.action is not Action.DROP
        for name in critical_distributions().keys() & one.distributions
        if not same_version(installed.get(name, ""), one.version)
    ]
    if wrong:
        raise PlanError(
            f"The plan has other versions than this machine of what has to be the same: {', '.join(sorted(wrong))}.",
            where=snapshot.interpreter.prefix,
            todo="Plan anew, or install these versions.",
            details={"wrong": sorted(wrong)},
        )


@dataclass(frozen=True)
class Packages:
    """The conda packages of nodes, but for those of the client's own that are distributions, or its Python.

    Attributes
    ----------
    base : Base or None
        Their Python; None where it is not one of them, or the client's own.
    distributions : dict of str to LayerSource
        Those that are Python distributions, by the distribution's name.
    others : tuple of LayerSource
    described : tuple of CondaPackage
        All of them, as a scan would find them on a node.
    variables : dict
        What activating the prefix sets: name → value, `PREFIX_MARK` for the prefix.
    problems : tuple of Problem
    """

    base: Base | None = None
    distributions: dict[str, LayerSource] = field(default_factory=dict)
    others: tuple[LayerSource, ...] = ()
    described: tuple[CondaPackage, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


NO_PACKAGES = Packages()


@dataclass(frozen=True)
class Wheels:
    """What `fetch` gives.

    Attributes
    ----------
    layers : dict of str to LayerSource
        By name. Those in `later` have no content.
    later : dict of Digest to callable
        The layers that nodes fetch by themselves → what makes a layer here after all: it fetches the wheel, and raises
        LikewiseError when that can't be had, or is another layer than it claims to be.
    offers : tuple of Offer
        All that nodes could fetch.
    needs : dict of str to str
        What the layers in `later` need of a node: ``{"GLIBC": "2.17"}``, by their wheels' tags.
    """

    layers: dict[str, LayerSource]
    later: dict[Digest, Callable[[], LayerSource]] = field(default_factory=dict)
    offers: tuple[Offer, ...] = ()
    needs: dict[str, str] = field(default_factory=dict)


def fetch(
    plan: Plan,
    snapshot: Snapshot,
    *,
    settings: Settings,
    stages: Stages,
    leave: bool = False,
    beneath: Packages = NO_PACKAGES,
) -> Wheels:
    """The layers of all wheels that `plan` fetches.

    Parameters
    ----------
    plan : Plan
    snapshot : Snapshot
        The client's.
    settings : Settings
    stages : Stages
    leave : bool, default False
        Whether nodes may fetch by themselves what is public (`likewise.indexes.sharing.open_to_nodes`).
    beneath : Packages
        What comes from conda.

    Raises
    ------
    LikewiseError
        See `likewise.layers.fetched.fetch_layers` and `likewise.indexes.fetch.fetch`; PlanError for a decision without
        a file.
    """
    files = {one.name: _file(one) for one in plan.decisions if one.action is Action.FETCH}
    access = _Access(plan.requirements, snapshot.interpreter)
    with stages.stage("fetch", total=sum(file.size or 0 for file in files.values())) as stage:
        fetching = _Fetching(files, access, settings, stage)
        public = access.public(files.values()) if leave else frozenset()
        layers = fetching.claim({name for name, file in files.items() if file in public and name not in plan.kit})
        left = set(layers)
        layers |= fetching.bring(files.keys() - left)
        while needed := left & _kit(plan, snapshot, layers, beneath):  # who requires whom only all of them tell
            left -= needed
            layers |= fetching.bring(needed)
        fetching.finish(left)
    offered = {layers[name].digest: Offer(layers[name].digest, files[name], name not in left) for name in files}
    return Wheels(
        layers={name: layers[name] for name in files},
        later={layers[name].digest: partial(_after_all, files[name], layers[name], access, settings) for name in left},
        offers=tuple(offer for offer in offered.values() if offer.file in public),
        needs=glibc_needed(files[name].filename for name in left),
    )


def _kit(plan: Plan, snapshot: Snapshot, layers: Mapping[str, LayerSource], beneath: Packages) -> frozenset[str]:
    replica = replica_of(snapshot, plan, layers, snapshot.interpreter, beneath)
    return kit_closure(requirement_graph(replica, plan.target))


class _Fetching:
    """Claims and fetches wheels, and counts what it did."""

    def __init__(self, files: Mapping[str, LockedFile], access: _Access, settings: Settings, stage: OpenStage) -> None:
        self._files, self._access, self._work, self._stage = files, access, settings.work, stage
        self._asked = self._fetched = self._reused = self._size = 0

    def claim(self, names: Collection[str]) -> dict[str, LayerSource]:
        """The layers of those that need not be here, by name, without their content."""
        here = kept_layers([self._files[name] for name in names], work=self._work)
        wanted = [file for name in names if (file := self._files[name]).sha256 not in here]
        got = claim_layers(wanted, open_file=self._access.open, work=self._work)
        self._asked += got.asked
        return {name: layer for name in names if (layer := got.layers.get(self._files[name].sha256)) is not None}

    def bring(self, names: Collection[str]) -> dict[str, LayerSource]:
        """The layers of these, by name."""
        files = {name: self._files[name] for name in names}
        fetch_one = partial(self._access.bring, stage=self._stage)
        got = fetch_layers(files.values(), fetch=fetch_one, work=self._work, progress=self._kept)
        self._fetched += got.fetched
        self._reused += len(files) - got.fetched
        self._size += got.size
        return {name: got.layers[file.sha256] for name, file in files.items()}

    def _kept(self, file: LockedFile, was_fetched: bool) -> None:
        if not was_fetched:
            self._stage.advance(file.size or 0, file.filename)

    def finish(self, left: Collection[str]) -> None:
        """Tell what became of all."""
        for name in left:
            self._stage.advance(self._files[name].size or 0, self._files[name].filename)
        self._stage.did(fetched=self._fetched, reused=self._reused, bytes=self._size, left=len(left), asked=self._asked)
        said = f"{counted(self._fetched, 'wheel')}, {self._size / 1e6:.1f} MB; {self._reused} were here"
        self._stage.summary = f"{said}; {len(left)} left to the nodes" if left else said


def _after_all(file: LockedFile, claimed: LayerSource, access: _Access, settings: Settings) -> LayerSource:
    """The layer of a wheel that was left to nodes, with its content."""
    got = fetch_layers([file], fetch=access.bring, work=settings.work)
    layer = got.layers[file.sha256]
    if layer.digest != claimed.digest:
        raise LayerError(
            f"{file.filename} holds other files than its RECORD says.",
            where=file.index or file.url,
            todo="Start again: it is here now, so its files count, and not what it says of them.",
        )
    return layer


def glibc_needed(filenames: Iterable[str]) -> dict[str, str]:
    """The glibc that wheels of these names need by their tags (PEP 600), as a manifest's ``needs``.

    A wheel with several tags runs where any of them fits, so its lowest counts. Empty when no tag says anything.
    """
    lowest = [min(found) for name in filenames if (found := _glibcs(name))]
    return {"GLIBC": ".".join(map(str, max(lowest)))} if lowest else {}


def _glibcs(filename: str) -> list[tuple[int, int]]:
    platforms = filename.removesuffix(".whl").rpartition("-")[2].split(".")
    found = [(int(match[1]), int(match[2])) for tag in platforms if (match := _MANYLINUX.match(tag))]
    return found + [version for tag in platforms for name, version in _LEGACY.items() if tag.startswith(name)]


class _Access:
    """Indexes, with what this user's pip and uv know of them, which is read when somebody is to be asked.

    So is `requirements`, the file that the plan was made from, if it names any.
    """

    def __init__(self, requirements: str, interpreter: Interpreter) -> None:
        self._requirements = requirements
        self._there = os.path.isfile(requirements) and os.access(requirements, os.R_OK)
        self._python = interpreter.executable or None
        self._one_at_a_time = threading.Lock()  # keyring is asked once, by whichever thread comes first

    @functools.cached_property
    def _found(self) -> Indexes:
        from likewise.indexes import find_indexes  # few launches need what that imports

        return find_indexes(
            environ=os.environ,
            home=Path.home(),
            folder=Path.cwd(),
            python=self._python,
            requirements=(Path(self._requirements),) if self._there else (),
        )

    def _indexes(self) -> Indexes:
        with self._one_at_a_time:
            return self._found

    def public(self, files: Iterable[LockedFile]) -> frozenset[LockedFile]:
        """Those of `files` that a node could fetch by itself."""
        from likewise.indexes.sharing import open_to_nodes
        from likewise.indexes.urls import is_of_this_machine

        return open_to_nodes((file for file in files if not is_of_this_machine(file.url)), self._indexes())

    def open(self, file: LockedFile) -> BinaryIO:
        """A file, to be read where it is. FetchError, also while it is read, when its server does not do that."""
        from likewise.indexes.ranges import open_remote

        return open_remote(file, self._indexes())

    def bring(self, file: LockedFile, into: Path, stage: OpenStage | None = None) -> Path:
        """Fetch a file; tell `stage` of its bytes."""
        from likewise.indexes.fetch import fetch as fetch_file

        advance = None if stage is None else lambda amount: stage.advance(amount, file.filename)
        try:
            return fetch_file(file, into, indexes=self._indexes(), advance=advance)
        except FetchError as error:
            if self._there or not self._requirements:
                raise
            raise _without(self._requirements, error) from None


def _without(requirements: str, error: FetchError) -> FetchError:
    """`error`, which may come from a file that was there when the plan was made."""
    if not error.details.get("status"):
        return error
    todo = f"{requirements} named indexes when this was planned, and can't be read now: bring it back. {error.todo}"
    return FetchError(error.what, where=error.where, todo=todo, details=error.details)


def _file(decision: Decision) -> LockedFile:
    if decision.file is None:
        raise PlanError(f"The plan says nothing of where {decision.name} {decision.version} is.", todo="Plan anew.")
    return decision.file


def require_pure(layers: Iterable[LayerSource], target: Target) -> None:
    """Refuse what was built here for this machine alone: an editable with extension modules, say.

    Raises
    ------
    PlanError
    """
    stuck = {layer.name: tags for layer in layers if (tags := _tags(layer)) and not all(map(_is_pure, tags))}
    if stuck:
        listed = ", ".join(f"{name} ({', '.join(tags)})" for name, tags in stuck.items())
        raise PlanError(
            f"What was built here is for this machine and not for {target.platform}: {listed}.",
            todo="Offer a wheel for that platform on an index, or leave it out with package_sync_ignore.",
            details={"built": sorted(stuck)},
        )


def _is_pure(tag: str) -> bool:
    return tag.endswith("-none-any")


def _tags(layer: LayerSource) -> tuple[str, ...]:
    return parse_wheel_tags(_told(layer).get("WHEEL", b""))


def _told(layer: LayerSource) -> dict[str, bytes]:
    """Content of a layer's METADATA and WHEEL."""
    return {
        match[1]: Path(file.path).read_bytes() if file.data is None else file.data
        for file in layer.files
        if (match := _METADATA.fullmatch(file.entry.path))
    }


def replica_of(
    snapshot: Snapshot,
    plan: Plan,
    layers: Mapping[str, LayerSource],
    interpreter: Interpreter,
    packages: Packages = NO_PACKAGES,
) -> Snapshot:
    """What the nodes will have, as a scan would find it there.

    Parameters
    ----------
    snapshot : Snapshot
        The client's: what is copied, built or shipped is described there.
    plan : Plan
    layers : mapping
        What is fetched, by name.
    interpreter : Interpreter
        That of the nodes.
    packages : Packages
        What they have of conda's.
    """
    layers = {**packages.distributions, **layers}
    shipped = {one.name for one in plan.decisions if one.action in (Action.COPY, Action.BUILD)}
    found = [one for one in snapshot.distributions if one.name in shipped]
    found += [_described(layer) for layer in layers.values()]
    return msgspec.structs.replace(
        snapshot,
        interpreter=interpreter,
        distributions=tuple(sorted(found, key=lambda one: one.name)),
        conda=packages.described,
    )


def with_kit(plan: Plan, replica: Snapshot) -> Plan:
    """`plan` with all that a node needs to join: a list of versions says nothing of who requires whom, wheels do.

    Raises
    ------
    PlanError
        When it lacks any of that.
    """
    kit = kit_names(replica, requirement_graph(replica, plan.target))
    return msgspec.structs.replace(plan, kit=(*kit, *conda_beneath(replica, kit)))


def _described(layer: LayerSource) -> Distribution:
    told = _told(layer)
    metadata = parse_metadata(told.get("METADATA", b""))
    return Distribution(
        name=layer.name,
        version=layer.version,
        origin=Origin(kind=OriginKind.INDEX),
        tags=parse_wheel_tags(told.get("WHEEL", b"")),
        requires=metadata.requires,
        provides_extras=metadata.provides_extras,
        imports=tuple(sorted(tops(file.entry for file in layer.files))),
        files=len(layer.files),
        size=layer.size,
        content=layer.digest,
    )
