"""What the environment is: prefix → Snapshot → Plan → layers by name. Changes nothing but caches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from likewise import elsewhere
from likewise.compiling import Compiling
from likewise.layers.editable import build_editables
from likewise.layers.metadata import clean_layers
from likewise.layers.native import examine, highest
from likewise.model.digest import Digest
from likewise.model.keys import CACHE_TAG
from likewise.model.layer import LayerSource
from likewise.model.manifest import Manifest
from likewise.model.offer import Offer
from likewise.model.plan import Action, Plan
from likewise.model.snapshot import Problem, Snapshot
from likewise.model.target import Target
from likewise.model.verify import Difference, DifferenceKind
from likewise.nodes_python import Choice, choose, offered_base, own_base
from likewise.planner.plans import PlanOptions, make_plan
from likewise.scanner import Scanned, scan_prefix
from likewise.scanner.code import Limits
from likewise.scanner.facts import Facts
from likewise.scanner.probe import probe_here, probe_python
from likewise.settings import Settings
from likewise.stages import Stages, counted
from likewise.store.local import LocalStore


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What the environment is: every layer's identity, and where the client can read its files."""

    snapshot: Snapshot  # the client
    replica: Snapshot  # what the nodes get; of the same platform: the client
    plan: Plan
    layers: tuple[LayerSource, ...]  # in the manifest's order
    needs: dict[str, str]  # the C library and its like: family -> version
    loads: dict[str, tuple[str, ...]]  # layer -> others whose libraries it loads by their paths
    problems: tuple[Problem, ...]
    variables: dict[str, str]  # environment variables of every process of the nodes
    compiles: bool = True  # whether the client's interpreter makes the bytecode that the nodes' reads
    leaves: bool = False  # whether nodes may fetch wheels by themselves
    later: Mapping[Digest, Callable[[], LayerSource]] = field(default_factory=dict)  # see `elsewhere.Wheels`
    offers: tuple[Offer, ...] = ()  # what nodes could fetch by themselves


Former = tuple[Snapshot, Plan]
"""A client, and what was planned for it."""


def scan_with(settings: Settings, python: str | None, stages: Stages, compiling: Compiling | None = None) -> Scanned:
    """Look at the running interpreter, or at another one, as the settings say."""
    with stages.stage("scan") as stage:
        probe = probe_python(python) if python else probe_here()
        _tag_cache(settings.cache)
        if compiling is not None:
            compiling.expect(probe.interpreter, probe.paths["purelib"])
        limits = Limits(max_bytes=settings.code_max_bytes, max_entries=settings.code_max_entries)
        scanned = scan_prefix(probe, facts_dir=settings.facts, limits=limits, reporter=stages.reporter)
        snapshot = scanned.snapshot
        stage.summary = (
            f"{counted(len(snapshot.distributions), 'distribution')}, {counted(len(snapshot.code), 'code root')}"
        )
    return scanned


