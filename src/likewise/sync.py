"""The one place that joins the stages: prefix → Snapshot → Plan → layers → store → Manifest and kit.

`resolve` answers *what is this environment?* and changes nothing but caches; `publish` makes sure that the store holds
every layer of it. `prepare` is one after the other. A second run of an unchanged environment finds everything there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from likewise.events import Notice, Reporter, Silent
from likewise.layers.bytecode import compile_layers, remove_compiled
from likewise.layers.editable import build_editables
from likewise.layers.interpreter import interpreter_source
from likewise.layers.kit import write_kit
from likewise.layers.metadata import clean_layers
from likewise.layers.native import examine
from likewise.layers.order import Order, Program, running_program
from likewise.layers.outline import build_outline, outline_key, outline_source
from likewise.layers.pack import write_archive
from likewise.model.digest import Digest, digest_bytes, is_digest
from likewise.model.keys import CACHE_TAG, kit_key, layer_key, manifest_key, note_key, script_key
from likewise.model.layer import LayerKind, LayerSource
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.plan import Action, Plan
from likewise.model.report import LaunchReport
from likewise.model.snapshot import CodePosition, Problem, Severity, Snapshot
from likewise.model.target import Target
from likewise.model.verify import Difference, DifferenceKind
from likewise.node.command import Launch, bootstrap_script
from likewise.packing import Last, Packing
from likewise.plan.planner import PlanOptions, make_plan
from likewise.plan.requirements import layer_requirements
from likewise.scan import Scanned, scan_prefix
from likewise.scan.code import Limits
from likewise.scan.facts import Facts
from likewise.scan.probe import probe_here, probe_python
from likewise.settings import Settings, resolve_settings
from likewise.stages import Stages, counted
from likewise.store.local import LocalStore

__all__ = ["PlanOptions", "Prepared", "Resolved", "open_store", "plan", "prepare", "publish", "resolve", "scan"]

_NO_BYTECODE = b"none"  # what the store remembers of a layer that has nothing to compile


def scan(python: str | None = None, *, reporter: Reporter | None = None) -> Snapshot:
    """What is here: the interpreter, every distribution and the loose code.

    Parameters
    ----------
    python : str, optional
        Another interpreter to look at, as a path. Default: the running one, with its ``sys.path`` as it is now.
    reporter : Reporter, optional

    Raises
    ------
    ScanError
        When the prefix can't be read or the loose code is beyond its limits.
    """
    return _scan(resolve_settings(), python, Stages(reporter or Silent())).snapshot


def plan(
    snapshot: Snapshot | None = None,
    *,
    target: Target | None = None,
    strict: bool = False,
    ignore: Iterable[str] = (),
    only: Iterable[str] = (),
    fail_on: str = "critical-only",
    reporter: Reporter | None = None,
) -> Plan:
    """What would happen to each distribution, and why: the dry run.

    Parameters
    ----------
    snapshot : Snapshot, optional
        Default: `scan()`.
    target : Target, optional
        The nodes. Default: machines like this one.
    strict, ignore, only, fail_on
        See `likewise.plan.planner.PlanOptions`.
    reporter : Reporter, optional

    Raises
    ------
    PlanError, UsageError, UnsupportedError
    """
    snapshot = snapshot or scan(reporter=reporter)
    options = PlanOptions(strict=strict, ignore=tuple(ignore), only=tuple(only), fail_on=fail_on)
    return make_plan(snapshot, target, options)


def open_store(settings: Settings | None = None) -> LocalStore:
    """The local store, as the settings say."""
    settings = settings or resolve_settings()
    return LocalStore(settings.store, max_age=settings.max_age, max_size=settings.max_size)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What the environment is: every layer's identity, and where the client can read its files."""

    snapshot: Snapshot
    plan: Plan
    layers: tuple[LayerSource, ...]  # in the manifest's order
    needs: dict[str, str]  # the C library and its like: family -> version
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An environment whose layers, manifest and kit are in the store, leased until `close`."""

    snapshot: Snapshot
    plan: Plan
    manifest: Manifest
    problems: tuple[Problem, ...]
    kit_id: Digest
    kit_sha256: Digest
    script: Path
    store: LocalStore
    report: LaunchReport
    options: PlanOptions
    python: str | None = None
    loose: tuple[str, ...] = field(default=(), repr=False)  # the files of the loose code
    _order: Order | None = field(default=None, repr=False)
    _packing: Packing | None = field(default=None, repr=False)
    _lease: ExitStack = field(default_factory=ExitStack, repr=False)

    def launch(self, cache: Path) -> Launch:
        """The command prefix that runs Python in this environment on a node with the cache folder `cache`."""
        return Launch(
            script=str(self.script),
            cache=str(cache),
            store=str(self.store.root),
            manifest=self.manifest.id,
            kit=str(self.store.path(kit_key(self.kit_id))),
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
        stages = Stages(Silent())
        now = resolve(self.options, settings=resolve_settings(), store=self.store, stages=stages, python=self.python)
        return compare(self.manifest, now.layers)

    def open_layer(self, digest: Digest) -> BinaryIO:
        """The archive of a layer, for reading, once it is packed.

        Raises
        ------
        LikewiseError
            When it can't be packed or read.
        """
        if self._packing is not None:
            self._packing.wait(digest)
        return self.store.open(layer_key(digest))

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


def prepare(
    options: PlanOptions | None = None,
    *,
    reporter: Reporter | None = None,
    python: str | None = None,
    behind: bool = False,
) -> Prepared:
    """Scan, plan, build what has to be built, and put every layer that is not there yet into the store.

    Parameters
    ----------
    options : PlanOptions, optional
    reporter : Reporter, optional
    python : str, optional
        As in `scan`.
    behind : bool
        Whether layers may be packed behind the caller's back, while nodes start (with ``likewise.streaming``):
        `Prepared.open_layer` and `Prepared.finish` wait for them.

    Raises
    ------
    LikewiseError
        Any of its leaves; what was put into the store so far stays and is used by the next try.
    """
    settings = resolve_settings()
    stages = Stages(reporter or Silent())
    options = options or PlanOptions()
    store = open_store(settings)
    resolved = resolve(options, settings=settings, store=store, stages=stages, python=python)
    for problem in resolved.problems:
        if problem.severity is not Severity.NOTE:
            stages.reporter.report(
                Notice(message=problem.message, subject=problem.subject, severity=problem.severity.value)
            )
    return publish(resolved, options, settings=settings, store=store, stages=stages, python=python, behind=behind)


def resolve(
    options: PlanOptions, *, settings: Settings, store: LocalStore, stages: Stages, python: str | None = None
) -> Resolved:
    """Scan, plan, build editables, and name every layer of the environment. Nothing is packed."""
    scanned = _scan(settings, python, stages)
    with stages.stage("plan") as stage:
        chosen = make_plan(scanned.snapshot, None, options)
        stage.summary = _plan_summary(chosen)
    interpreter = scanned.snapshot.interpreter
    wanted = {d.name for d in chosen.decisions if d.action is not Action.DROP}
    facts = Facts(settings.facts, interpreter.base_prefix)  # of what lies outside the prefix
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
    sources = {**scanned.sources, **built.sources}
    with stages.stage("interpreter") as stage:
        python_layer, python_problems = interpreter_source(interpreter, facts=facts, work=settings.work)
        shipped = [sources[name] for name in sorted(sources) if name in wanted]
        kept, cleaned = clean_layers(shipped, work=settings.work)
        native = examine([python_layer, *kept], interpreter=interpreter, facts=facts, work=settings.work)
        outside = len(native.source.files) if native.source else 0
        stage.summary = f"Python {interpreter.version}, {counted(outside, 'library file')} from outside"
    facts.save()
    layers = [python_layer, *kept, *([native.source] if native.source else [])]
    problems = (*chosen.problems, *built.problems, *python_problems, *native.problems, *cleaned)
    return Resolved(snapshot=scanned.snapshot, plan=chosen, layers=tuple(layers), needs=native.needs, problems=problems)


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


def publish(
    resolved: Resolved,
    options: PlanOptions,
    *,
    settings: Settings,
    store: LocalStore,
    stages: Stages,
    python: str | None = None,
    behind: bool = False,
) -> Prepared:
    """Put what is missing into the store; lease all of it. See `prepare` for `behind`."""
    with ExitStack() as undo, ExitStack() as temporary:
        undo.enter_context(store.lease([layer_key(layer.digest) for layer in resolved.layers]))
        bytecode, fresh = _bytecode(resolved, settings, store, stages)
        temporary.callback(remove_compiled, fresh, work=settings.work)
        undo.enter_context(store.lease([layer_key(digest) for digest in bytecode.values()]))
        outline, new = _outline(resolved, store, stages, undo) if settings.streaming else (None, [])
        order = _order(resolved, store, python) if outline else None
        layers = [*resolved.layers, *fresh]
        rest = _missing(_urgent_first(layers, order.first), store) if order is not None and behind else []
        if _pack(new if rest else [*layers, *new], settings, store, stages, following=len(rest)) and not rest:
            store.prune()  # it has grown: what nobody used for a day makes room
        packing: Packing | None = None
        if rest:
            kept = Last(2, temporary.pop_all().close)  # the kit is made of the same files, and may take longer
            temporary.callback(kept.release)
            packing = Packing(
                rest,
                store,
                level=settings.pack_level,
                jobs=settings.jobs,
                notify=stages.reporter.report,
                done=kept.release,
            )
            undo.callback(packing.close)
        with stages.stage("kit") as stage:
            manifest = _manifest(resolved, bytecode, outline)
            kit = _kit_manifest(manifest)
            script = bootstrap_script()
            keys = [manifest_key(manifest.id), manifest_key(kit.id), kit_key(kit.id), script_key(digest_bytes(script))]
            undo.enter_context(store.lease(keys))
            kit_sha256, made = _kit(kit, layers, store)
            store.put_bytes(manifest_key(manifest.id), manifest.encode())
            store.put_bytes(keys[-1], script)
            stage.did(kits=int(made))
            stage.summary = "made" if made else "unchanged"
        return Prepared(
            snapshot=resolved.snapshot,
            plan=resolved.plan,
            manifest=manifest,
            problems=resolved.problems,
            kit_id=kit.id,
            kit_sha256=kit_sha256,
            script=store.path(keys[-1]),
            store=store,
            report=stages.launch_report(),
            options=options,
            python=python,
            loose=tuple(file.path for layer in resolved.layers if layer.kind is LayerKind.CODE for file in layer.files),
            _order=order,
            _packing=packing,
            _lease=undo.pop_all(),
        )


def _scan(settings: Settings, python: str | None, stages: Stages) -> Scanned:
    with stages.stage("scan") as stage:
        probe = probe_python(python) if python else probe_here()
        _tag_cache(settings.cache)
        limits = Limits(max_bytes=settings.code_max_bytes, max_entries=settings.code_max_entries)
        scanned = scan_prefix(probe, facts_dir=settings.facts, limits=limits, reporter=stages.reporter)
        snapshot = scanned.snapshot
        stage.summary = (
            f"{counted(len(snapshot.distributions), 'distribution')}, {counted(len(snapshot.code), 'code root')}"
        )
    return scanned


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


def _bytecode(
    resolved: Resolved, settings: Settings, store: LocalStore, stages: Stages
) -> tuple[dict[Digest, Digest], list[LayerSource]]:
    """The bytecode layer of each layer (by digest), and those that had to be made now."""
    interpreter = resolved.snapshot.interpreter
    kind = f"bytecode-{interpreter.cache_tag}-{interpreter.magic}"
    with stages.stage("bytecode", unit="files") as stage:
        known: dict[Digest, Digest | None] = {}
        for layer in resolved.layers:
            note = store.get_bytes(note_key(kind, layer.digest))
            digest = Digest(note.decode()) if note and note != _NO_BYTECODE else None
            if note is not None and (digest is None or store.has(layer_key(digest))):
                known[layer.digest] = digest
        missing = _with_shared([layer for layer in resolved.layers if layer.digest not in known], resolved.layers)
        made = compile_layers(
            missing,
            python=interpreter.executable,
            work=settings.work,
            jobs=settings.jobs,
            progress=stage.advance,
        )
        for layer in missing:
            source = made.layers.get(layer.digest)
            known[layer.digest] = source.digest if source else None
            note = source.digest.encode() if source else _NO_BYTECODE
            store.put_bytes(note_key(kind, layer.digest), note, replace=True)
        stage.did(compiled=len(missing), taken=made.taken, modules=made.taken + made.compiled)
        stage.summary = (
            f"{counted(made.compiled, 'module')} compiled, {made.taken} taken from the prefix, "
            f"{counted(len(resolved.layers) - len(missing), 'layer')} unchanged"
        )
    return {layer: code for layer, code in known.items() if code}, list(made.layers.values())


def _with_shared(missing: Sequence[LayerSource], layers: Sequence[LayerSource]) -> list[LayerSource]:
    """`missing`, and what owns a path together with any of it.

    Some Pythons (3.10, 3.13) compile to other bytes in another run; one path must have the same in both layers.
    """
    if not missing:
        return []
    digests = {layer.digest for layer in missing}
    paths = {file.entry.path for layer in missing for file in layer.files if file.entry.path.endswith(".py")}
    return [la for la in layers if la.digest in digests or any(f.entry.path in paths for f in la.files)]


def _outline(
    resolved: Resolved, store: LocalStore, stages: Stages, leases: ExitStack
) -> tuple[Digest, list[LayerSource]]:
    """The outline of the environment, leased, and its layer if it had to be made now."""
    with stages.stage("outline") as stage:
        note = outline_key(resolved.layers, resolved.snapshot)
        known = Digest((store.get_bytes(note) or b"").decode("ascii", "replace"))
        if is_digest(known):
            leases.enter_context(store.lease([layer_key(known)]))
            if store.has(layer_key(known)):
                stage.did(outlines=0)
                stage.summary = "unchanged"
                return known, []
        requires = layer_requirements(resolved.snapshot, resolved.plan.target, resolved.layers)
        made = outline_source(build_outline(resolved.layers, requires))
        leases.enter_context(store.lease([layer_key(made.digest)]))
        store.put_bytes(note, made.digest.encode(), replace=True)
        stage.did(outlines=1)
        stage.summary = f"{made.size / 1e6:.1f} MB"
    return made.digest, [made]


def _order(resolved: Resolved, store: LocalStore, python: str | None) -> Order:
    executable = resolved.snapshot.interpreter.executable
    program = Program(executable=executable) if python else running_program(executable)
    return Order(program, resolved.snapshot, resolved.layers, store, base=resolved.plan.kit)


def _pack(
    layers: Sequence[LayerSource], settings: Settings, store: LocalStore, stages: Stages, *, following: int = 0
) -> int:
    """Write the archive of every layer that the store lacks, the largest first so that no core is idle at the end.

    Returns how many there were. So many as are `following` will be packed later.
    """
    missing = _missing(layers, store)
    size = sum(layer.size for layer in missing)
    with stages.stage("pack", total=size) as stage:

        def pack_one(layer: LayerSource) -> None:
            with store.create(layer_key(layer.digest)) as out:
                write_archive(layer, out, level=settings.pack_level, progress=stage.advance)

        ordered = sorted(missing, key=lambda layer: -layer.size)
        with ThreadPoolExecutor(max_workers=settings.jobs, thread_name_prefix="likewise-pack") as pool:
            futures = [pool.submit(pack_one, layer) for layer in ordered]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        stage.did(packed=len(missing), following=following, bytes=size)
        stage.summary = f"{counted(len(missing), 'layer')} packed" if missing else "nothing to pack"
        if following:
            stage.summary = f"{counted(following, 'layer')} in the background"
    return len(missing)


def _urgent_first(layers: Iterable[LayerSource], first: Sequence[str]) -> list[LayerSource]:
    """`layers`, those named `first` first, and then the smaller ones: the fewer are missing, the fewer wait."""
    places = {name: place for place, name in reversed(list(enumerate(first)))}
    return sorted(layers, key=lambda layer: (places.get(layer.name, len(first)), layer.size))


def _missing(layers: Iterable[LayerSource], store: LocalStore) -> list[LayerSource]:
    """Those that the store lacks, in the same order."""
    return list({layer.digest: layer for layer in layers if not store.has(layer_key(layer.digest))}.values())


def _manifest(resolved: Resolved, bytecode: Mapping[Digest, Digest], outline: Digest | None) -> Manifest:
    interpreter = resolved.snapshot.interpreter
    refs = [
        LayerRef(
            kind=layer.kind,
            name=layer.name,
            version=layer.version,
            digest=layer.digest,
            files=len(layer.files),
            size=layer.size,
            bytecode=bytecode.get(layer.digest),
        )
        for layer in resolved.layers
    ]
    shipped = {layer.name for layer in resolved.layers}
    code = [root for root in resolved.snapshot.code if root.name in shipped and root.name.startswith("code-")]
    return Manifest(
        target=resolved.plan.target,
        python=interpreter.python,
        cache_tag=interpreter.cache_tag,
        layers=tuple(refs),
        before=tuple(root.name for root in code if root.position is CodePosition.BEFORE),
        after=tuple(root.name for root in code if root.position is CodePosition.AFTER),
        kit=resolved.plan.kit,
        needs=dict(sorted(resolved.needs.items())),
        outline=outline,
    )


def _kit_manifest(manifest: Manifest) -> Manifest:
    """The manifest of the kit: the interpreter and the distributions that a node needs to join."""
    first, *rest = manifest.layers
    return Manifest(
        target=manifest.target,
        python=manifest.python,
        cache_tag=manifest.cache_tag,
        layers=(first, *(ref for ref in rest if ref.kind is LayerKind.DISTRIBUTION and ref.name in manifest.kit)),
    )


def _kit(kit: Manifest, sources: Sequence[LayerSource], store: LocalStore) -> tuple[Digest, bool]:
    """Put the kit into the store unless it is there; its sha256, and whether it was made now."""
    note = note_key("kit", kit.id)
    remembered = store.get_bytes(note)
    if remembered is not None and store.has(kit_key(kit.id)):
        return Digest(remembered.decode()), False
    by_digest = {source.digest: source for source in sources}
    store.remove(kit_key(kit.id))
    with store.create(kit_key(kit.id)) as out:
        digest = write_kit(kit, by_digest, out, archive=lambda layer: store.open(layer_key(layer)))
    store.put_bytes(note, digest.encode())
    return digest, True
