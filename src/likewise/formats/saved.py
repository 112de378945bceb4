"""A snapshot as ``likewise scan --json`` writes it."""

from __future__ import annotations

import os
import re
from collections import Counter

import msgspec
from packaging.utils import canonicalize_name

from likewise.errors import UsageError
from likewise.model.conda import CondaPackage
from likewise.model.origins import redact, redact_channel, redact_requirement, redact_spec
from likewise.model.snapshot import FORMAT, Distribution, Snapshot

_SYSTEMS = ("linux", "macos", "windows")
_PYTHON = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?")
_LIBC = re.compile(r"([0-9]{1,2}(\.[0-9]{1,3})*)?")


class _Head(msgspec.Struct):
    format: int


def read_saved(text: str) -> Snapshot:
    """Read it. Whoever wrote it, no URL in it has credentials afterwards.

    Raises
    ------
    UsageError
        It is damaged, or from a newer version of likewise.
    """
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.format > FORMAT:
            raise UsageError(
                f"This snapshot has format {head.format}; this version of likewise reads up to {FORMAT}.",
                todo="Update likewise: pip install -U likewise",
            )
        snapshot = msgspec.json.decode(text, type=Snapshot)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(
            f"This snapshot is damaged: {error}.", todo="Write it again: likewise scan --json > FILE"
        ) from None
    _check(snapshot)
    return msgspec.structs.replace(
        snapshot,
        distributions=tuple(map(_clean, snapshot.distributions)),
        conda=tuple(map(_clean_package, snapshot.conda)),
    )


def _check(snapshot: Snapshot) -> None:
    """What no scan writes would be taken for something else, or for a fault of ours, wherever it comes up."""
    own, names = snapshot.interpreter, Counter(canonicalize_name(d.name) for d in snapshot.distributions)
    wrong = next((f"{name!r} is in it twice" for name, count in names.items() if count > 1), "")
    if own.platform.os not in _SYSTEMS or not _LIBC.fullmatch(own.platform.libc_version):
        wrong = f"{str(own.platform)!r} is no platform that is known here"
    if not _PYTHON.fullmatch(own.version):
        wrong = f"{own.version!r} is no version of Python"
    if wrong:
        raise UsageError(f"This snapshot can't be used: {wrong}.", todo="Write it again: likewise scan --json > FILE")


def is_here(snapshot: Snapshot) -> bool:
    """Whether the prefix of a saved snapshot is on this machine and still has all of its distributions.

    Their files may be others by now: what is copied is read, hashed and compared with the snapshot when it is.
    """
    prefix = snapshot.interpreter.prefix
    return bool(prefix) and all(
        os.path.exists(path)  # False as well where nobody may look, or for what is no path
        for path in (prefix, snapshot.interpreter.executable, *(d.metadata_path for d in snapshot.distributions))
    )


def _clean(distribution: Distribution) -> Distribution:
    origin = distribution.origin
    return msgspec.structs.replace(
        distribution,
        name=canonicalize_name(distribution.name),
        origin=msgspec.structs.replace(origin, url=redact(origin.url)) if origin.url else origin,
        requires=tuple(map(redact_requirement, distribution.requires)),
    )


def _clean_package(package: CondaPackage) -> CondaPackage:
    return msgspec.structs.replace(
        package,
        url=redact(package.url) if package.url else "",
        channel=redact_channel(package.channel),
        requested=tuple(map(redact_spec, package.requested)),
        requires=tuple(map(redact_spec, package.requires)),
        constrains=tuple(map(redact_spec, package.constrains)),
    )
