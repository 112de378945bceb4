"""What nodes get of conda beyond a copy: packages from their channels, which are made into layers here.

Nodes of another platform get all of them so, nodes like the client what the cluster alone is to have.

What a wheel holds can be told from a small part of it. A conda package's list of files lacks modes and the targets of
links, so the client brings them all here, once, and keeps them: from a package cache that conda or another program has
on this machine, or from their channel, with the credentials that conda, mamba and rattler know.

What pip has put over a package of conda's stays pip's: of that package the nodes get what is no module.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from likewise.elsewhere import Packages
from likewise.errors import FetchError, LayerError, PlanError
from likewise.indexes.conda_caches import archives_in, package_caches
from likewise.indexes.conda_channels import Channels, find_channels
from likewise.layers.conda_kept import package_layers
from likewise.layers.managed import bytecode_magic
from likewise.model.conda import LAYER_PREFIX, CondaPackage
from likewise.model.conda_identity import PYTHON
from likewise.model.identity import entry_points, is_generated
from likewise.model.layer import LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.manifest import PREFIX_MARK, prefix_path
from likewise.model.placeholders import with_prefix
from likewise.model.plan import Action, CondaDecision, LockedFile, Plan
from likewise.model.snapshot import PrefixKind, Problem, Severity, Snapshot, described_interpreter
from likewise.nodes_python import Base
from likewise.planner.conda_additions import stays
from likewise.resolution.rattler import Downloads
from likewise.scanner.conda_activate import SCRIPTS, VARIABLES, activation, not_sent
from likewise.settings import Settings
from likewise.stages import OpenStage, Stages, counted

_CHUNK = 1 << 20
_BIN = "data/bin/"
_ENTRY_POINTS = re.compile(r"purelib/[^/]+\.(?:dist-info|egg-info)/entry_points\.txt")
_LINK_SCRIPTS = ("-pre-link.sh", "-post-link.sh", "-pre-unlink.sh")


def fetch_packages(plan: Plan, snapshot: Snapshot, *, settings: Settings, stages: Stages) -> Packages:
    """The layers of all conda packages of `plan`.

    Parameters
    ----------
    plan : Plan
    snapshot : Snapshot
        The client's.
    settings : Settings
    stages : Stages

    Raises
    ------
    PlanError
        Python is not among them.
    FetchError, LayerError
        Some can't be had, or are others than were planned.
    UnsupportedError
        py-rattler is not installed.
    """
    decisions, layers = _brought(plan, snapshot, settings, stages)
    if PYTHON not in layers or layers[PYTHON].kind is not LayerKind.INTERPRETER:
        raise PlanError("Python is not among the plan's conda packages.", todo="Plan for a prefix that has it.")
    wishes = {one.name: one.requested for one in snapshot.conda}
    found = _sorted(layers, decisions, _above(plan), wishes)
    variables, problems = activated(layers.values(), settings.work)
    return Packages(
        base=_base(plan, snapshot, layers[PYTHON]),
        distributions=found.distributions,
        others=found.others,
        described=found.described,
        variables=variables,
        problems=(*problems, *_link_scripts(layers)),
    )


def add_packages(
    own: Packages,
    plan: Plan,
    snapshot: Snapshot,
    there: Sequence[LayerSource],
    *,
    settings: Settings,
    stages: Stages,
) -> Packages:
    """What nodes like the client get of conda with the packages that `plan` adds. All that is there stays as it is.

    Of a package whose distribution is there come no modules, and no file comes to a path that is taken.

    Parameters
    ----------
    own : Packages
        Without them.
    plan : Plan
    snapshot : Snapshot
        The client.
    there : sequence of LayerSource
        All layers of its prefix.
    settings : Settings
    stages : Stages

    Raises
    ------
    FetchError, LayerError
        Some can't be had, or are others than were planned.
    UnsupportedError
        py-rattler is not installed.
    """
    decisions, layers = _brought(plan, snapshot, settings, stages)
    python = snapshot.interpreter.python
    found = _sorted(layers, decisions, _above(plan), {}, room=Room(there, python))
    variables, problems = activated(layers.values(), settings.work, beneath=there, before=own.variables)
    variables = {name: value for name, value in variables.items() if snapshot.interpreter.prefix not in value}
    told = {(one.subject, one.message) for one in plan.problems}
    staying = [stays(plan, snapshot, name, owner) for name, layer in sorted(layers.items()) if (owner := _owner(layer))]
    return Packages(
        distributions=found.distributions,
        others=(*own.others, *found.others),
        described=(*own.described, *found.described),
        variables=variables,
        problems=(
            *problems,
            *_link_scripts(layers),
            *(one for one in staying if one is not None and (one.subject, one.message) not in told),
            *(_crowded(one) for one in found.described if one.missing),
        ),
    )


def _brought(
    plan: Plan, snapshot: Snapshot, settings: Settings, stages: Stages
) -> tuple[dict[str, CondaDecision], dict[str, LayerSource]]:
    """The conda packages of a plan, and the layer that each is, by name."""
    decisions = {one.name: one for one in plan.conda if one.action is not Action.DROP}
    files = {name: _file(one) for name, one in decisions.items()}
    channels = find_channels(
        plan.channels,
        environ=os.environ,
        home=Path.home(),
        python=snapshot.interpreter.executable or sys.executable,
    )
    own = snapshot.interpreter.prefix, snapshot.interpreter.base_prefix
    caches = package_caches(os.environ, Path.home(), filter(None, own))
    with stages.stage("conda", total=sum(file.size or 0 for file in files.values())) as stage:
        fetching = _Fetching(channels, caches, stage)
        got = package_layers(files.values(), fetch=fetching.fetch, work=settings.work, progress=fetching.done)
        fetching.finish()
    return decisions, {name: got[file.sha256] for name, file in files.items()}


def _above(plan: Plan) -> set[str]:
    """The distributions that do not come from the plan's conda packages."""
    return {one.name for one in plan.decisions if one.action is not Action.DROP}


