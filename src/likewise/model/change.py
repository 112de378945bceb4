"""What changed between two states of an environment, and whether running processes can take it on.

An *addition* is laid beside the prefix of a running process. That is sound only where the process can't tell it from
having been there from the start: it overlaps nothing, shadows nothing, and nobody has looked for it in vain. Anything
else is a *change*, for which new processes have to start.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec

from likewise.model.digest import Digest
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest

_MODULE_SUFFIX = re.compile(r"\.(py|pyc|so|abi3\.so|cpython-[^/]*\.so|pyd)$")
_AT_START = frozenset({"sitecustomize", "usercustomize"})
_ELSEWHERE_HARMLESS = ("data/share/man/", "data/share/doc/", "data/share/licenses/")


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer puts into a prefix, as far as a running process can notice.

    Attributes
    ----------
    kind : LayerKind
    name : str
    paths : tuple of str
        Layer paths, with those of the scripts that its entry points ask for (``scripts/…``).
    groups : tuple of str
        The groups of its entry points that are no scripts: plugins of others.
    """

    kind: LayerKind
    name: str
    paths: tuple[str, ...]
    groups: tuple[str, ...] = ()


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """What processes looked for in vain: top-level modules, and distributions by their normalized names."""

    modules: frozenset[str] = frozenset()
    distributions: frozenset[str] = frozenset()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One distribution, or other layer, that is not what it was.

    Attributes
    ----------
    name : str
    old, new : str
        Versions; "" where there is none.
    why_new_workers : str
        Why running workers can't take it on; "" when they can.
    """

    name: str
    old: str = ""
    new: str = ""
    why_new_workers: str = ""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that differs between two manifests, by name.

    Attributes
    ----------
    added, changed, removed : tuple of Change
    """

    added: tuple[Change, ...] = ()
    changed: tuple[Change, ...] = ()
    removed: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    @property
    def all(self) -> tuple[Change, ...]:
        """All of them."""
        return (*self.added, *self.changed, *self.removed)

    @property
    def can_be_adopted(self) -> bool:
        """Whether running workers can take all of it on."""
        return not any(change.why_new_workers for change in self.all)


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``cluster.sync()`` did.

    Attributes
    ----------
    manifest : Digest
        The environment's id from now on.
    added, changed, removed : tuple of Change
    layers : tuple of str
        Names of the layers that the nodes did not have before; one with its bytecode counts once.
    shipped_bytes : int
        Size of these layers' archives, bytecode included.
    workers_replaced : tuple of str
        Names of the workers that were replaced by new ones.
    interrupted : tuple of str
        Keys of the tasks that had not ended on a replaced worker within the time allowed, and began anew.
    scheduler_stale : tuple of Change
        What the scheduler itself uses in its old state: it stays what it is until the cluster is started again.
    seconds : float
    """

    manifest: Digest
    added: tuple[Change, ...] = ()
    changed: tuple[Change, ...] = ()
    removed: tuple[Change, ...] = ()
    layers: tuple[str, ...] = ()
    shipped_bytes: int = 0
    workers_replaced: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    scheduler_stale: tuple[Change, ...] = ()
    seconds: float = 0.0


def classify(
    old: Manifest,
    new: Manifest,
    contents: Mapping[Digest, Contents],
    *,
    missed: Missed,
    standard: Collection[str],
) -> Changes:
    """Compare two manifests.

    Parameters
    ----------
    old, new : Manifest
    contents : mapping
        Of every layer of `new`, by digest.
    missed : Missed
        What any process that would take an addition on has looked for.
    standard : collection of str
        Top-level modules of the standard library.
    """
    then, now = _by_name(old), _by_name(new)
    kept = [contents[ref.digest] for key, ref in now.items() if key in then]
    there = _There(kept, standard, missed)
    needs = _raised_needs(old, new)
    reordered = _order_problem(old, new)
    added = [
        Change(
            name=ref.name, new=ref.version, why_new_workers=needs or reordered or there.objection(contents[ref.digest])
        )
        for key, ref in now.items()
        if key not in then
    ]
    changed = [
        Change(name=ref.name, old=then[key].version, new=ref.version, why_new_workers=_changed(then[key], ref))
        for key, ref in now.items()
        if key in then and not _same(then[key], ref)
    ]
    removed = [
        Change(name=ref.name, old=ref.version, why_new_workers="it was removed")
        for key, ref in then.items()
        if key not in now
    ]
    return Changes(added=tuple(added), changed=tuple(changed), removed=tuple(removed))


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a scheduler has imported: top-level modules, and those of them that have compiled parts."""

    modules: frozenset[str] = frozenset()
    compiled: frozenset[str] = frozenset()


