"""The kit's file: the same for the same manifest, readable by every tar, and checked while it is written."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from likewise.errors import LayerError
from likewise.layers.kit import write_kit
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerKind, LayerSource, SourceFile, decode_listing, layer_source
from likewise.model.manifest import Manifest
from support.nodes import TARS, archive, distribution, layer, manifest_of

PYTHON = manifest_of().python
INTERPRETER = layer(
    "python",
    {f"interpreter/bin/{PYTHON}": (b"#!/bin/sh\necho runs\n", True), "interpreter/bin/python": PYTHON},
    kind=LayerKind.INTERPRETER,
)
LONG = "purelib/" + "/".join(["a-long-folder-name-" * 4] * 5) + "/" + "x" * 120 + ".py"
PACKAGE = distribution("pkg", {LONG: b"long\n", "purelib/näme 🚀.py": b"", "purelib/big": os.urandom(6_000_000)})
BYTECODE = layer("pkg", {"purelib/__pycache__/x.pyc": b"pyc"}, kind=LayerKind.BYTECODE)
MANIFEST = manifest_of(INTERPRETER, PACKAGE, bytecode={"pkg": BYTECODE})
SOURCES = {source.digest: source for source in (INTERPRETER, PACKAGE, BYTECODE)}


def written(
    manifest: Manifest = MANIFEST, sources: dict[Digest, LayerSource] | None = None, **options: object
) -> bytes:
    out = io.BytesIO()
    sha256 = write_kit(manifest, SOURCES if sources is None else sources, out, **options)  # type: ignore[arg-type]
    assert sha256 == hashlib.sha256(out.getvalue()).hexdigest()
    return out.getvalue()


@pytest.mark.parametrize("level", [0, 1, 6])
def test_same_manifest_same_bytes(level: int) -> None:
    """Two writers of one kit write the same file: no time, owner or order of the moment is in it."""
    assert written(level=level) == written(level=level)


def test_compression_changes_nothing_else() -> None:
    """A compressed kit is the plain one, compressed."""
    assert gzip.decompress(written(level=3)) == written()


@pytest.mark.parametrize("tar", TARS.values(), ids=TARS)
@pytest.mark.parametrize("level", [0, 3])
def test_every_tar_reads_it(tmp_path: Path, tar: list[str], level: int) -> None:
    """Long names, odd characters, links and modes survive GNU's tar and busybox's."""
    argv = [*tar, "-xzmof" if level else "-xmof", "-", "-C", str(tmp_path)]
    subprocess.run(argv, input=written(level=level), check=True)
    assert (tmp_path / "python").read_text() == f"tree/interpreter/bin/{PYTHON}\n"
    assert (tmp_path / "manifest.json").read_bytes() == MANIFEST.encode()
    for source in SOURCES.values():
        listing = (tmp_path / "listings" / source.digest).read_bytes()
        assert digest_bytes(listing) == source.digest
        for entry in decode_listing(listing):
            path = tmp_path / "tree" / entry.path
            if entry.link:
                assert os.readlink(path) == entry.link
            else:
                assert digest_bytes(path.read_bytes()) == entry.sha256
                assert os.access(path, os.X_OK) is entry.executable
    done = subprocess.run([tmp_path / "tree/interpreter/bin/python"], capture_output=True, text=True, check=True)
    assert done.stdout == "runs\n"


def test_bytecode_may_come_from_its_archive() -> None:
    """Bytecode that was compiled in an earlier run is read from its archive; without one it is left out."""
    sources = {d: s for d, s in SOURCES.items() if d != BYTECODE.digest}
    packed = archive(BYTECODE)
    assert written(sources=sources, archive=lambda digest: io.BytesIO(packed)) == written()
    assert b"__pycache__" not in written(sources=sources)


def test_files_may_be_parts_of_one_file(tmp_path: Path) -> None:
    """Bytecode lies in one file for many modules: the kit has each one's own part, checked."""
    whole = tmp_path / "modules"
    whole.write_bytes(b"before" + b"pyc" + b"after")
    (file,) = BYTECODE.files
    part = SourceFile(entry=file.entry, path=str(whole), offset=6)
    source = layer_source(LayerKind.BYTECODE, "pkg", BYTECODE.version, [part])
    assert written(sources={**SOURCES, BYTECODE.digest: source}) == written()
    whole.write_bytes(b"before" + b"PYC" + b"after")
    with pytest.raises(LayerError, match="changed while it was being packed"):
        written(sources={**SOURCES, BYTECODE.digest: source})


@pytest.mark.parametrize("damage", [b"", b"junk"])
def test_damaged_archive_is_refused(damage: bytes) -> None:
    """An archive that is not what its digest says makes no kit."""
    sources = {d: s for d, s in SOURCES.items() if d != BYTECODE.digest}
    data = damage or archive(PACKAGE)
    with pytest.raises(LayerError, match="pkg: The layer's archive is damaged"):
        written(sources=sources, archive=lambda digest: io.BytesIO(data))


def test_unknown_layer_is_named() -> None:
    """A layer whose files nobody knows is an error, not a kit that does not start."""
    with pytest.raises(LayerError, match=r"pkg: .* not known"):
        written(sources={INTERPRETER.digest: INTERPRETER})


def test_interpreter_is_needed() -> None:
    """A kit without the interpreter that its manifest names is refused."""
    with pytest.raises(LayerError, match=f"no tree/interpreter/bin/{PYTHON}"):
        written(manifest_of(PACKAGE))


@pytest.mark.parametrize("change", ["content", "gone"])
def test_changed_file_is_noticed(tmp_path: Path, change: str) -> None:
    """A file that changed since it was listed is named, and the kit is not finished."""
    file = tmp_path / "module.py"
    file.write_bytes(b"x = 1\n")
    entry = layer("pkg", {"purelib/module.py": b"x = 1\n"}).files[0].entry
    source = layer_source(LayerKind.DISTRIBUTION, "pkg", "1.0", [SourceFile(entry=entry, path=str(file))])
    manifest = manifest_of(INTERPRETER, source)
    sources = {INTERPRETER.digest: INTERPRETER, source.digest: source}
    assert written(manifest, sources)
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(b"x = 2\n")
    with pytest.raises(LayerError) as caught:
        written(manifest, sources)
    assert caught.value.where == str(file)


def test_two_owners_of_one_path() -> None:
    """A path that two layers own is in the kit once."""
    other = distribution("other", {"purelib/näme 🚀.py": b""})
    manifest = msgspec.structs.replace(MANIFEST, layers=(*MANIFEST.layers, *manifest_of(other).layers))
    data = written(manifest, {**SOURCES, other.digest: other})
    listed = subprocess.run(["tar", "-tf", "-"], input=data, capture_output=True, check=True).stdout.splitlines()
    assert len(listed) == len(set(listed))
