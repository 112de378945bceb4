"""Layers and kits that lie unpacked in the client's store, for nodes on the same file system.

A loose layer is a folder with the files of a layer, each below its path in the layer, and the listing beside it:
``<digest>`` and ``<digest>.listing``. Its files are copies, never links to those of the user: nobody may write to what
several prefixes share. They are hashed while they are copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from likewise.errors import LayerError
from likewise.layers.content import named, read_content, read_listing
from likewise.layers.pack import Progress
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerKind, LayerSource, SourceFile, decode_listing, encode_listing
from likewise.model.manifest import Manifest

FOLDER, FILE, PROGRAM = 0o755, 0o444, 0o555
"""Modes of what is loose: those of the files in a node's prefix, which are the same files."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)


def write_loose(source: LayerSource, tree: Path, listing: Path, *, progress: Progress | None = None) -> None:
    """Copy all files of `source`, checking each against its entry while it is read.

    Memory does not depend on the size of the layer. After an error what was written is worthless.

    Parameters
    ----------
    source : LayerSource
    tree : Path
        The folder for the files. It is made.
    listing : Path
        The file for the listing. It is made.
    progress : callable, optional
        Called with the number of content bytes just read.

    Raises
    ------
    LayerError
        When a file vanished, or is not what its entry says, or when `source.digest` is not its listing's.
    OSError
        When nothing can be written there.
    """
    text = read_listing(source)
    copier = _Copier(source, tree, progress)
    for file in source.files:
        copier.add(file)
    listing.write_bytes(text)


class _Copier:
    """Writes files below one folder: no more calls to the system for each than it takes."""

    def __init__(self, source: LayerSource, tree: Path, progress: Progress | None) -> None:
        self._source, self._root, self._progress = source, str(tree), progress
        os.mkdir(self._root, FOLDER)
        # A process has one umask, and asking for it would change it for all threads.
        self._plain = stat.S_IMODE(os.stat(self._root).st_mode) == FOLDER
        if not self._plain:
            os.chmod(self._root, FOLDER)
        self._folders = {""}

    def add(self, file: SourceFile) -> None:
        """Copy one file, or make one link."""
        entry = file.entry
        self._make_folder(entry.path.rpartition("/")[0])
        path = f"{self._root}/{entry.path}"
        if entry.link:
            os.symlink(entry.link, path)
            return
        mode = PROGRAM if entry.executable else FILE
        out = os.open(path, _CREATE, mode)
        try:
            for chunk in read_content(file, self._source):
                _write_all(out, chunk)
                if self._progress:
                    self._progress(len(chunk))
            if not self._plain:
                os.fchmod(out, mode)
        finally:
            os.close(out)

    def _make_folder(self, folder: str) -> None:
        if folder not in self._folders:
            self._make_folder(folder.rpartition("/")[0])
            os.mkdir(f"{self._root}/{folder}", FOLDER)
            if not self._plain:
                os.chmod(f"{self._root}/{folder}", FOLDER)
            self._folders.add(folder)


def _write_all(fd: int, data: bytes) -> None:
    """Write all of `data`: one call may write less, on a disk that is nearly full for example."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def loose_source(kind: LayerKind, name: str, version: str, digest: Digest, tree: Path) -> LayerSource:
    """A layer whose files are those of the loose layer at `tree`: the files it was made of may be gone.

    Raises
    ------
    LayerError
        When its listing is damaged, or gone.
    """
    listing = Path(f"{tree}.listing")
    try:
        text = listing.read_bytes()
    except OSError as error:
        raise LayerError(f"The loose layer can't be read ({error}).", where=name, todo="Run again.") from error
    if digest_bytes(text) != digest:
        raise LayerError(f"The loose layer's listing, {listing}, is damaged.", where=name, todo="Run again.")
    entries = decode_listing(text, where=name)
    files = tuple(SourceFile(entry=entry, path=f"{tree}/{entry.path}") for entry in entries)
    return LayerSource(kind=kind, name=name, version=version, files=files, digest=digest)


def is_loose_layer(digest: Digest, tree: Path) -> bool:
    """Whether the loose layer at `tree` has its listing, and every file of it with its size."""
    try:
        source = loose_source(LayerKind.DISTRIBUTION, "", "", digest, tree)
        return all(file.entry.link or os.lstat(file.path).st_size == file.entry.size for file in source.files)
    except (LayerError, OSError):
        return False


def is_loose_kit(tree: Path) -> bool:
    """Whether the interpreter of the kit at `tree` is there, and may be executed."""
    try:
        return os.access(tree / (tree / "python").read_text("utf-8").strip(), os.X_OK)
    except (OSError, ValueError):
        return False


def write_loose_kit(manifest: Manifest, layer: Callable[[Digest], Path | None], into: Path) -> None:
    """Make a kit of hard links to loose layers: what unpacking the file of `layers.kit.write_kit` would give.

    Parameters
    ----------
    manifest : Manifest
        The kit's.
    layer : callable
        The folder of a loose layer, None when it is not there. Bytecode that is not there is left out.
    into : Path
        The folder, which is made.

    Raises
    ------
    LayerError
        When a layer is not there, or not whole.
    OSError
        When nothing can be written there.
    """
    interpreter = f"tree/{manifest.interpreter}"
    (into / "listings").mkdir(parents=True)
    linker = _Linker(into / "tree")
    for ref in manifest.layers:
        for digest in filter(None, (ref.digest, ref.bytecode)):
            tree = layer(digest)
            if tree is None and digest == ref.bytecode:
                continue
            if tree is None:
                raise LayerError("The layer belongs to the kit and is not there.", where=ref.name)
            source = loose_source(ref.kind, ref.name, ref.version, digest, tree)
            (into / "listings" / digest).write_bytes(encode_listing([file.entry for file in source.files]))
            linker.add(source)
    if not (into / interpreter).exists():
        raise LayerError(f"The interpreter's layer has no {interpreter}.", where="kit")
    (into / "python").write_text(f"{interpreter}\n", "utf-8")
    (into / "manifest.json").write_bytes(manifest.encode())


class _Linker:
    """Lays out layers in one folder by hard links. Where two own one path they hold the same content."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._folders: set[str] = set()

    def add(self, source: LayerSource) -> None:
        """Link all files of a loose layer."""
        for file in source.files:
            folder = file.entry.path.rpartition("/")[0]
            if folder not in self._folders:
                os.makedirs(f"{self._root}/{folder}", exist_ok=True)
                self._folders.add(folder)
            try:
                with contextlib.suppress(FileExistsError):
                    _link(file, f"{self._root}/{file.entry.path}")
            except FileNotFoundError as error:
                raise LayerError(
                    f"The loose layer lacks {file.entry.path}.", where=named(source), todo="Run again."
                ) from error


def _link(file: SourceFile, path: str) -> None:
    if file.entry.link:
        os.symlink(file.entry.link, path)
        return
    try:
        os.link(file.path, path)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # it has as many names as the file system allows
        shutil.copy(file.path, path)
