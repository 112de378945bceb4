"""Conda's records for nodes: one layer with ``conda-meta``, for all packages that are shipped.

The records of an installer name folders of the client and may have credentials, so none of them is copied. These are
written anew from what is known of the packages and from their layers. What only one installation can say (where the
package was unpacked, what a file is that names its prefix) is left out, so they are the same wherever they lie, and
whether a package was installed on the client or fetched for another platform.

Source: what conda, mamba and rattler write and read there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from likewise.errors import StoreError
from likewise.layers.editable import Notes
from likewise.model.conda import LAYER_PREFIX, NO_CHANNEL, NO_PLACE, RECORDS_LAYER, CondaPackage, spec_name
from likewise.model.conda_identity import PYTHON
from likewise.model.digest import Digest, digest_bytes
from likewise.model.keys import note_key
from likewise.model.layer import FileEntry, LayerKind, LayerSource, LazyFiles, SourceFile, layer_source, path_problem
from likewise.model.manifest import prefix_path
from likewise.model.origins import redact, redact_channel, redact_spec

_FOLDER = "data/conda-meta"
_FORMAT = 1
"""Of what is written: another one is another layer."""

_PLACE = re.compile(r"[/\\]")

_NO_DAY = "1970-01-01 00:00:00"
"""When the packages were installed: a history has to say so, and it has to be the same everywhere."""

Shipped = tuple[CondaPackage, LayerSource | None]
"""A package, and the layer that has its files, None when it has none."""


class _Path(msgspec.Struct, omit_defaults=True, kw_only=True):
    path: str = msgspec.field(name="_path")
    path_type: str
    sha256: str = ""
    size_in_bytes: int | None = None
    prefix_placeholder: str = ""
    file_mode: str = ""


class _Paths(msgspec.Struct, kw_only=True):
    paths: list[_Path]
    paths_version: int = 1


class _Record(msgspec.Struct, omit_defaults=True, kw_only=True):
    name: str
    version: str
    build: str
    build_number: int
    channel: str
    subdir: str
    fn: str
    url: str
    md5: str = ""
    sha256: str = ""
    size: int = 0
    noarch: str = ""
    depends: tuple[str, ...]
    constrains: tuple[str, ...]
    requested_spec: str = ""
    requested_specs: tuple[str, ...] = ()
    files: list[str]
    paths_data: _Paths


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a layer."""

    digest: Digest
    count: int
    size: int


def records_layer(
    packages: Iterable[CondaPackage], layers: Sequence[LayerSource], python: str, notes: Notes
) -> LayerSource | None:
    """The layer with the records of those packages whose files are in `layers`, and of those that have no files.

    Parameters
    ----------
    packages : iterable of CondaPackage
    layers : sequence of LayerSource
        All others of the environment.
    python : str
        ``python3.11``.
    notes : Notes
        Where it is remembered which layer it is, so that an unchanged environment needs none of it written again.

    Returns
    -------
    LayerSource or None
        None when there are no such packages.
    """
    shipped = _shipped(packages, layers)
    if not shipped:
        return None
    make = partial(_files, shipped, python)
    key = msgspec.json.encode((_FORMAT, python, [(one, layer.digest if layer else None) for one, layer in shipped]))
    note = note_key("conda-records", digest_bytes(key))
    known = _recall(notes, note)
    if known is None:
        made = layer_source(LayerKind.RECORDS, RECORDS_LAYER, "", make())
        with suppress(StoreError):
            remembered = _Known(made.digest, len(made.files), made.size)
            notes.put_bytes(note, msgspec.msgpack.encode(remembered), replace=True)
        return made
    return _unwritten(known, make)


def _unwritten(known: _Known, make: Callable[[], tuple[SourceFile, ...]]) -> LayerSource:
    files = LazyFiles(make, count=known.count, size=known.size)
    return LayerSource(kind=LayerKind.RECORDS, name=RECORDS_LAYER, version="", files=files, digest=known.digest)


def _recall(notes: Notes, note: str) -> _Known | None:
    with suppress(msgspec.MsgspecError, ValueError, StoreError):
        data = notes.get_bytes(note)
        return None if data is None else msgspec.msgpack.decode(data, type=_Known)
    return None