def scheduler_changes(
    changes: Changes,
    loaded: Loaded,
    *,
    tops: Mapping[str, Collection[str]],
    fixed: Collection[str],
    requires: Mapping[str, Collection[str]],
) -> tuple[frozenset[str], tuple[Change, ...]]:
    """What a scheduler, which stays when the workers are replaced, can forget and import anew, and what it can't.

    It only has to know the user's modules by name. But it can't load compiled ones twice, has to keep what it runs on,
    and what others that stay loaded hold on to.

    Parameters
    ----------
    changes : Changes
    loaded : Loaded
    tops : mapping
        Top-level modules of every layer in its old state, by layer name.
    fixed : collection of str
        Names of the distributions that every node needs to join: Dask and what it requires.
    requires : mapping
        Names of the distributions that each one requires.

    Returns
    -------
    frozenset of str
        Top-level modules to forget.
    tuple of Change
        What stays as it was.
    """
    present = {name for name, modules in tops.items() if loaded.modules & frozenset(modules)}
    affected = {change.name: change for change in (*changes.changed, *changes.removed) if change.name in present}
    stuck = {name for name in affected if name in fixed or loaded.compiled & frozenset(tops[name])}
    while True:
        holders = present - (affected.keys() - stuck)
        held = {name for holder in holders for name in requires.get(holder, ())} & affected.keys()
        if held <= stuck:
            break
        stuck |= held
    forget = (frozenset(tops[name]) for name in affected.keys() - stuck)
    stale = tuple(change for name, change in affected.items() if name in stuck)
    return frozenset[str]().union(*forget), stale


def top_modules(paths: Collection[str]) -> frozenset[str]:
    """Names under which something of these layer paths can be imported."""
    found = set()
    for path in paths:
        scheme, _, rest = path.partition("/")
        if scheme == "code":
            rest = rest.partition("/")[2]
        elif scheme != "purelib":
            continue
        top, _, below = rest.partition("/")
        name = top if below else _module_name(top)
        if name.isidentifier() and name != "__pycache__":
            found.add(name)
    return frozenset(found)


def _module_name(file: str) -> str:
    return file.partition(".")[0] if _MODULE_SUFFIX.search(file) else ""


class _There:
    """What is there already, and what was looked for."""

    def __init__(self, kept: Sequence[Contents], standard: Collection[str], missed: Missed) -> None:
        self._modules = {top: layer.name for layer in kept for top in top_modules(layer.paths)}
        self._modules.update(dict.fromkeys(standard, "the standard library"))
        self._paths = {path for layer in kept for path in layer.paths if not path.startswith("interpreter/")}
        self._missed = missed

    def objection(self, layer: Contents) -> str:
        """Why `layer` can't be laid beside what is there; "" when it can."""
        if layer.kind not in (LayerKind.DISTRIBUTION, LayerKind.CODE):
            if layer.kind is LayerKind.CONDA:
                return "it is a conda package, which has to be in the prefix itself"
            return f"it is part of the {layer.kind.value}"
        tops = top_modules(layer.paths)
        shadowed = sorted(tops & self._modules.keys())
        if shadowed:
            return f"{shadowed[0]} can be imported already, from {self._modules[shadowed[0]]}"
        missed = sorted(tops & self._missed.modules)
        if missed:
            return f"a running process has looked for {missed[0]} and gone on without it"
        if layer.name in self._missed.distributions:
            return "a running process has looked for it and gone on without it"
        overlap = sorted(self._paths.intersection(layer.paths))
        if overlap:
            return f"{overlap[0]} is there already"
        if layer.groups:
            return f"it has plugins ({layer.groups[0]}) that a running process may have looked for"
        return _needs_a_start(layer.paths)


def _needs_a_start(paths: Collection[str]) -> str:
    """Why files count only where Python starts with them, or only in the prefix itself."""
    for path in paths:
        scheme, _, rest = path.partition("/")
        if scheme == "purelib" and "/" not in rest and rest.endswith(".pth"):
            return f"{rest} counts only when Python starts"
        if scheme in ("data", "headers") and not path.startswith(_ELSEWHERE_HARMLESS):
            return f"{path} has to be in the prefix itself"
    at_start = sorted(_AT_START & top_modules(paths))
    return f"{at_start[0]} counts only when Python starts" if at_start else ""


def _by_name(manifest: Manifest) -> dict[tuple[LayerKind, str], LayerRef]:
    """Its layers; not conda's records, which tell of others, and no process runs on."""
    return {(ref.kind, ref.name): ref for ref in manifest.layers if ref.kind is not LayerKind.RECORDS}


def _same(one: LayerRef, other: LayerRef) -> bool:
    return (one.digest, one.version, one.bytecode) == (other.digest, other.version, other.bytecode)


def _changed(old: LayerRef, new: LayerRef) -> str:
    if old.version != new.version:
        return f"it is another version than {old.version}"
    if old.digest == new.digest:
        return "its bytecode was compiled anew"
    if old.kind is LayerKind.CODE:
        return "a module of it was changed, added or removed"
    return "its files were changed"


def _raised_needs(old: Manifest, new: Manifest) -> str:
    for family, version in new.needs.items():
        if version != old.needs.get(family):
            return f"the nodes need {family} {version} for it, which only starting there shows"
    return ""


def _order_problem(old: Manifest, new: Manifest) -> str:
    """Loose code is found in the order of ``sys.path``, and what is adopted goes to its end."""
    if new.before[: len(old.before)] != old.before or new.after[: len(old.after)] != old.after:
        return "the order of the loose code on sys.path is another one"
    return ""
