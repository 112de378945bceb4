"""Small layers, stores and kits for tests of the node side, and one real kit with an interpreter in it."""

from __future__ import annotations

import functools
import importlib.metadata
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import likewise
from likewise.layers.interpreter import interpreter_source
from likewise.layers.kit import write_kit
from likewise.layers.loose import write_loose, write_loose_kit
from likewise.layers.pack import write_archive
from likewise.model.digest import EMPTY, Digest, digest_bytes
from likewise.model.keys import kit_key, layer_key, loose_key, loose_kit_key, loose_listing_key, manifest_key
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, encode_listing, layer_source
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.snapshot import Interpreter
from likewise.model.target import Platform, Target
from likewise.model.zstd import ZstdCompressor
from likewise.node.command import Launch
from likewise.scanner.probe import probe_here
from support.prefixes import clean_environ
from support.replica import NoFacts

_SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
SHELLS = {name: argv for name, argv in _SHELLS.items() if shutil.which(argv[0])}
"""The shells that this machine has; a node's sh may be any of them."""

TARS = {name: argv for name, argv in {"gnu": ["tar"], "busybox": ["busybox", "tar"]}.items() if shutil.which(argv[0])}

Content = bytes | tuple[bytes, bool] | str
"""A file's content, with its executable bit when that is set; a string is the target of a symbolic link."""


def source_file(path: str, content: Content) -> SourceFile:
    """One file of a layer, made in memory."""
    if isinstance(content, str):
        return SourceFile(entry=FileEntry(path=path, sha256=EMPTY, size=0, link=content), data=b"")
    data, executable = content if isinstance(content, tuple) else (content, False)
    entry = FileEntry(path=path, sha256=digest_bytes(data), size=len(data), executable=executable)
    return SourceFile(entry=entry, data=data)


def layer(
    name: str, files: Mapping[str, Content], *, version: str = "1.0", kind: LayerKind = LayerKind.DISTRIBUTION
) -> LayerSource:
    """A layer of files made in memory."""
    return layer_source(kind, name, version, [source_file(path, content) for path, content in files.items()])


def distribution(
    name: str, files: Mapping[str, Content], *, version: str = "1.0", entry_points: str = ""
) -> LayerSource:
    """A layer that importlib.metadata knows as a distribution."""
    info = f"purelib/{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    more: dict[str, Content] = {f"{info}/METADATA": metadata}
    if entry_points:
        more[f"{info}/entry_points.txt"] = entry_points.encode()
    return layer(name, {**more, **files}, version=version)


def archive(source: LayerSource) -> bytes:
    """The layer's archive."""
    out = io.BytesIO()
    write_archive(source, out)
    return out.getvalue()


def raw_archive(entries: Sequence[FileEntry], contents: Iterable[bytes], *, after: bytes = b"") -> tuple[Digest, bytes]:
    """An archive of whatever entries: nothing is checked, as an attacker would do it; with its layer's digest."""
    listing = encode_listing(entries)
    compressor = ZstdCompressor(level=3)
    data = compressor.compress(len(listing).to_bytes(8, "little") + listing + b"".join(contents) + after)
    return digest_bytes(listing), data + compressor.flush()