def _shipped(packages: Iterable[CondaPackage], layers: Sequence[LayerSource]) -> list[Shipped]:
    """The packages that nodes have: not those that the user wants left out, or that can't be shipped."""
    by_name = {(layer.kind, layer.name): layer for layer in layers}
    interpreter = next((layer for layer in layers if layer.kind is LayerKind.INTERPRETER), None)
    found: list[Shipped] = []
    for one in packages:
        layer = interpreter if one.name == PYTHON else by_name.get((LayerKind.CONDA, LAYER_PREFIX + one.name))
        if layer is None and one.distributions and not one.replaced:
            layer = by_name.get((LayerKind.DISTRIBUTION, one.distributions[0]))
        if (layer is not None or not one.files) and _is_name(_name(one)):
            found.append((one, layer))
    return found


def _name(one: CondaPackage) -> str:
    """What its record is called."""
    return f"{one.name}-{one.version}-{one.build}.json"


def _is_name(name: str) -> bool:
    """Whether a file can have this name: a record may say anything of its package."""
    return "/" not in name and not path_problem(f"{_FOLDER}/{name}")


def _files(shipped: Sequence[Shipped], python: str) -> tuple[SourceFile, ...]:
    """The files of the layer, sorted."""
    written = {_name(one): msgspec.json.encode(_record(one, layer, python)) for one, layer in shipped}
    written["history"] = _history([one for one, _ in shipped])
    return tuple(_file(f"{_FOLDER}/{name}", written[name]) for name in sorted(written))


def _file(path: str, data: bytes) -> SourceFile:
    return SourceFile(entry=FileEntry(path=path, sha256=digest_bytes(data), size=len(data)), data=data)


def _record(one: CondaPackage, layer: LayerSource | None, python: str) -> _Record:
    paths = [_path(file.entry, python) for file in layer.files] if layer else []
    url = redact(one.url) if _told(one.url.rsplit("/", 2)[0]) else ""
    filename = url.rpartition("/")[2] or f"{one.name}-{one.version}-{one.build}.conda"
    requested = _requested(one)
    return _Record(
        name=one.name,
        version=one.version,
        build=one.build,
        build_number=one.build_number,
        channel=_told(one.channel) or NO_CHANNEL,
        subdir=one.subdir,
        fn=filename,
        url=url or f"{NO_PLACE}{one.subdir}/{filename}",
        md5=one.md5,
        sha256=one.sha256,
        size=one.archive_size,
        noarch=one.noarch,
        depends=tuple(filter(None, map(_spec, one.requires))),
        constrains=tuple(filter(None, map(_spec, one.constrains))),
        requested_spec=next(iter(requested), ""),
        requested_specs=requested,
        files=[path.path for path in paths],
        paths_data=_Paths(paths=paths),
    )


def _path(entry: FileEntry, python: str) -> _Path:
    path = prefix_path(entry.path, python)
    if entry.link:
        return _Path(path=path, path_type="softlink")
    if entry.path.startswith("scripts/"):  # each node writes it for itself
        return _Path(path=path, path_type="unix_python_entry_point")
    return _Path(
        path=path,
        path_type="hardlink",
        sha256=entry.sha256,
        size_in_bytes=entry.size,
        prefix_placeholder=entry.placeholder,
        file_mode=("binary" if entry.binary else "text") if entry.placeholder else "",
    )


def _history(packages: Iterable[CondaPackage]) -> bytes:
    """What conda takes for the sign that a folder is a prefix; it has the specs that the user gave."""
    packages = sorted(packages, key=lambda one: one.name)
    specs = [spec for one in packages for spec in _requested(one)]
    lines = [f"==> {_NO_DAY} <==", *(f"+{one}" for one in packages)]
    lines += [f"# update specs: {specs}"] if specs else []
    return "".join(f"{line}\n" for line in lines).encode()


def _requested(one: CondaPackage) -> tuple[str, ...]:
    """The specs that the user gave; in place of a file or a URL the package's name."""
    return tuple(dict.fromkeys(_spec(spec) or one.name for spec in one.requested))


def _spec(spec: str) -> str:
    """A match spec that names no place, which may be a folder of the client's; "" when it is nothing but a place."""
    clean = redact_spec(spec)
    for text in (clean, clean.rpartition("::")[2], spec_name(clean)):
        if not _PLACE.search(text):
            return text
    return ""


def _told(channel: str) -> str:
    """A channel, URL or name; "" when it is a folder of the client's, or an address that is a secret itself."""
    from likewise.indexes.urls import secret_segments  # what it imports, an unchanged environment does not need

    clean = redact_channel(channel)
    is_folder = clean.startswith(("file:", "/", ".", "~")) or "\\" in clean
    return "" if is_folder or secret_segments(clean) else clean
