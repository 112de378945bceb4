"""The order in which a program needs the layers of its environment: remembered from its last run, or guessed.

A wrong order costs time and nothing else, so nothing in here is ever an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import ModuleType

import msgspec

from likewise.errors import StoreError
from likewise.layers.editable import Notes
from likewise.layers.guess import MAX_SOURCE, guess_imports
from likewise.model.digest import Digest, digest_bytes
from likewise.model.keys import note_key
from likewise.model.layer import LayerKind, LayerSource, SourceFile
from likewise.model.outline import closed, tops
from likewise.model.snapshot import Snapshot

LIMIT = 200
"""Layers that are named at most: they are part of a command line."""

_OF_DASK = ("typing_extensions", "numpy", "lz4", "snappy", "zstandard", "crick", "setproctitle", "prometheus_client")
"""Modules that Dask's own processes (or msgspec, for us) load before they work, where these are installed; they are no
requirements."""

_NAMES = msgspec.json.Decoder(tuple[str, ...])
_REMEMBERED, _GUESSED = "first", "imports"  # kinds of notes


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What is run, as far as it says what will be needed.

    Attributes
    ----------
    executable : str
        The Python of the environment.
    script : str
        The file of ``__main__``; "" for a prompt or a notebook.
    package : str
        Its package, when it was started as a module.
    names : tuple of str
        Modules that a prompt or a notebook has imported.
    """

    executable: str
    script: str = ""
    package: str = ""
    names: tuple[str, ...] = ()


def running_program(executable: str) -> Program:
    """The program that runs here, in the environment of `executable`."""
    main = sys.modules["__main__"]
    script, package = getattr(main, "__file__", None), getattr(main, "__package__", None)
    if isinstance(script, str):
        return Program(executable=executable, script=os.path.abspath(script), package=package or "")
    return Program(executable=executable, names=_imported_by(main))


def _imported_by(prompt: ModuleType) -> tuple[str, ...]:
    """Top-level names of the modules that somebody at a prompt has imported, or imported something from."""
    values = [value for name, value in list(vars(prompt).items()) if not name.startswith("_")]
    names = [v.__name__ if isinstance(v, ModuleType) else getattr(v, "__module__", None) for v in values]
    return tuple(dict.fromkeys(name.partition(".")[0] for name in names if isinstance(name, str)))


class Order:
    """What one program needs first of one environment.

    Parameters
    ----------
    program : Program
    snapshot : Snapshot
    layers : sequence of LayerSource
        All layers of the environment.
    notes : Notes
        Where it is remembered from run to run.
    base : collection of str
        Names of layers that are there from the beginning, as the interpreter is, and so need no place in the order.
    requires : mapping
        Layer → names of the layers without which its modules may not work, as far as that is known here: who imports
        one of them waits for these, too.

    Attributes
    ----------
    first : tuple of str
        Names of layers, the most urgent first; at most `LIMIT`. What Dask itself loads, what the program's last run
        needed (or that of another program in the same environment, when this one is new), what its source imports.
    """

    def __init__(
        self,
        program: Program,
        snapshot: Snapshot,
        layers: Sequence[LayerSource],
        notes: Notes,
        *,
        base: Collection[str] = (),
        requires: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._program, self._notes = program, notes
        later = [one for one in layers if one.name not in base and one.kind is not LayerKind.INTERPRETER]
        self._owners = _owners(snapshot, later)
        here = {layer.name for layer in later}
        remembered = next(filter(None, (_recall(notes, _REMEMBERED, key) for key in _keys(program))), ())
        guessed = self._layers([*_guess(program, layers, notes), *program.names])
        known = (name for name in remembered if name in here)
        names = [*self._layers(_OF_DASK), *known, *guessed]
        wanted = dict.fromkeys(each for name in names for each in closed(name, requires or {}))
        self.first = tuple(name for name in wanted if name in here)[:LIMIT]

    def remember(self, modules: Iterable[str]) -> None:
        """Keep the order in which a process has loaded `modules` (top-level names) for the next run."""
        order = self._layers(modules)[:LIMIT]
        for key in _keys(self._program) if order else ():
            _note(self._notes, _REMEMBERED, key, order)

    def _layers(self, names: Iterable[str]) -> list[str]:
        """The layers that own these top-level names, in their order."""
        return list(dict.fromkeys(layer for name in names for layer in self._owners.get(name, ())))


def _owners(snapshot: Snapshot, layers: Iterable[LayerSource]) -> dict[str, list[str]]:
    """Top-level import name → names of the layers that own it."""
    code = {layer.name: tops(file.entry for file in layer.files) for layer in layers if layer.kind is LayerKind.CODE}
    shipped = {layer.name for layer in layers if layer.kind is LayerKind.DISTRIBUTION}
    own = {one.name: one.imports for one in snapshot.distributions if one.name in shipped}
    owners: dict[str, list[str]] = {}
    for layer, names in [*code.items(), *own.items()]:
        for name in names:
            owners.setdefault(name, []).append(layer)
    return owners


def _keys(program: Program) -> tuple[Digest, ...]:
    """What is remembered is about a script in an environment, and about the environment."""
    text = program.executable, f"{program.executable}\0{program.script}"
    environment, script = (digest_bytes(each.encode("utf-8", "surrogateescape")) for each in text)
    return (script, environment) if program.script else (environment,)


def _guess(program: Program, layers: Sequence[LayerSource], notes: Notes) -> tuple[str, ...]:
    """The top-level names that the script imports; parsed once for each state of it and of the loose code."""
    if not program.script:
        return ()
    code = [layer for layer in layers if layer.kind is LayerKind.CODE]
    try:
        script = _read(program.script)
    except OSError:
        return ()
    key = digest_bytes(b"\0".join([script, program.package.encode(), *(layer.digest.encode() for layer in code)]))
    known = _recall(notes, _GUESSED, key)
    if known is None:
        modules = _modules(code)
        known = guess_imports(script, modules, lambda name: _source(modules[name]), package=program.package)
        _note(notes, _GUESSED, key, known)
    return known


def _modules(code: Iterable[LayerSource]) -> Mapping[str, SourceFile]:
    """The loose modules by their full names, as `guess_imports` wants them. Who comes first on the path wins."""
    found: dict[str, SourceFile] = {}
    for layer in code:
        for file in layer.files:
            path = file.entry.path
            if path.endswith(".py") and file.entry.size <= MAX_SOURCE:
                found.setdefault(".".join(path[:-3].split("/")[2:]), file)
    return found


def _source(file: SourceFile) -> bytes:
    return file.data if file.data is not None else _read(file.path)


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(MAX_SOURCE + 1)


def _recall(notes: Notes, kind: str, key: Digest) -> tuple[str, ...] | None:
    with suppress(msgspec.MsgspecError, ValueError, RecursionError, StoreError):
        data = notes.get_bytes(note_key(kind, key))
        return None if data is None else _NAMES.decode(data)
    return None


def _note(notes: Notes, kind: str, key: Digest, names: Sequence[str]) -> None:
    with suppress(StoreError):
        notes.put_bytes(note_key(kind, key), msgspec.json.encode(names), replace=True)