def put(store: Path, *sources: LayerSource) -> None:
    """Put the archives of layers into a store's directory, each at once, as stores do it."""
    for source in sources:
        path = store / layer_key(source.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.write_bytes(archive(source))
        new.replace(path)


def put_loose(store: Path, *sources: LayerSource) -> None:
    """Put layers into a store's directory as they are for nodes on its file system: unpacked."""
    (store / "loose").mkdir(parents=True, exist_ok=True)
    for source in sources:
        listing = store / loose_listing_key(source.digest)
        draft = listing.with_name(f"{listing.name}.draft")
        write_loose(source, store / loose_key(source.digest), draft)
        draft.rename(listing)  # a node may be looking for it: half a listing would count as damaged, and be removed


def put_loose_kit(store: Path, manifest: Manifest) -> Path:
    """Make a kit of a store's loose layers; where it is."""
    place = store / loose_kit_key(manifest.id)
    write_loose_kit(manifest, lambda digest: store / loose_key(digest), place)
    return place


def manifest_of(
    *layers: LayerSource, bytecode: Mapping[str, LayerSource] | None = None, after: tuple[str, ...] = (),
    before: tuple[str, ...] = (),
) -> Manifest:  # fmt: skip
    """The manifest of these layers, for the running Python."""
    interpreter = this_interpreter()
    refs = [
        LayerRef(
            kind=source.kind,
            name=source.name,
            version=source.version,
            digest=source.digest,
            files=len(source.files),
            size=source.size,
            bytecode=(bytecode or {})[source.name].digest if source.name in (bytecode or {}) else None,
        )
        for source in layers
    ]
    return Manifest(
        target=Target(platform=Platform(os="linux", arch=interpreter.platform.arch), python=interpreter.version),
        python=interpreter.python,
        cache_tag=interpreter.cache_tag,
        layers=tuple(refs),
        before=before,
        after=after,
    )


@functools.cache
def this_interpreter() -> Interpreter:
    """The running Python."""
    return probe_here().interpreter


def put_manifest(store: Path, manifest: Manifest) -> Manifest:
    """Put a manifest into a store's directory."""
    path = store / manifest_key(manifest.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest.encode())
    return manifest


class RealKit(msgspec.Struct, frozen=True):
    """A kit that runs: the running Python's interpreter, msgspec, zstd and likewise; in a store of its own."""

    store: Path
    manifest: Manifest
    sha256: Digest
    layers: tuple[LayerSource, ...]

    @property
    def file(self) -> Path:
        """The kit's file."""
        return self.store / kit_key(self.manifest.id)

    def launch(
        self, cache: Path, manifest: Manifest | None = None, *, store: Path | None = None, **change: Any
    ) -> Launch:
        """How to start a node in `manifest` (the kit's own by default)."""
        launch = Launch(
            script=str(Path(likewise.__file__).parent / "node" / "bootstrap.sh"),
            cache=str(cache),
            store=str(store or self.store),
            manifest=(manifest or self.manifest).id,
            kit=str(self.file),
            kit_id=self.manifest.id,
            kit_sha256=self.sha256,
        )
        return msgspec.structs.replace(launch, **change)

    def with_layers(self, *more: LayerSource, **roots: tuple[str, ...]) -> Manifest:
        """A manifest of the kit's layers and `more`; all of it is in the kit's store afterwards."""
        put(self.store, *more)
        return put_manifest(self.store, manifest_of(*self.layers, *more, **roots))


@functools.cache
def real_kit() -> RealKit:
    """Made once for each run of the tests."""
    folder = tempfile.TemporaryDirectory(prefix="likewise-kit-")
    _KEEP.append(folder)
    root = Path(folder.name)
    interpreter, _ = interpreter_source(this_interpreter(), facts=NoFacts(), work=root / "work")
    layers = (interpreter, *map(installed_layer, ("backports.zstd", "msgspec")), _this_package())
    store = root / "store"
    put(store, *layers)
    manifest = put_manifest(store, manifest_of(*layers))
    path = store / kit_key(manifest.id)
    path.parent.mkdir()
    with path.open("wb") as out:
        sha256 = write_kit(manifest, {source.digest: source for source in layers}, out)
    return RealKit(store, manifest, sha256, layers)


_KEEP: list[tempfile.TemporaryDirectory[str]] = []


def installed_layer(name: str) -> LayerSource:
    """A distribution of the running Python's prefix, without bytecode; it is kept in memory."""
    found = importlib.metadata.distribution(name)
    files = []
    for file in found.files or ():
        path = Path(str(file.locate()))
        if ".." in file.parts or path.suffix == ".pyc" or path.name in ("RECORD", "INSTALLER", "REQUESTED"):
            continue
        files.append(_on_disk(f"purelib/{file.as_posix()}", path))
    return layer_source(LayerKind.DISTRIBUTION, name.replace(".", "-"), found.version, files)


def _this_package() -> LayerSource:
    root = Path(likewise.__file__).parent
    files = [
        _on_disk(f"purelib/likewise/{path.relative_to(root).as_posix()}", path)
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    metadata = f"Metadata-Version: 2.1\nName: likewise\nVersion: {likewise.__version__}\n".encode()
    files.append(source_file(f"purelib/likewise-{likewise.__version__}.dist-info/METADATA", metadata))
    return layer_source(LayerKind.DISTRIBUTION, "likewise", likewise.__version__, files)


def _on_disk(path: str, file: Path) -> SourceFile:
    data = file.read_bytes()  # kept, because the checkout may change while tests run
    entry = FileEntry(path=path, sha256=digest_bytes(data), size=len(data), executable=os.access(file, os.X_OK))
    return SourceFile(entry=entry, data=data)


def few_tools(path: Path, *more: str) -> Path:
    """Make a folder with the only programs that bootstrap.sh may count on."""
    path.mkdir()
    for name in ("tar", "gzip", "mkdir", "mv", "rm", *more):
        found = shutil.which(name)
        assert found
        (path / name).symlink_to(found)
    return path


def start(
    launch: Launch, *argv: str, shell: Sequence[str] = ("sh",), env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run Python in a replica and wait for it."""
    return subprocess.run(
        [*shell, *launch.argv()[1:], *argv],
        env=clean_environ() if env is None else dict(env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
