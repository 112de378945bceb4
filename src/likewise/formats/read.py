"""From a file to a Snapshot, and to what the file pins for a target."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from msgspec.structs import replace as replace_struct
from packaging.utils import canonicalize_name

from likewise.errors import UsageError
from likewise.formats.conda import READABLE as CONDA_READABLE
from likewise.formats.conda import is_conda
from likewise.formats.conda_reading import CondaReading, read_conda_client
from likewise.formats.listing import UNKNOWN_VERSION, Listing, Pin, wheel_tags
from likewise.formats.pip_inspect import read_inspect
from likewise.formats.pylock import read_pylock
from likewise.formats.requirements import read_requirements
from likewise.formats.saved import is_here, read_saved
from likewise.formats.text import read_text
from likewise.formats.uv_lock import read_uv_lock
from likewise.model.markers import marker_environment
from likewise.model.plan import LockedFile
from likewise.model.snapshot import (
    Distribution,
    Interpreter,
    OriginKind,
    Problem,
    Severity,
    Snapshot,
    described_interpreter,
)
from likewise.model.target import Platform, Target
from likewise.versions import check_python, same_version

READABLE = (
    "a snapshot (likewise scan --json), pip inspect, pip freeze, a requirements file with every version, uv.lock, "
    f"pylock.toml, {CONDA_READABLE}"
)
"""The formats, for people."""

_SNAPSHOT = re.compile(r'(?<!\\)"(interpreter|distributions)"\s*:')
_UV_LOCK = re.compile(r"^version\s*=\s*\d", re.MULTILINE)
_PYLOCK = re.compile(r"^lock-version\s*=", re.MULTILINE)
_HEAD = 4096


@dataclass(frozen=True)
class Reading:
    """What a file says.

    Attributes
    ----------
    snapshot : Snapshot
        What the client has. Of what is not in the file (folders, sizes, bytecode magic), it has empty texts and 0.
    here : bool
        Whether the snapshot's files are on this machine.
    listing : Listing or None
        What the file says about any platform; None for a snapshot, which is about its own only.
    path : Path or None
        The file.
    text : str
        Its text, where it has been read from a pipe and can't be read again; it may have credentials.
    conda : CondaReading or None
        What a file of conda's says besides: channels, and what pip is asked for.
    """

    snapshot: Snapshot
    here: bool = False
    listing: Listing | None = None
    path: Path | None = None
    text: str = field(default="", repr=False)
    conda: CondaReading | None = None


@dataclass(frozen=True)
class Pins:
    """What a file pins for one target, by normalized name.

    Attributes
    ----------
    files : mapping
        The wheel that fits best, of each distribution that has one in the file.
    hashes : mapping
        Version and sha256 values of all files that may be used; only of distributions that have any.
    versions : mapping
        Where the file has another version for the target than the client has.
    extras : tuple of str
        Requirements (PEP 508) of what is installed on the target and not on the client.
    problems : tuple of Problem
    """

    files: Mapping[str, LockedFile]
    hashes: Mapping[str, tuple[str, frozenset[str]]]
    versions: Mapping[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


NOTHING = Pins(files={}, hashes={})


def read(
    path: Path,
    *,
    client: Platform | None = None,
    python: str | None = None,
    machine: Target,
    environment: str = "",
) -> Reading:
    """Read a file that says what is installed.

    Parameters
    ----------
    path : Path
        Its content says what it is; its name does not matter.
    client : Platform, optional
        Where that is installed. Default: what the file says, else the platform of `machine`.
    python : str, optional
        The client's Python (PEP 440); ``3.11`` counts as ``3.11.0``, as uv has it. Default: what the file says, else
        that of `machine`.
    machine : Target
        This machine, and its Python.
    environment : str
        Which one of the environments that a file locks. Default: the one called ``default``, or the only one.

    Raises
    ------
    UsageError
        The file can't be read, is damaged or in a format that is not known here, is for another Python or platform, or
        contradicts `client` or `python` or itself.
    """
    text = read_text(path)
    try:
        if _is_saved(text):
            snapshot = read_saved(text)
            _check_given(snapshot.interpreter, client, python)
            return Reading(snapshot, here=is_here(snapshot), path=path)
        if is_conda(text):
            return _read_conda(text, path, client, python or "", machine, environment)
        listing = read_listing(text)
        where = Target(
            platform=client or listing.platform or machine.platform,
            python=full_python(python or listing.python or machine.python),
        )
        piped = "" if path.is_file() else text
        return Reading(snapshot_of(listing, where), listing=listing, path=path, text=piped)
    except UsageError as error:
        raise _at(error, path) from None


def _read_conda(
    text: str, path: Path, client: Platform | None, python: str, machine: Target, environment: str
) -> Reading:
    found = read_conda_client(text, client=client, python=python, machine=machine, environment=environment)
    snapshot = replace_struct(snapshot_of(found.listing, found.where), conda=found.contents.packages)
    return Reading(snapshot, listing=found.listing, path=path, conda=found)


def read_listing(text: str) -> Listing:
    """Read anything but a snapshot. Its content says what it is.

    Raises
    ------
    UsageError
        It is damaged, or in a format that is not known here.
    """
    start, head = text.lstrip(), text[:_HEAD]
    if start.startswith("<"):
        raise UsageError(
            "This is HTML or XML, not what it should be.",
            todo="Was it downloaded from a page that asks for a login? Give " + READABLE + ".",
        )
    if start.startswith("{"):
        return read_inspect(text)
    if _PYLOCK.search(head):
        return read_pylock(text)
    if _UV_LOCK.search(head):
        return read_uv_lock(text)
    return read_requirements(text)


def snapshot_of(listing: Listing, where: Target) -> Snapshot:
    """What a client of this platform and Python has, going by `listing`.

    Raises
    ------
    UsageError
        The listing is not meant for it, or names two versions of one distribution.
    """
    environment = marker_environment(where)
    if reason := listing.is_for(environment):
        raise UsageError(
            f"This {listing.form} does not fit: {reason}.", todo="Say what the client is: --client, --python."
        )
    pins = _one_each(listing.select(environment))
    return Snapshot(
        interpreter=described_interpreter(where, implementation=listing.implementation),
        distributions=tuple(_distribution(pin) for _, pin in sorted(pins.items())),
        code=(),
        problems=listing.problems,
    )


def pins_for(listing: Listing | None, snapshot: Snapshot, target: Target, tags: Sequence[str]) -> Pins:
    """What `listing` pins for a target.

    Parameters
    ----------
    listing : Listing or None
    snapshot : Snapshot
        What the client has.
    target : Target
    tags : sequence of str
        The target's wheel tags (PEP 425), the best first.

    Raises
    ------
    UsageError
        The listing names two versions of one distribution for the target.
    """
    if listing is None:
        return NOTHING
    environment = marker_environment(target)
    if reason := listing.is_for(environment):
        message = f"What this {listing.form} pins is not used for the nodes: {reason}."
        return replace(NOTHING, problems=(Problem(code="lock-elsewhere", subject=listing.form, message=message),))
    installed = _one_each(listing.select(environment))
    offered = _unambiguous(listing.offered(environment)) | installed
    here = {d.name: d for d in snapshot.distributions}
    new = [pin for name, pin in sorted(installed.items()) if name not in here]
    best = {name: file for name, pin in offered.items() if (file := best_wheel(pin.wheels, tags))}
    lost = {pin.name for pin in new if pin.origin.kind is not OriginKind.INDEX and pin.name not in best}
    return Pins(
        files=best,
        hashes={name: (pin.version, pin.hashes) for name, pin in offered.items() if pin.hashes},
        versions={
            name: pin.version
            for name, pin in installed.items()
            if name in here and _comparable(here[name], pin) and not same_version(here[name].version, pin.version)
        },
        extras=tuple(f"{pin.name}=={pin.version}" for pin in new if pin.name not in lost),
        problems=tuple(_not_on_an_index(pin, listing.form) for pin in new if pin.name in lost),
    )


def _not_on_an_index(pin: Pin, form: str) -> Problem:
    """What only the nodes would have is asked for on indexes, where something else may have that name."""
    return Problem(
        code="not-on-target",
        subject=pin.name,
        message=f"{form} has it for the nodes alone, and not from an index, so it is left out.",
        severity=Severity.ERROR,
    )


def best_wheel(wheels: Iterable[LockedFile], tags: Sequence[str]) -> LockedFile | None:
    """The wheel with the best of `tags`; of several, the one with the highest build number (PEP 427)."""
    order = {tag: position for position, tag in enumerate(tags)}
    found = [
        (min(positions), wheel)
        for wheel in wheels
        if (positions := [order[tag] for tag in wheel_tags(wheel.filename) if tag in order])
    ]
    if not found:
        return None
    first = min(position for position, _ in found)
    return max((wheel for position, wheel in found if position == first), key=lambda wheel: _build(wheel.filename))


def agrees(listing: Listing, snapshot: Snapshot, where: Target) -> bool:
    """Whether a lock describes what is installed: it is for this Python, and no version in it differs.

    Something may be installed besides, or not be installed (other groups, extras): that says nothing about the files.
    """
    environment = marker_environment(where)
    if listing.is_for(environment):
        return False
    pinned = _unambiguous(listing.offered(environment))
    common = [(d, pinned[d.name]) for d in snapshot.distributions if d.name in pinned]
    return bool(common) and all(same_version(d.version, pin.version) for d, pin in common if _comparable(d, pin))


def _comparable(d: Distribution, pin: Pin) -> bool:
    """Whether another version says anything: not of an editable in place of a release, nor where a lock has none."""
    same = pin.origin.kind is d.origin.kind or d.origin.kind in (OriginKind.CONDA, OriginKind.SYSTEM)
    return same and pin.version != UNKNOWN_VERSION


def full_python(text: str) -> str:
    """A full version of Python from what may be its first two parts.

    Raises
    ------
    UsageError
        It is no version.
    """
    check_python(text)
    return f"{text}.0" if re.fullmatch(r"\d+\.\d+", text) else text


def _is_saved(text: str) -> bool:
    """Whether this is a snapshot, whole or not; in a JSON string a quotation mark would have a backslash."""
    return text.lstrip().startswith("{") and _SNAPSHOT.search(text) is not None


def _check_given(interpreter: Interpreter, client: Platform | None, python: str | None) -> None:
    """A snapshot knows its own platform and Python."""
    own = interpreter.platform
    if client is not None and (client.os, client.arch) != (own.os, own.arch):
        raise UsageError(f"This snapshot is of {own}, not of {client}.", todo="Leave --client out.")
    if python is not None and not f"{interpreter.version}.".startswith(f"{python}."):
        raise UsageError(
            f"This snapshot is of Python {interpreter.version}, not of {python}.", todo="Leave --python out."
        )


def _one_each(pins: Iterable[Pin]) -> dict[str, Pin]:
    found: dict[str, Pin] = {}
    for pin in pins:
        other = found.setdefault(pin.name, pin)
        if not same_version(other.version, pin.version):
            raise UsageError(
                f"It has two versions of {pin.name}: {other.version} and {pin.version}.",
                todo="Take one of them out.",
                details={"name": pin.name, "versions": [other.version, pin.version]},
            )
    return found


def _unambiguous(pins: Iterable[Pin]) -> dict[str, Pin]:
    """By name, without those of which groups or extras that exclude each other want different versions."""
    found: dict[str, Pin] = {}
    twice: set[str] = set()
    for pin in pins:
        if not same_version(found.setdefault(pin.name, pin).version, pin.version):
            twice.add(pin.name)
    return {name: pin for name, pin in found.items() if name not in twice}


def _distribution(pin: Pin) -> Distribution:
    """The tags are known where all of its wheels are pure: then the client has one of them."""
    tags = {tag for wheel in pin.wheels for tag in wheel_tags(wheel.filename)}
    return Distribution(
        name=canonicalize_name(pin.name),
        version=pin.version,
        origin=pin.origin,
        tags=tuple(sorted(tags)) if all(tag.endswith("-none-any") for tag in tags) else (),
        installer=pin.installer,
        requested=pin.requested,
        requires=pin.requires,
        provides_extras=pin.provides_extras,
        metadata_path=pin.metadata_path,
    )


def _build(filename: str) -> tuple[int, str]:
    """A wheel's build number: the third of six parts of its name."""
    parts = filename.split("-")
    match = re.match(r"(\d+)(.*)", parts[2]) if len(parts) == 6 else None
    return (int(match[1]), match[2]) if match else (-1, "")


def _at(error: UsageError, path: Path) -> UsageError:
    return UsageError(error.what, where=error.where or str(path), todo=error.todo, details=error.details)
