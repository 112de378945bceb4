"""Which layers of an environment do public indexes offer as wheels? Nodes can fetch these by themselves.

It is asked behind a launch, of uv, in one question; the answers are remembered, so that a later launch asks about what
is new. Whether a wheel really is the layer is found out by the node that fetches it: the digest decides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from packaging.version import InvalidVersion, Version

from likewise.errors import StoreError
from likewise.indexes import Indexes, find_indexes
from likewise.indexes.plans import concealing
from likewise.indexes.sharing import open_to_nodes
from likewise.indexes.urls import is_of_this_machine
from likewise.model.accelerators import PYTORCH
from likewise.model.digest import Digest, digest_bytes
from likewise.model.keys import note_key
from likewise.model.layer import LayerKind
from likewise.model.manifest import Manifest
from likewise.model.offer import Offer
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Distribution, OriginKind, Snapshot
from likewise.model.target import Target
from likewise.planner.resolver import Question, Resolver, Unsolvable, Wanted
from likewise.planner.tags import expanded, fits
from likewise.resolution.uv import UvResolver
from likewise.settings import Settings
from likewise.store.local import LocalStore

OWN = "likewise"
"""The distribution that is never fetched: both ends run the very same one."""

DAY = 24 * 3600.0
"""Seconds for which it is believed that no index offers a layer."""

PATIENCE = 60.0
"""Seconds that one question may take; nobody waits for the answer."""

_PATIENCE_OF_UV = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1"}
_NO_LINKS = {"UV_FIND_LINKS": ""}  # folders, and flat lists that say little of their files


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """What was found for a layer: the wheel, or None; `asked` is in seconds since the epoch."""

    asked: float
    file: LockedFile | None = None


def find_offers(
    manifest: Manifest,
    snapshot: Snapshot,
    *,
    settings: Settings,
    store: LocalStore,
    known: Collection[Digest] = (),
    local: bool = False,
) -> tuple[Offer, ...]:
    """The wheels on public indexes that should be layers of an environment.

    Parameters
    ----------
    manifest : Manifest
        The environment. What is in its kit, which nodes get from the client, is left out.
    snapshot : Snapshot
        The client, where it says where a distribution came from.
    settings : Settings
    store : LocalStore
        Where answers are remembered: that there is a wheel until it was not used for the store's age limit, that there
        is none for a day at most, both as long as the configuration of the indexes is the same.
    known : collection of Digest
        Layers that are offered already.
    local : bool, default False
        Whether nodes are on this machine, so that they reach an index that no other machine does.

    Returns
    -------
    tuple of Offer
        Those that an index offers for which nobody needs a credential, the largest first.

    Raises
    ------
    LikewiseError
        When indexes can't be asked, without anything of a credential.
    """
    asked_for = [one for one in candidates(manifest, snapshot) if one.content not in known]
    if not asked_for:
        return ()
    indexes = find_indexes(
        environ=os.environ, home=Path.home(), folder=Path.cwd(), python=snapshot.interpreter.executable or None
    )
    book = _Book(store, indexes, manifest.target)
    found = book.read(asked_for)
    withheld = indexes.withheld(manifest.target)
    if new := [one for one in asked_for if one.content not in found and one.name not in withheld]:
        with concealing(indexes):
            wheels = find_wheels(new, manifest.target, _resolver(indexes, manifest.target, settings))
            opened = open_to_nodes(wheels.values(), indexes)
        named = {name: indexes.named(file) for name, file in wheels.items() if file in opened}
        fresh = {one.content: named.get(one.name) for one in new if one.content}
        book.write(fresh)
        found |= fresh
    sizes = {ref.digest: ref.size for ref in manifest.layers}
    files = {layer: file for layer, file in found.items() if file and (local or not is_of_this_machine(file.url))}
    offers = [Offer(layer, file) for layer, file in files.items() if indexes.open_to_all(file)]
    return tuple(sorted(without_others(store, offers), key=lambda offer: -sizes[offer.layer]))


def without_others(store: LocalStore, offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Those of `offers` of which no node has found that they are another layer."""
    return tuple(offer for offer in offers if not store.has(_other_key(offer.layer, offer.file.sha256)))


def remember_others(store: LocalStore, files: Mapping[Digest, str]) -> None:
    """Never again offer these files (sha256 by layer): nodes found that each is another layer than that.

    A store that is full is no reason to stop: the same is found out once more.
    """
    for layer, sha256 in files.items():
        with suppress(StoreError):
            store.put_bytes(_other_key(layer, sha256), sha256.encode(), replace=True)


def _other_key(layer: Digest, sha256: str) -> str:
    return note_key("other", digest_bytes(f"{layer} {sha256}".encode()))