def _file(one: CondaDecision) -> LockedFile:
    if one.file is None:
        raise PlanError(f"The plan says nothing of where conda's {one.name} {one.version} is.", todo="Plan anew.")
    return one.file


class Room:
    """Where there is room for files beside the layers `there`: at paths that none of them has.

    Parameters
    ----------
    there : sequence of LayerSource
    python : str
        ``python3.11``.
    """

    def __init__(self, there: Sequence[LayerSource], python: str) -> None:
        self._python = python
        self._taken = {self._path(file) for layer in there for file in layer.files}
        distributions = (layer for layer in there if layer.kind is LayerKind.DISTRIBUTION)
        self._taken |= {
            f"bin/{name}" for layer in distributions for file in layer.files for name in _entry_points(file)
        }

    def fit(self, layer: LayerSource) -> tuple[LayerSource, tuple[str, ...]]:
        """What of a layer comes to paths that nobody has, and the other paths in the prefix. They are taken then."""
        left = [file for file in layer.files if self._path(file) not in self._taken]
        out = tuple(path for file in layer.files if (path := self._path(file)) in self._taken)
        self._taken.update(map(self._path, left))
        return (layer_source(layer.kind, layer.name, layer.version, left) if out else layer), out

    def _path(self, file: SourceFile) -> str:
        return prefix_path(file.entry.path, self._python)


class _Sorted(NamedTuple):
    """Layers of conda packages: distributions by their names, all others, and every package as it will be found."""

    distributions: dict[str, LayerSource]
    others: tuple[LayerSource, ...]
    described: tuple[CondaPackage, ...]


