"""Layers → outline: what nodes know of layers that they don't have yet (see `likewise.model.outline`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from likewise.layers.content import read_content
from likewise.model.digest import digest_bytes
from likewise.model.keys import note_key
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, encode_listing, layer_source
from likewise.model.outline import FORMAT, OUTLINE_PATH, Outline, OutlinedLayer, outlined
from likewise.model.snapshot import Snapshot


def build_outline(layers: Sequence[LayerSource], requires: Mapping[str, Sequence[str]]) -> Outline:
    """Read what belongs to the outline of an environment.

    Parameters
    ----------
    layers : sequence of LayerSource
        All layers of the manifest, in its order; the interpreter's is passed over.
    requires : mapping
        Name of a layer → names of the layers that it requires. What is not among `layers` is left out.

    Raises
    ------
    LayerError
        When a file can't be read, or is no longer what its layer says.
    """
    described = [layer for layer in layers if layer.kind is not LayerKind.INTERPRETER]
    names = {layer.name for layer in described}
    return Outline(
        layers=tuple(
            OutlinedLayer(
                name=layer.name,
                digest=layer.digest,
                listing=encode_listing([file.entry for file in layer.files]),
                files=_contents(layer),
                requires=tuple(sorted((names & set(requires.get(layer.name, ()))) - {layer.name})),
            )
            for layer in described
        )
    )


def outline_key(layers: Sequence[LayerSource], snapshot: Snapshot) -> str:
    """The store's key under which it is noted what the outline of this environment is."""
    requires = [(one.name, one.requires, one.provides_extras) for one in snapshot.distributions]
    conda = [(one.name, one.requires) for one in snapshot.conda]
    known = FORMAT, snapshot.interpreter.version, [(layer.name, layer.digest) for layer in layers], requires, conda
    return note_key("outline", digest_bytes(msgspec.json.encode(known)))


def outline_source(outline: Outline) -> LayerSource:
    """The layer as which an outline is packed, kept and sent."""
    data = outline.encode()
    entry = FileEntry(path=OUTLINE_PATH, sha256=digest_bytes(data), size=len(data))
    return layer_source(LayerKind.OUTLINE, "outline", "", [SourceFile(entry=entry, data=data)])


def _contents(layer: LayerSource) -> dict[str, bytes]:
    files = {file.entry.path: file for file in layer.files}
    paths = [entry.path for entry in outlined(file.entry for file in layer.files)]
    return {path: b"".join(read_content(files[path], layer)) for path in paths}
