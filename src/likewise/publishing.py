"""Puts what an environment consists of into the store: layers, bytecode, outline, manifest, kit."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from likewise.compiling import Compiling
from likewise.forms import Form, Packed, in_any_form
from likewise.layers.bytecode import remove_compiled
from likewise.layers.order import Order, Program, running_program
from likewise.layers.outline import build_outline, outline_key, outline_source
from likewise.model.digest import Digest, digest_bytes, is_digest
from likewise.model.keys import kit_key, layer_key, manifest_key, script_key
from likewise.model.layer import LayerKind, LayerSource
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.plan import Plan
from likewise.model.snapshot import CodePosition
from likewise.model.target import Target
from likewise.node.command import bootstrap_script
from likewise.planner.plans import PlanOptions
from likewise.planner.requirements import layer_requirements
from likewise.prepared import Prepared
from likewise.resolving import Resolved
from likewise.settings import Settings
from likewise.stages import Stages
from likewise.store.local import LocalStore
from likewise.supply import Later, Supply

_IN_KITS = frozenset({LayerKind.DISTRIBUTION, LayerKind.CONDA})


def publish(
    resolved: Resolved,
    options: PlanOptions,
    *,
    settings: Settings,
    store: LocalStore,
    stages: Stages,
    python: str | None = None,
    behind: bool = False,
    compiling: Compiling | None = None,
    form: Form | None = None,
    goal: Target | Plan | None = None,
) -> Prepared:
    """Put what is missing into the store, in the form `form`; lease all of it. See `prepare` for `behind` and `goal`.

    With `compiling`, bytecode is being made already.
    """
    form = form or Packed(store, level=settings.pack_level)
    with compiling or Compiling(settings, store) as compiling, ExitStack() as undo, ExitStack() as temporary:
        undo.enter_context(store.lease([layer_key(layer.digest) for layer in resolved.layers]))
        outline, new, requires = _outline(resolved, store, stages, undo) if settings.streaming else (None, [], {})
        order = _order(resolved, store, python, requires) if outline else None
        here = [layer for layer in resolved.layers if layer.digest not in resolved.later]
        compiled = here if resolved.compiles else ()  # else the nodes' Python compiles what it imports
        bytecode, fresh = compiling.finish(resolved.snapshot.interpreter, compiled, stages)
        temporary.callback(remove_compiled, fresh, work=settings.work)
        undo.enter_context(store.lease([layer_key(digest) for digest in bytecode.values()]))
        manifest = _manifest(resolved, bytecode, outline)
        kit = _kit_manifest(manifest)
        script = bootstrap_script()
        keys = [manifest_key(manifest.id), manifest_key(kit.id), kit_key(kit.id), script_key(digest_bytes(script))]
        undo.enter_context(store.lease(keys))
        supply = Supply(manifest, kit, [*here, *fresh, *new], form, store)
        packing = supply.begin(
            settings,
            stages,
            first=order.first if order else (),
            behind=behind and order is not None,
            temporary=temporary,
        )
        if packing is not None:
            undo.callback(packing.close)
        with stages.stage("kit") as stage:
            kit_sha256, made = form.put_kit(kit, supply.sources)
            store.put_bytes(manifest_key(manifest.id), manifest.encode())
            store.put_bytes(keys[-1], script)
            stage.did(kits=int(made))
            stage.summary = "made" if made else "unchanged"
        return Prepared(
            snapshot=resolved.snapshot,
            replica=resolved.replica,
            plan=resolved.plan,
            manifest=manifest,
            problems=resolved.problems,
            kit_id=kit.id,
            kit_sha256=kit_sha256,
            script=store.path(keys[-1]),
            store=store,
            form=form,
            report=stages.launch_report(),
            options=options,
            python=python,
            goal=goal,
            loose=tuple(file.path for layer in resolved.layers if layer.kind is LayerKind.CODE for file in layer.files),
            _order=order,
            leaves=resolved.leaves,
            offers=resolved.offers,
            _packing=packing,
            _later=Later(resolved.later, form, store, stages.reporter.report) if resolved.later else None,
            _lease=undo.pop_all(),
        )


def _outline(
    resolved: Resolved, store: LocalStore, stages: Stages, leases: ExitStack
) -> tuple[Digest, list[LayerSource], dict[str, tuple[str, ...]]]:
    """The outline of the environment, leased; if it had to be made now its layer, and who requires whom."""
    with stages.stage("outline") as stage:
        note = outline_key(resolved.layers, resolved.replica)
        known = Digest((store.get_bytes(note) or b"").decode("ascii", "replace"))
        if is_digest(known):
            leases.enter_context(store.lease([layer_key(known)]))
            if in_any_form(store, [known]):
                stage.did(outlines=0)
                stage.summary = "unchanged"
                return known, [], {}
        requires = layer_requirements(resolved.replica, resolved.plan.target, resolved.layers)
        needed = {
            layer.name: (*requires.get(layer.name, ()), *resolved.loads.get(layer.name, ()))
            for layer in resolved.layers
        }
        made = outline_source(build_outline(resolved.layers, needed))
        leases.enter_context(store.lease([layer_key(made.digest)]))
        store.put_bytes(note, made.digest.encode(), replace=True)
        stage.did(outlines=1)
        stage.summary = f"{made.size / 1e6:.1f} MB"
    return made.digest, [made], needed


def _order(resolved: Resolved, store: LocalStore, python: str | None, requires: Mapping[str, tuple[str, ...]]) -> Order:
    executable = resolved.snapshot.interpreter.executable
    program = Program(executable=executable) if python else running_program(executable)
    return Order(program, resolved.replica, resolved.layers, store, base=resolved.plan.kit, requires=requires)


def _manifest(resolved: Resolved, bytecode: Mapping[Digest, Digest], outline: Digest | None) -> Manifest:
    interpreter = resolved.replica.interpreter
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
        base=resolved.layers[0].files[0].entry.path.partition("/")[0],
        variables=resolved.variables,
    )


def _kit_manifest(manifest: Manifest) -> Manifest:
    """The manifest of the kit: the interpreter and the distributions that a node needs to join."""
    first, *rest = manifest.layers
    return Manifest(
        target=manifest.target,
        python=manifest.python,
        cache_tag=manifest.cache_tag,
        layers=(first, *(ref for ref in rest if ref.kind in _IN_KITS and ref.name in manifest.kit)),
        base=manifest.base,
    )