def candidates(manifest: Manifest, snapshot: Snapshot) -> tuple[Distribution, ...]:
    """The distributions whose layer may be the very content of a wheel on an index.

    Nothing that was modified, built here, or installed from anywhere else than an index, as far as that is known.
    """
    kit = {OWN, *manifest.kit}
    layers = {ref.digest for ref in manifest.layers if ref.kind is LayerKind.DISTRIBUTION and ref.name not in kit}
    return tuple(one for one in snapshot.distributions if one.content in layers and _may_be_a_wheel(one))


def _may_be_a_wheel(one: Distribution) -> bool:
    if one.origin.kind not in (OriginKind.INDEX, OriginKind.UNKNOWN) or one.modified or one.missing or not one.tags:
        return False
    try:
        Version(one.version)
    except InvalidVersion:
        return False
    return True


def find_wheels(distributions: Sequence[Distribution], target: Target, resolver: Resolver) -> dict[str, LockedFile]:
    """The wheel of each distribution that an index has in the very version, by name.

    All are asked for at once; where there is no answer to that, the halves are, and so on down to the ones that no
    index has.

    Raises
    ------
    PlanError
        When the indexes can't be asked.
    """
    wanted = tuple(Wanted(name=one.name, specifier=f"=={one.version}") for one in distributions)
    try:
        lock = resolver.resolve(Question(target=target, wanted=wanted, alone=True, remembered=True))
    except Unsolvable:
        if len(distributions) == 1:
            return {}
        middle = len(distributions) // 2
        halves = distributions[:middle], distributions[middle:]
        return {name: file for half in halves for name, file in find_wheels(half, target, resolver).items()}
    found = {}
    for one in distributions:
        package = lock.get(one.name)
        if package is not None and Version(package.version) == Version(one.version):
            wheel = the_wheel(package.files, one.tags, target)
            if wheel is not None:
                found[one.name] = wheel
    return found


def the_wheel(files: Iterable[LockedFile], tags: Iterable[str], target: Target) -> LockedFile | None:
    """Of the files of one version that which was installed, told by the `tags` that its WHEEL has, if any was.

    The only one that fits the target will do, unless ``linux_…`` says that what is installed was built on a machine.
    """
    own = frozenset(expanded(tags))
    usable = {file: frozenset(expanded([_tag(file)])) for file in files if fits([_tag(file)], target)}
    same = [file for file, its in usable.items() if its == own]
    alike = same or [file for file, its in usable.items() if its & own]
    if not alike and not any(tag.rpartition("-")[2].startswith("linux_") for tag in own):
        alike = list(usable) if len(usable) == 1 else []
    return alike[0] if alike else None


def _tag(file: LockedFile) -> str:
    """The compressed tag set at the end of a wheel's file name (PEP 427); no tag of any other file."""
    stem, dot, kind = file.filename.rpartition(".")
    return "-".join(stem.split("-")[-3:]) if (dot, kind) == (".", "whl") else ""


def _resolver(indexes: Indexes, target: Target, settings: Settings) -> Resolver:
    """One that asks about what comes from a certain index nowhere else. PyTorch's own are everybody's: any may do."""
    environ, arguments = indexes.for_uv()
    assigned = {name: there for name, there in indexes.assigned(target).items() if name not in PYTORCH}
    return UvResolver(
        environ={**environ, **_PATIENCE_OF_UV, **_NO_LINKS},
        arguments=arguments,
        work=settings.work / "resolution",
        assigned=assigned,
        timeout=PATIENCE,
    )


class _Book:
    """What is remembered of earlier questions, as notes of the store."""

    def __init__(self, store: LocalStore, indexes: Indexes, target: Target) -> None:
        explicit = [index.url for index in indexes.explicit]
        self._store = store
        self._asked = repr((indexes, explicit, sorted(indexes.sources.items()), target))

    def _key(self, layer: Digest) -> str:
        return note_key("offer", digest_bytes(f"{layer} {self._asked}".encode()))

    def read(self, distributions: Iterable[Distribution]) -> dict[Digest, LockedFile | None]:
        """What is known, by layer."""
        found: dict[Digest, LockedFile | None] = {}
        for one in distributions:
            note = self._note(one.content) if one.content else None
            if one.content and note is not None:
                found[one.content] = note.file
        return found

    def _note(self, layer: Digest) -> _Note | None:
        data = self._store.get_bytes(self._key(layer))
        try:
            note = msgspec.json.decode(data, type=_Note) if data else None
        except msgspec.DecodeError:
            return None
        old = note is not None and note.file is None and not 0 <= time.time() - note.asked < DAY
        return None if old else note

    def write(self, found: Mapping[Digest, LockedFile | None]) -> None:
        """Remember it; a store that is full is no reason to stop."""
        now = time.time()
        for layer, file in found.items():
            try:
                self._store.put_bytes(self._key(layer), msgspec.json.encode(_Note(asked=now, file=file)), replace=True)
            except StoreError:
                return
