"""Bytecode for the modules of layers, made by the interpreter that will run it from the layers' own sources.

What that interpreter has made before, and would load from the ``__pycache__`` beside a source, is taken from there:
it is what the user runs already, and compiling everything anew takes a minute for a large environment. It is taken if
and only if the interpreter would, for the very source that the layer has; the rules are in `likewise.layers.compiler`.
All else is compiled. Files are named neutrally in the code (``numpy/__init__.py``), in what was taken too; importlib
puts the real place there when it loads them.

Test suites get none: they are a quarter of the modules of a scientific environment, and tasks import none of them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from likewise.errors import LayerError
from likewise.layers.compiler import SUITES
from likewise.layers.compilers import Compiled, Compilers, Key, Progress, Task
from likewise.model.digest import Digest
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source

_ROOTS = re.compile(r"(?:purelib|code/[^/]+|(?:interpreter|data)/lib/(?:python|pypy)[^/]*)/")
_FOLDER = "bytecode-"
_ABANDONED = 24 * 3600.0  # seconds


class Bytecode(NamedTuple):
    """What was made.

    Attributes
    ----------
    layers : dict of Digest to LayerSource
        From a source layer's digest to its bytecode layer; a layer without modules has none.
    taken, compiled : int
        Modules whose bytecode the interpreter had already, and those that were compiled now.
    """

    layers: dict[Digest, LayerSource]
    taken: int
    compiled: int


def count_modules(sources: Iterable[LayerSource]) -> int:
    """How many modules `compile_layers` will make bytecode of: the total of its progress."""
    return sum(1 for source in sources for _ in _modules(source))


def compile_layers(
    sources: Sequence[LayerSource], *, python: str, work: Path, jobs: int = 0, progress: Progress | None = None
) -> Bytecode:
    """Make bytecode of every importable module of `sources`: the one that `python` has already, or a new one.

    Files that don't compile are left out: test data, templates, Python 2. So is one that crashes the interpreter.

    Parameters
    ----------
    sources : sequence of LayerSource
    python, work, jobs
        As for `Compilation`.
    progress : callable, optional
        Called with the number of modules just done, from any thread.

    Raises
    ------
    LayerError
        See `Compilation`.
    """
    with Compilation(python=python, work=work, jobs=jobs) as compilation:
        return compilation.finish(sources, progress)


class Compilation:
    """Bytecode that is made while its client does something else; see `compile_layers` for what is made.

    Parameters
    ----------
    python : str
        The environment's interpreter; its version decides names and format.
    work : Path
        Where the bytecode goes, in a new directory of this object's own: several clients may share `work`. It has to
        stay until the layers are packed, see `remove_compiled`.
    jobs : int, default 0
        Interpreters at a time; 0 for one per processor.

    Raises
    ------
    LayerError
        By its methods: when a source changed since it was listed, when the interpreter can't be started, or when `work`
        can't be written.
    """

    def __init__(self, *, python: str, work: Path, jobs: int = 0) -> None:
        self._python, self._work, self._jobs = python, work, jobs or os.cpu_count() or 1
        self._tasks: dict[Digest, list[Task]] = {}  # of each layer
        self._begun: set[Key] = set()
        self._compilers: Compilers | None = None
        self._folder: Path | None = None  # as long as nobody else has what is in it

    def expect(self, site: str) -> None:
        """Begin with what `python` has for the modules in the site directory `site`, until `begin` says what is needed.

        What is found is used for nothing but a module of the same name with the same source.
        """
        self._started().look(site)

    def begin(self, sources: Iterable[LayerSource]) -> None:
        """Have the modules of `sources` compiled, without waiting for it. What is under way is not begun anew."""
        new: list[Task] = []  # one for each key: a file that two layers own gets the same bytecode in both
        for source in sources:
            if source.digest not in self._tasks:
                self._tasks[source.digest] = [Task(source, file, name) for file, name in _modules(source)]
                for task in self._tasks[source.digest]:
                    if task.key not in self._begun:
                        self._begun.add(task.key)
                        new.append(task)
        if new:
            self._started().add(new)

    def finish(self, sources: Iterable[LayerSource], progress: Progress | None = None) -> Bytecode:
        """Wait for the bytecode of `sources`, begun or not. To be called once."""
        by_digest = {source.digest: source for source in sources}
        self.begin(by_digest.values())
        if self._compilers is None:
            return Bytecode({}, 0, 0)
        compiled, tag = self._compilers.finish(progress)
        made = {digest: _layer(source, self._tasks[digest], compiled, tag) for digest, source in by_digest.items()}
        layers = {digest: layer for digest, layer in made.items() if layer.files}
        if any(file.change is None for layer in layers.values() for file in layer.files):
            self._folder = None  # something is in it
        used = [compiled[key] for key in self._begun if key in compiled]
        taken = sum(one.taken for one in used)
        return Bytecode(layers, taken, len(used) - taken)

    def close(self) -> None:
        """Stop, and delete what was not finished. May be called more than once."""
        if self._compilers is not None:
            self._compilers.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _started(self) -> Compilers:
        if self._compilers is None:
            self._folder = _new_folder(self._work)
            self._compilers = Compilers(self._python, self._folder, self._jobs)
        return self._compilers

    def __enter__(self) -> Compilation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def remove_compiled(layers: Iterable[LayerSource], *, work: Path) -> None:
    """Delete the files of bytecode layers that are packed.

    Parameters
    ----------
    layers : iterable of LayerSource
        All that one or several calls of `compile_layers` made.
    work : Path
        As given to them.
    """
    for place in {file.path for layer in layers for file in layer.files if file.change is None}:
        shutil.rmtree(work / Path(place).relative_to(work).parts[0], ignore_errors=True)


def _new_folder(work: Path) -> Path:
    """A directory for one call; those that killed clients left behind long ago are removed on the way."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        for old in work.glob(_FOLDER + "*"):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=_FOLDER, dir=work))
    except OSError as error:
        raise LayerError(
            f"The directory for compiled modules can't be written ({error.strerror}).",
            where=str(work),
            todo="See that there is space, and that it is writable.",
        ) from error


def _modules(source: LayerSource) -> Iterator[tuple[SourceFile, str]]:
    for file in source.files:
        entry = file.entry  # what names the prefix is another module on each node
        plain = entry.path.endswith(".py") and not entry.link and not entry.placeholder
        match = _ROOTS.match(entry.path) if plain else None
        name = entry.path[match.end() :] if match else ""
        if name and SUITES.isdisjoint(name.split("/")):
            yield file, name


def _layer(source: LayerSource, tasks: Iterable[Task], compiled: Mapping[Key, Compiled], tag: str) -> LayerSource:
    files = []
    for task in tasks:
        done = compiled.get(task.key)
        if done:
            entry = FileEntry(path=_pyc(task.file.entry.path, tag), sha256=done.sha256, size=done.size)
            files.append(SourceFile(entry=entry, path=done.path, offset=done.offset, change=done.change))
    return layer_source(LayerKind.BYTECODE, source.name, source.version, files)


def _pyc(path: str, tag: str) -> str:
    """PEP 3147: ``a/b.py`` → ``a/__pycache__/b.cpython-311.pyc``."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name[:-3]}.{tag}.pyc"