def _sorted(
    layers: Mapping[str, LayerSource],
    decisions: Mapping[str, CondaDecision],
    above: set[str],
    wishes: Mapping[str, tuple[str, ...]],
    *,
    room: Room | None = None,
) -> _Sorted:
    """Those of `layers` (by package) that are shipped; of what others have replaced (`above`) what is no module.

    `wishes` are the specs that the user gave, by package.
    """
    distributions: dict[str, LayerSource] = {}
    others: list[LayerSource] = []
    described: list[CondaPackage] = []
    for name, layer in sorted(layers.items()):
        owner = _owner(layer)
        replaced = "pip" if owner in above else ""
        shipped = beneath(layer, name) if replaced else layer
        out: tuple[str, ...] = ()
        if room is not None and shipped is not None:
            shipped, out = room.fit(shipped)
        if shipped is not None and shipped.kind is LayerKind.DISTRIBUTION:
            distributions[shipped.name] = shipped
        elif shipped is not None and shipped.kind is LayerKind.CONDA and shipped.files:
            others.append(shipped)
        distribution = (owner,) if owner else ()
        one = _described(decisions[name], shipped, distribution, replaced, wishes.get(name, ()))
        described.append(msgspec.structs.replace(one, missing=out))
    return _Sorted(distributions, tuple(others), tuple(described))


def _owner(layer: LayerSource) -> str:
    """The distribution that a package brings, "" where it brings none."""
    return layer.name if layer.kind is LayerKind.DISTRIBUTION else ""


def _crowded(one: CondaPackage) -> Problem:
    some = ", ".join(one.missing[:3]) + (", …" if len(one.missing) > 3 else "")
    return Problem(
        code="path-taken",
        subject=one.name,
        message=f"{one.name} has files at paths that are taken ({some}); what is there stays.",
    )


def _base(plan: Plan, snapshot: Snapshot, layer: LayerSource) -> Base:
    """Their Python, and whether the client's makes bytecode for it."""
    there = described_interpreter(plan.target, magic=bytecode_magic(layer), base_kind=PrefixKind.CONDA)
    own = snapshot.interpreter
    return Base(layer, there, (there.magic, there.cache_tag) == (own.magic, own.cache_tag))


def beneath(layer: LayerSource, package: str) -> LayerSource | None:
    """What is left of a package whose distribution has been replaced by pip: all but its modules and entry points.

    Those of a package for any platform are ``scripts/``; one that was built for a platform has them as files.
    """
    points = frozenset[str]().union(*map(_entry_points, layer.files))

    def is_left(path: str) -> bool:
        as_script = f"scripts/{path[len(_BIN) :]}" if path.startswith(_BIN) else path
        return not path.startswith(("purelib/", "scripts/")) and not is_generated(as_script, points)

    left = [file for file in layer.files if is_left(file.entry.path)]
    return layer_source(LayerKind.CONDA, LAYER_PREFIX + package, layer.version, left) if left else None


def _entry_points(file: SourceFile) -> frozenset[str]:
    """The names of those that this file asks for, if it is a distribution's ``entry_points.txt``."""
    if not _ENTRY_POINTS.fullmatch(file.entry.path):
        return frozenset()
    data = Path(file.path).read_bytes() if file.data is None else file.data
    return entry_points(data.decode("utf-8", "replace"))


def _described(
    one: CondaDecision,
    layer: LayerSource | None,
    distributions: tuple[str, ...],
    replaced: str,
    requested: tuple[str, ...],
) -> CondaPackage:
    return CondaPackage(
        name=one.name,
        version=one.version,
        build=one.build,
        build_number=one.build_number,
        channel=one.channel,
        subdir=one.subdir,
        url=one.file.url if one.file else "",
        sha256=one.file.sha256 if one.file else "",
        md5=one.md5,
        archive_size=(one.file.size or 0) if one.file else 0,
        requested=requested,
        noarch=one.noarch,
        requires=one.requires,
        constrains=one.constrains,
        distributions=distributions,
        files=len(layer.files) if layer else 0,
        size=layer.size if layer else 0,
        replaced=replaced,
        content=layer.digest if layer and layer.files else None,
    )