def resolve(
    options: PlanOptions,
    *,
    settings: Settings,
    store: LocalStore,
    stages: Stages,
    python: str | None = None,
    compiling: Compiling | None = None,
    goal: Target | Plan | None = None,
    leave: bool = False,
    former: Former | None = None,
) -> Resolved:
    """Scan, plan, build editables, fetch wheels, and name every layer of the environment. Nothing is packed.

    With `compiling`, their bytecode is begun on the way, as soon as there is something to begin with. For `goal` and
    `leave` see `likewise.sync.prepare`; `former` is what was planned for it before, which holds as long as the client
    is the same.
    """
    scanned = scan_with(settings, python, stages, compiling)
    snapshot = scanned.snapshot
    interpreter = snapshot.interpreter
    with stages.stage("plan") as stage:
        python_there, chosen = _plan(snapshot, options, goal, settings, former)
        stage.summary = _plan_summary(chosen)
    away = python_there is not None
    wheels = any(one.action is Action.FETCH for one in chosen.decisions)
    facts = Facts(settings.facts, interpreter.base_prefix)  # of what lies outside the prefix
    sources, build_problems = _own_sources(scanned, chosen, facts, settings=settings, store=store, stages=stages)
    if compiling is not None:
        compiling.begin(interpreter, list(sources.values()))
    fetched, packages = elsewhere.Wheels({}), _packages(chosen, scanned, sources, settings, stages)
    sources |= packages.distributions
    if away or wheels:
        fetched = elsewhere.fetch(chosen, snapshot, settings=settings, stages=stages, leave=leave, beneath=packages)
    come = [*packages.distributions.values(), *_here(fetched.layers.values(), fetched.later)]
    if compiling is not None and come:
        compiling.begin(interpreter, come)
    sources |= fetched.layers
    base = packages.base or offered_base(python_there, interpreter, settings=settings, reporter=stages.reporter)
    with stages.stage("interpreter") as stage:
        base = base or own_base(interpreter, facts=facts, settings=settings, conda=scanned.base)
        kept, cleaned = clean_layers([sources[name] for name in sorted(sources)], work=settings.work)
        kept = [*kept, *packages.others]
        native = examine(
            [base.layer, *kept],
            interpreter=base.interpreter,
            facts=facts,
            work=settings.work,
            here=not away,
            unread=fetched.later.keys(),
        )
        outside = len(native.source.files) if native.source else 0
        stage.summary = f"Python {base.interpreter.version}, {counted(outside, 'library file')} from outside"
    facts.save()
    replica = snapshot
    if away or wheels or chosen.conda:
        replica = elsewhere.replica_of(snapshot, chosen, fetched.layers, base.interpreter, packages)
    if away:
        chosen = elsewhere.with_kit(chosen, replica)
    layers = (base.layer, *kept, *([native.source] if native.source else []))
    records = _records(replica, layers, store)
    return Resolved(
        snapshot=snapshot,
        replica=replica,
        plan=chosen,
        layers=(*layers, *records),
        needs=highest(native.needs, fetched.needs),
        loads=native.loads,
        problems=(*chosen.problems, *build_problems, *base.problems, *packages.problems, *native.problems, *cleaned),
        variables=packages.variables,
        compiles=base.compiles,
        leaves=leave,
        later=fetched.later,
        offers=fetched.offers,
    )


def _packages(
    chosen: Plan, scanned: Scanned, sources: Mapping[str, LayerSource], settings: Settings, stages: Stages
) -> elsewhere.Packages:
    """What nodes get of conda: of the client's own Python all that its prefix has, and what the plan adds to it."""
    snapshot = scanned.snapshot
    is_own = elsewhere.is_beside(chosen, snapshot.interpreter)
    own = elsewhere.Packages(others=scanned.conda, described=snapshot.conda, variables=scanned.variables)
    if not chosen.conda:
        return own if is_own else elsewhere.NO_PACKAGES
    from likewise.conda_elsewhere import add_packages, fetch_packages  # few launches need what that imports

    if not is_own:
        return fetch_packages(chosen, snapshot, settings=settings, stages=stages)
    beneath = [*sources.values(), *scanned.conda, *([scanned.base] if scanned.base else [])]
    return add_packages(own, chosen, snapshot, beneath, settings=settings, stages=stages)


def _records(replica: Snapshot, layers: Sequence[LayerSource], store: LocalStore) -> tuple[LayerSource, ...]:
    """The layer with conda's records, where nodes get anything of conda."""
    if not replica.conda:
        return ()
    from likewise.conda_meta import records_layer  # few launches need what that imports

    made = records_layer(replica.conda, layers, replica.interpreter.python, store)
    return (made,) if made else ()


def _here(layers: Iterable[LayerSource], later: Collection[Digest]) -> list[LayerSource]:
    """Those of `layers` whose files are here."""
    return [layer for layer in layers if layer.digest not in later]


