"""The two forms in which a store holds layers and kits: packed, for nodes anywhere, or loose, for those that share its
file system and link to what lies there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from likewise.errors import LayerError
from likewise.layers.kit import archived_source, write_kit
from likewise.layers.loose import is_loose_kit, is_loose_layer, loose_source, write_loose, write_loose_kit
from likewise.layers.pack import Progress, write_archive
from likewise.model.digest import Digest
from likewise.model.keys import kit_key, layer_key, loose_key, loose_kit_key, note_key
from likewise.model.layer import LayerKind, LayerSource
from likewise.model.manifest import Manifest
from likewise.store.local import LocalStore


class Form(Protocol):
    """One way to hold layers and kits in a store."""

    name: str
    """For people: what a layer is then."""

    kit_first: bool
    """Whether the layers of a kit have to be there before it is made."""

    def have(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those of these layers that are there in this form; counts as use."""
        ...

    def put(self, layer: LayerSource, progress: Progress) -> None:
        """Put a layer into the store unless it is there. LikewiseError when that can't be done."""
        ...

    def size(self, digest: Digest) -> int:
        """Bytes of a layer that is there, as nodes get it."""
        ...

    def kit_path(self, kit_id: Digest) -> Path:
        """Where a kit lies."""
        ...

    def put_kit(self, kit: Manifest, sources: Mapping[Digest, LayerSource]) -> tuple[Digest, bool]:
        """Make a kit unless it is there: the digest to check it by, and whether it was made now.

        Raises
        ------
        LikewiseError
        """
        ...


class Packed:
    """Layers as archives, compressed at the zstd level `level`; kits as one file.

    Parameters
    ----------
    store : LocalStore
    level : int
    """

    name = "packed"
    kit_first = False

    def __init__(self, store: LocalStore, *, level: int) -> None:
        self._store, self._level = store, level

    def have(self, digests: Iterable[Digest]) -> set[Digest]:
        """See `Form`."""
        return _have(self._store, digests, layer_key)

    def put(self, layer: LayerSource, progress: Progress) -> None:
        """See `Form`."""
        try:
            with self._store.create(layer_key(layer.digest)) as out:
                write_archive(layer, out, level=self._level, progress=progress)
        except LayerError:
            tree = f"{self._store.path(loose_key(layer.digest))}/"
            if any(file.path.startswith(tree) for file in layer.files):  # it was made from there, and will be made anew
                self._store.loose.remove_layer(layer.digest)
            raise

    def size(self, digest: Digest) -> int:
        """See `Form`: bytes of the archive."""
        return self._store.path(layer_key(digest)).stat().st_size

    def kit_path(self, kit_id: Digest) -> Path:
        """See `Form`."""
        return self._store.path(kit_key(kit_id))

    def put_kit(self, kit: Manifest, sources: Mapping[Digest, LayerSource]) -> tuple[Digest, bool]:
        """See `Form`."""
        note = note_key("kit", kit.id)
        remembered = self._store.get_bytes(note)
        if remembered is not None and self._store.has(kit_key(kit.id)):
            return Digest(remembered.decode()), False
        self._store.remove(kit_key(kit.id))
        with self._store.create(kit_key(kit.id)) as out:
            digest = write_kit(kit, sources, out, archive=lambda layer: self._store.open(layer_key(layer)))
        self._store.put_bytes(note, digest.encode())
        return digest, True


class Loose:
    """Layers and kits unpacked.

    Parameters
    ----------
    store : LocalStore
    """

    name = "copied"
    kit_first = True

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def have(self, digests: Iterable[Digest]) -> set[Digest]:
        """See `Form`."""
        return _have(self._store, digests, loose_key)

    def put(self, layer: LayerSource, progress: Progress) -> None:
        """See `Form`."""
        with self._store.loose.create_layer(layer.digest) as draft:
            write_loose(layer, draft.tree, draft.listing, progress=progress)

    def size(self, digest: Digest) -> int:
        """See `Form`: bytes of its content, or of the archive where there is nothing else."""
        try:
            return self._store.loose.size(digest)
        except FileNotFoundError:
            return self._store.path(layer_key(digest)).stat().st_size

    def kit_path(self, kit_id: Digest) -> Path:
        """See `Form`."""
        return self._store.path(loose_kit_key(kit_id))

    def put_kit(self, kit: Manifest, sources: Mapping[Digest, LayerSource]) -> tuple[Digest, bool]:
        """See `Form`. It is checked by nothing but its id, and by a look at its interpreter."""
        found = self._store.loose.kit(kit.id)
        if found is not None and is_loose_kit(found):
            return kit.id, False
        self._store.loose.remove_kit(kit.id)
        try:
            with self._store.loose.create_kit(kit.id) as draft:
                write_loose_kit(kit, self._store.loose.layer, draft.tree)
        except LayerError:
            for digest in kit.digests():
                self._remove_damaged(digest)
            raise
        return kit.id, True

    def _remove_damaged(self, digest: Digest) -> None:
        tree = self._store.loose.layer(digest)
        if tree is not None and not is_loose_layer(digest, tree):
            self._store.loose.remove_layer(digest)


def in_any_form(store: LocalStore, digests: Iterable[Digest]) -> set[Digest]:
    """Those of these layers that the store has, packed or loose; counts as use."""
    return _have(store, digests, layer_key, loose_key)


def source_in_store(store: LocalStore, kind: LayerKind, name: str, version: str, digest: Digest) -> LayerSource | None:
    """A small layer as the store has it, in whatever form: what it was made of may be gone. None when it has it not.

    Raises
    ------
    LikewiseError
        When it is damaged. It is removed, so that it will be made anew.
    """
    if store.loose.layer(digest) is not None:
        try:
            return loose_source(kind, name, version, digest, store.path(loose_key(digest)))
        except LayerError:
            store.loose.remove_layer(digest)
            raise
    if store.has(layer_key(digest)):
        with store.open(layer_key(digest)) as stream:
            return archived_source(kind, name, version, digest, stream.read())
    return None


def _have(store: LocalStore, digests: Iterable[Digest], *forms: Callable[[Digest], str]) -> set[Digest]:
    """Those of these layers of which the store has one of the keys; all asked for at once, which is quick."""
    keys = {form(digest): digest for digest in digests for form in forms}
    return {keys[key] for key in store.have(keys)}