def _link_scripts(layers: Mapping[str, LayerSource]) -> Iterable[Problem]:
    for name, layer in layers.items():
        scripts = [file.entry.path for file in layer.files if file.entry.path.endswith(_LINK_SCRIPTS)]
        if scripts:
            yield Problem(
                code="conda-link-script",
                subject=name,
                message=f"{name} has a link script ({scripts[0].partition('/')[2]}), which is not run on the nodes.",
                severity=Severity.WARNING,
            )


# ---- fetching


class _Fetching:
    """Brings archives, from a package cache of the client's or from their channel, and counts what it did."""

    def __init__(self, channels: Channels, caches: Sequence[Path], stage: OpenStage) -> None:
        self._caches, self._stage = caches, stage
        self._downloads = Downloads(channels.authorization if channels.headers else None, channels.reveal())
        self._sizes: list[int] = []  # of those that were fetched
        self._cached: list[str] = []
        self._kept: list[str] = []

    def fetch(self, file: LockedFile, into: Path) -> Path:
        """Bring a package into a folder; what a channel on this machine has stays where it is. From any thread."""
        parts = urlsplit(file.url)
        if parts.scheme != "file" and (copy := self._copied(file, into)) is not None:
            return copy
        arriving = _Arriving(file, lambda size: self._stage.advance(size, file.filename))
        if parts.scheme == "file":
            place = Path(url2pathname(parts.path))
            _read(place, file, arriving.take)
        else:
            place = into / file.filename
            with place.open("wb") as out:

                def take(data: bytes) -> None:
                    arriving.take(data)
                    out.write(data)

                self._downloads.fetch(file.url, take)
        arriving.check()
        self._sizes.append(arriving.size)
        return place

    def _copied(self, file: LockedFile, into: Path) -> Path | None:
        """A copy of the package from a package cache; None when none has it.

        Copied, because such a cache may be changed while the package is unpacked.
        """
        copy = into / file.filename
        for place in archives_in(self._caches, file):
            try:
                digest, size = _copy(place, copy)
            except OSError:  # it was removed, or may not be read; whether there is space the download will tell
                continue
            if digest == file.sha256:
                self._cached.append(file.filename)
                self._stage.advance(size, file.filename)
                return copy
        return None

    def done(self, file: LockedFile, was_fetched: bool) -> None:
        """The layer of `file` is there."""
        if not was_fetched:
            self._kept.append(file.filename)
            self._stage.advance(file.size or 0, file.filename)

    def finish(self) -> None:
        """Tell what became of all."""
        fetched, size, cached = len(self._sizes), sum(self._sizes), len(self._cached)
        self._stage.did(fetched=fetched, cached=cached, reused=len(self._kept), bytes=size)
        said = [f"{counted(fetched, 'package')}, {size / 1e6:.1f} MB", f"{len(self._kept)} were here"]
        self._stage.summary = "; ".join([*said, *([f"{cached} from a package cache"] if cached else [])])


class _Arriving:
    """A package on its way: what came of it, compared with what was planned."""

    def __init__(self, file: LockedFile, advance: Callable[[int], None]) -> None:
        self._file, self._advance = file, advance
        self._digest = hashlib.sha256()
        self.size = 0

    def take(self, data: bytes) -> None:
        """A piece of it.

        Raises
        ------
        FetchError
            More came than was planned.
        """
        self.size += len(data)
        if self._file.size is not None and self.size > self._file.size:
            raise self._other(f"more bytes arrive than the {self._file.size} that were planned")
        self._digest.update(data)
        self._advance(len(data))

    def check(self) -> None:
        """See that it is what was planned.

        Raises
        ------
        FetchError
        """
        if self._digest.hexdigest() != self._file.sha256:
            raise self._other(f"its sha256 is {self._digest.hexdigest()}")

    def _other(self, why: str) -> FetchError:
        return FetchError(
            f"{self._file.filename} is not what was planned: {why}.",
            where=self._file.index or self._file.url,
            todo=f"Pinned is {self._file.sha256}: find out who changed it, and plan anew only if you trust the change.",
            details={"filename": self._file.filename, "url": self._file.url},
        )


