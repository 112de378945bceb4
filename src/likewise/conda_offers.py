"""Which layers of an environment do conda's channels offer as packages? Nodes can fetch these by themselves.

Nobody has to be asked: the records of a prefix say where each package came from, and its sha256. Whether the package
really is the layer is found out by the node that fetches it: the digest decides.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from likewise.indexes.conda_mirrors import find_mirrors, mirrored
from likewise.indexes.conda_open import open_to_all
from likewise.indexes.urls import is_of_this_machine
from likewise.model.conda import CondaPackage
from likewise.model.digest import Digest, is_digest
from likewise.model.layer import LayerKind
from likewise.model.manifest import Manifest
from likewise.model.offer import CONDA, Offer
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Snapshot

_KINDS = (LayerKind.DISTRIBUTION, LayerKind.CONDA)  # the interpreter is in the kit


def find_packages(
    manifest: Manifest, snapshot: Snapshot, *, known: Collection[Digest] = (), local: bool = False
) -> tuple[Offer, ...]:
    """The conda packages on public channels that should be layers of an environment.

    Parameters
    ----------
    manifest : Manifest
        The environment. What is in its kit, which nodes get from the client, is left out.
    snapshot : Snapshot
        The client, where it says where a package came from.
    known : collection of Digest
        Layers that are offered already.
    local : bool, default False
        Whether nodes are on this machine, so that they reach a channel that no other machine does.

    Returns
    -------
    tuple of Offer
        The largest first.
    """
    environ, home = os.environ, Path.home()
    mirrors = find_mirrors(environ, home, [])
    packages = [one for one in candidates(manifest, snapshot) if one.content not in known]
    places = {one.url: [place.reveal() for place in mirrored(one.url, mirrors)] for one in packages}
    asked = [url for urls in places.values() for url in urls if local or _is_elsewhere(url)]
    has_keyring = any(one.name == "keyring" for one in snapshot.distributions)
    python = snapshot.interpreter.executable if has_keyring else ""
    opened = open_to_all(asked, environ=environ, home=home, python=python)
    packages.sort(key=lambda one: -one.size)
    found = ((one, next((url for url in places[one.url] if url in opened), "")) for one in packages)
    return tuple(Offer(one.content, _file(one, url)) for one, url in found if one.content and url)


def candidates(manifest: Manifest, snapshot: Snapshot) -> tuple[CondaPackage, ...]:
    """The packages whose layer may be the very content of an archive of a channel.

    Nothing that was changed, or whose record does not say where it came from, or says so with a credential. Of several
    distributions in one package each has a layer of its own, and the archive has one.
    """
    layers = {ref.digest for ref in manifest.layers if ref.kind in _KINDS and ref.name not in manifest.kit}
    return tuple(one for one in snapshot.conda if one.content in layers and _may_be_fetched(one))


def _may_be_fetched(one: CondaPackage) -> bool:
    changed = one.modified or one.missing or one.replaced or len(one.distributions) > 1
    return not changed and not one.private and is_digest(one.sha256) and one.url.endswith(CONDA)


def _is_elsewhere(url: str) -> bool:
    """Whether other machines may reach it: a folder may be on a file system that they share."""
    return url.startswith("file:") or not is_of_this_machine(url)


def _file(one: CondaPackage, url: str) -> LockedFile:
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    return LockedFile(filename=name, url=url, sha256=one.sha256, size=one.archive_size or None, index=one.channel)
