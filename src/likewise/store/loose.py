"""What a store holds unpacked: layers whose files nodes on this file system link to, and kits made of them.

    loose/<digest>/           the files of a layer
    loose/<digest>.listing    appears last, and goes first: without it the layer is not there
    loose-kits/<id>/          a kit; appears with all that is in it, by one rename

The time of the listing, and of a kit's manifest, is that of the last use. Every step behind the gate is a rename, so
a process that is killed leaves a folder in ``tmp/``, or one without its listing; both are swept. A power cut may leave
short files, so the sizes of what was last used before the machine was started are looked at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from likewise.errors import LayerError, StoreError
from likewise.model.digest import Digest
from likewise.model.keys import loose_key, loose_kit_key
from likewise.model.layer import decode_listing
from likewise.store.failures import store_error
from likewise.store.folder import Folder, remove
from likewise.store.values import Item

LISTING = ".listing"
LAYERS, KITS = "loose", "loose-kits"
_SIZES = re.compile(rb"\0(\d+)\0[x-]\0")


def is_loose(key: str) -> bool:
    """Whether `key` is that of a layer or a kit that lies unpacked."""
    return key.startswith((f"{LAYERS}/", f"{KITS}/"))


class Draft(NamedTuple):
    """Where a layer or a kit is made: the folder `tree`, and for a layer the file `listing`. Neither is there yet."""

    tree: Path
    listing: Path


class _Place(NamedTuple):
    """Where something loose lies, and the file whose presence, not empty, says that it is there."""

    tree: Path
    mark: Path


class LooseContent:
    """The unpacked content of the store at `folder`; `stamp` notes that a file was used now."""

    def __init__(self, folder: Folder, stamp: Callable[[Path], None]) -> None:
        self._folder = folder
        self._stamp = stamp

    def layer(self, digest: Digest) -> Path | None:
        """The folder with the files of a layer, None when it is not there. Asking counts as use."""
        return self._find(loose_key(digest))

    def size(self, digest: Digest) -> int:
        """Bytes of content of a layer.

        Raises
        ------
        FileNotFoundError
            When it is not there.
        """
        return _size(self._place(loose_key(digest)).mark)

    def kit(self, kit_id: Digest) -> Path | None:
        """The folder of a kit, None when it is not there. Asking counts as use."""
        return self._find(loose_kit_key(kit_id))

    def can_serve(self, cache: Path) -> bool:
        """Whether files can be linked from here into the folder `cache`, which is made when missing: it is tried."""
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._folder.scratch() as work:
                (work / "file").touch()
                there = cache / f".{work.name}"
                os.link(work / "file", there)
                os.unlink(there)
        except (OSError, StoreError):
            return False
        return True

    def create_layer(self, digest: Digest) -> contextlib.AbstractContextManager[Draft]:
        """Make a layer: a context manager that yields where.

        It appears when the block ends without an exception, all at once. When somebody else was quicker, theirs stays.

        Raises
        ------
        StoreError
            When the disk is full, over quota, read-only, … Every `OSError` of the block is taken for one of these.
        """
        return self._create(loose_key(digest))

    def create_kit(self, kit_id: Digest) -> contextlib.AbstractContextManager[Draft]:
        """Make a kit, as `create_layer` does. Its manifest is in it, as ``manifest.json``."""
        return self._create(loose_kit_key(kit_id))

    def remove_layer(self, digest: Digest) -> bool:
        """Remove a layer that turned out to be damaged, leased or not. Returns whether it was there."""
        return self._remove(loose_key(digest))

    def remove_kit(self, kit_id: Digest) -> bool:
        """Remove a kit that turned out to be damaged. Returns whether it was there."""
        return self._remove(loose_kit_key(kit_id))

    # ---- for the store itself

    def use(self, key: str) -> bool:
        """Stamp what is loose under `key` as used now; False when it is not there. To be called behind the gate."""
        place = self._place(key)
        try:
            found = place.mark.stat()
            if found.st_size == 0 or (found.st_mtime < _started() and not _is_whole(place)):  # after a power cut
                return False
            self._stamp(place.mark)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def items(self) -> Iterator[Item]:
        """All that is there. A kit shares its files with layers and costs nothing."""
        for name in self._names(LAYERS):
            if name.endswith(LISTING):
                yield from self._item(f"{LAYERS}/{name.removesuffix(LISTING)}")
        for name in self._names(KITS):
            yield from self._item(f"{KITS}/{name}")

    def drop(self, item: Item) -> list[Path]:
        """Take `item` away unless it was used since; what is left to be removed. Behind the exclusive gate."""
        place = self._place(item.key)
        try:
            return self._unhinge(place) if place.mark.stat().st_mtime == item.used else []
        except FileNotFoundError:
            return []

    def halves(self) -> list[Path]:
        """Trees that have no listing, taken away and left to be removed. Behind the exclusive gate."""
        names = set(self._names(LAYERS))
        halves = [name for name in names if not name.endswith(LISTING) and f"{name}{LISTING}" not in names]
        return [tree for name in halves for tree in self._unhinge(self._place(f"{LAYERS}/{name}"))]

    # ---- inside

    def _place(self, key: str) -> _Place:
        tree = self._folder.root / key
        is_kit = key.startswith(f"{KITS}/")
        return _Place(tree, tree / "manifest.json" if is_kit else tree.with_name(tree.name + LISTING))

    def _find(self, key: str) -> Path | None:
        with self._folder.gate(shared=True):
            return self._folder.root / key if self.use(key) else None

    def _remove(self, key: str) -> bool:
        with self._folder.gate(shared=False):
            trees = self._unhinge(self._place(key))
        for tree in trees:
            remove(tree)
        return bool(trees)

    @contextlib.contextmanager
    def _create(self, key: str) -> Iterator[Draft]:
        with self._folder.scratch() as work:
            draft = Draft(work / "tree", work / "listing")
            try:
                yield draft
                self._publish(draft, key)
            except OSError as error:
                where = error.filename if isinstance(error.filename, str) else str(work)
                raise store_error(error, Path(where)) from error

    def _publish(self, draft: Draft, key: str) -> None:
        place = self._place(key)
        with self._folder.gate(shared=False):  # nobody sees one of the two renames without the other
            if self.use(key):
                return
            place.tree.parent.mkdir(mode=0o700, exist_ok=True)
            halves = self._unhinge(place)
            os.rename(draft.tree, place.tree)
            if place.mark.parent == place.tree:
                self._stamp(place.mark)
            else:
                self._stamp(draft.listing)
                os.rename(draft.listing, place.mark)
        for half in halves:
            remove(half)

    def _unhinge(self, place: _Place) -> list[Path]:
        """Take away what is there, whole or not: the listing goes first. The tree under its new name, if there is one.

        To be called behind the exclusive gate.
        """
        if place.mark.parent != place.tree:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place.mark)
        trash = self._folder.unique()
        try:
            os.rename(place.tree, trash)
        except FileNotFoundError:
            return []
        return [trash]

    def _names(self, kind: str) -> list[str]:
        try:
            return os.listdir(self._folder.root / kind)
        except (FileNotFoundError, NotADirectoryError):  # who has to write there is told
            return []

    def _item(self, key: str) -> Iterator[Item]:
        mark = self._place(key).mark
        with contextlib.suppress(FileNotFoundError):
            used = mark.stat().st_mtime
            yield Item(key=key, size=0 if key.startswith(f"{KITS}/") else _size(mark), used=used)


def _size(listing: Path) -> int:
    return sum(map(int, _SIZES.findall(listing.read_bytes())))


def _is_whole(place: _Place) -> bool:
    """Whether every file of a layer or a kit has its size."""
    is_kit = place.mark.parent == place.tree
    try:
        listings = list((place.tree / "listings").iterdir()) if is_kit else [place.mark]
        entries = [entry for listing in listings for entry in decode_listing(listing.read_bytes())]
        root = place.tree / "tree" if is_kit else place.tree
        return all(entry.link or os.lstat(f"{root}/{entry.path}").st_size == entry.size for entry in entries)
    except (OSError, LayerError):
        return False


@functools.cache
def _started() -> float:
    """When this machine was started, in seconds since the epoch; 0 where that is not known."""
    try:
        for line in Path("/proc/stat").read_text("ascii").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    except OSError:
        pass
    return 0.0
