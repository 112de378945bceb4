"""A real kit that has distributed as well: its Python can run an agent, ask a scheduler, and start a worker."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import sysconfig
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from likewise.layers.kit import write_kit
from likewise.model.keys import kit_key
from likewise.model.layer import LayerKind, LayerSource, layer_source
from support.nodes import RealKit, installed_layer, manifest_of, put, put_manifest, real_kit, source_file

_HEADER = 16  # bytes: magic, flags, and the hash or the time and size of the source (PEP 552)
_UNCHECKED = b"\x01\0\0\0"


@functools.cache
def dask_kit() -> RealKit:
    """Made once for each run of the tests. All of its layers are in its store."""
    kit = real_kit()
    there = {source.name for source in kit.layers}
    more = [installed_layer(name) for name in sorted(_closure("distributed") - there)]
    bytecode = {source.name: _bytecode(source) for source in more}
    layers = (*kit.layers, *more)
    folder = tempfile.TemporaryDirectory(prefix="likewise-kit-")
    _KEEP.append(folder)
    store = Path(folder.name)
    put(store, *layers, *bytecode.values())
    manifest = put_manifest(store, manifest_of(*layers, bytecode=bytecode))
    path = store / kit_key(manifest.id)
    path.parent.mkdir()
    with path.open("wb") as out:
        sha256 = write_kit(manifest, {source.digest: source for source in (*layers, *bytecode.values())}, out)
    return RealKit(store, manifest, sha256, layers)


_KEEP: list[tempfile.TemporaryDirectory[str]] = []


def _closure(name: str) -> set[str]:
    """The distribution and everything that it needs in this prefix, by normalized name."""
    found: set[str] = set()
    todo = [name]
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found:
            found.add(name)
            requirements = map(Requirement, importlib.metadata.requires(name) or ())
            todo += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def _bytecode(source: LayerSource) -> LayerSource:
    """The bytecode that this prefix has for a layer's modules, as such that is not compared with its source."""
    files = []
    tag = sys.implementation.cache_tag
    for file in source.files:
        folder, _, name = file.entry.path.rpartition("/")
        scheme, _, below = folder.partition("/")
        path = Path(sysconfig.get_path("purelib"), below, "__pycache__", f"{name.removesuffix('.py')}.{tag}.pyc")
        if scheme == "purelib" and name.endswith(".py") and path.exists():
            data = path.read_bytes()
            content = data[:4] + _UNCHECKED + bytes(8) + data[_HEADER:]
            files.append(source_file(f"{folder}/__pycache__/{path.name}", content))
    return layer_source(LayerKind.BYTECODE, source.name, source.version, files)