def _copy(place: Path, to: Path) -> tuple[str, int]:
    """Copy a file; the sha256 and the number of the bytes that were copied."""
    digest, size = hashlib.sha256(), 0
    with place.open("rb") as source, to.open("wb") as out:
        while data := source.read(_CHUNK):
            digest.update(data)
            size += len(data)
            out.write(data)
    return digest.hexdigest(), size


def _read(place: Path, file: LockedFile, out: Callable[[bytes], None]) -> None:
    try:
        with place.open("rb") as source:
            while data := source.read(_CHUNK):
                out(data)
    except OSError as error:
        raise FetchError(
            f"{file.filename} can't be read ({error.strerror or error}).",
            where=str(place),
            todo="See whether the channel is there, and plan anew.",
        ) from error


# ---- activation


def activated(
    layers: Iterable[LayerSource],
    work: Path,
    *,
    beneath: Iterable[LayerSource] = (),
    before: Mapping[str, str] | None = None,
) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """What activating a prefix with these packages would set; see `likewise.scanner.conda_activate`.

    Scripts ask whether files and folders of the prefix exist, so there is one for them, made of links, while they run.
    Where other layers are `beneath`, what activating these sets is known: `before`.
    """
    before = {"CONDA_PREFIX": PREFIX_MARK} if before is None else before
    files = {path: file for layer in layers for file in layer.files if (path := _in_root(file.entry.path))}
    told = [path for path in files if path.startswith((SCRIPTS, VARIABLES))]
    if not told:
        return dict(before), ()
    there = ((path, file) for layer in beneath for file in layer.files if (path := _in_root(file.entry.path)))
    files = {path: file for path, file in there if not path.startswith((SCRIPTS, VARIABLES))} | files
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="activating-", dir=work)))
    prefix = str(folder)
    read = {_end(path, files) for path in told}
    try:
        for path, file in files.items():
            place = _place(folder, path)
            if path in read:
                place.write_bytes(_written(file, prefix))
            else:
                with suppress(OSError):  # a client that can't make links, or tell names apart
                    place.symlink_to(file.entry.link or file.path)
        variables, problems = activation(prefix, {f"{prefix}/{path}" for path in told}, before=before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    own = os.path.realpath(work)
    followed = [name for name, value in variables.items() if own in value]  # a link, by a script
    if followed:
        problems = (*problems, not_sent(followed, "it names a folder of this machine"))
    return {name: value for name, value in variables.items() if name not in followed}, problems


def _end(path: str, files: Mapping[str, SourceFile]) -> str:
    """Where the links lead that begin at `path`: one of `files`, or what none of them is."""
    for _ in files:
        if path not in files or not files[path].entry.link:
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), files[path].entry.link))
    return path


def _place(folder: Path, path: str) -> Path:
    """Where a file of the packages is to be, in a folder that is made if need be."""
    place = folder / path
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise LayerError(
            f"Two packages claim a folder on the way to {path}: in the other one it is a file.",
            where=path,
            todo="They can't be in one prefix. Leave one of them out (--ignore).",
        ) from error
    return place


def _in_root(path: str) -> str:
    """Where the file at a layer path lies in a conda prefix, if that is not its site directory; else ""."""
    return path.removeprefix("data/") if path.startswith("data/") else ""


def _written(file: SourceFile, prefix: str) -> bytes:
    """The content of a file as it is in that prefix."""
    data = Path(file.path).read_bytes() if file.data is None else file.data
    entry = file.entry
    return with_prefix(data, entry.placeholder, prefix, binary=entry.binary) if entry.placeholder else data