def _plan(
    snapshot: Snapshot, options: PlanOptions, goal: Target | Plan | None, settings: Settings, former: Former | None
) -> tuple[Choice | None, Plan]:
    """Which Python nodes of another platform get, None for those of the same, and what happens to each distribution."""
    asked = options.extras or options.conda_extras
    if goal is None and not asked and snapshot.interpreter.platform.os == "linux":
        return None, make_plan(snapshot, None, options)
    from likewise.planning import plan_for, plan_here, plan_towards, target_for  # few launches need what that imports

    earlier = former[1] if former is not None else None
    known = earlier if former is not None and former[0] == snapshot else None
    nodes = goal if isinstance(goal, Target) else None
    goal = goal or target_for(snapshot.interpreter)
    if not elsewhere.is_elsewhere(goal, snapshot.interpreter):
        return None, known or plan_here(snapshot, options, settings=settings, nodes=nodes, former=earlier)
    if goal.conda if isinstance(goal, Plan) else snapshot.conda:  # then Python is one of conda's packages
        if known is None:
            made = goal if isinstance(goal, Plan) else plan_towards(snapshot, goal, options, settings=settings)
            known = elsewhere.settle(made, snapshot)
        return Choice(known.target), known
    choice = choose(goal.target if isinstance(goal, Plan) else goal, snapshot.interpreter, strict=options.strict)
    if known is not None:
        return choice, known
    if isinstance(goal, Plan):
        planned = msgspec.structs.replace(goal, target=choice.target)
    else:
        planned = plan_for(snapshot, choice.target, options, settings=settings, former=earlier)
    return choice, elsewhere.settle(planned, snapshot)


def _own_sources(
    scanned: Scanned, chosen: Plan, facts: Facts, *, settings: Settings, store: LocalStore, stages: Stages
) -> tuple[dict[str, LayerSource], tuple[Problem, ...]]:
    """The layers of what comes from this machine, by name, sorted: editables are built, all else is there."""
    interpreter = scanned.snapshot.interpreter
    wanted = {d.name for d in chosen.decisions if d.action not in (Action.DROP, Action.FETCH)}
    editables = [editable for editable in scanned.editables if editable.name in wanted]
    with stages.stage("build", total=len(editables), unit="packages") as stage:
        built = build_editables(
            editables,
            python=interpreter.executable,
            notes=store,
            work=settings.work,
            reporter=stages.reporter,
            jobs=settings.jobs,
            facts=facts,
        )
        stage.did(built=built.built)
        stage.summary = f"{built.built} built, {built.reused} unchanged"
    if elsewhere.is_elsewhere(chosen.target, interpreter):
        elsewhere.require_pure(built.sources.values(), chosen.target)
    sources = {**scanned.sources, **built.sources}
    return {name: sources[name] for name in sorted(sources) if name in wanted}, built.problems


def compare(manifest: Manifest, layers: Sequence[LayerSource]) -> tuple[Difference, ...]:
    """How `layers` (the client now) differ from `manifest`, one difference for each layer concerned."""
    then = {(ref.kind, ref.name): ref for ref in manifest.layers}
    now = {(layer.kind, layer.name): layer for layer in layers}
    differences = []
    for kind, name in sorted(then.keys() | now.keys()):
        old, new = then.get((kind, name)), now.get((kind, name))
        if old is None or new is None or old.digest != new.digest:
            differences.append(
                Difference(
                    node="client",
                    kind=DifferenceKind.CLIENT,
                    layer=name,
                    subject=name,
                    expected=f"{old.version} {old.digest[:12]}".strip() if old else "not there",
                    actual=f"{new.version} {new.digest[:12]}".strip() if new else "not there",
                )
            )
    return tuple(differences)


def _tag_cache(folder: Path) -> None:
    """Say that `folder` is a cache."""
    name, content = CACHE_TAG
    if not (folder / name).exists():
        with suppress(OSError):  # who can't write there is told by the store
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def _plan_summary(plan: Plan) -> str:
    counts = {action: sum(d.action is action for d in plan.decisions) for action in Action}
    return ", ".join(f"{n} {action.value}" for action, n in counts.items() if n)
