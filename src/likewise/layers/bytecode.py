"""Bytecode for the modules of layers, made by the interpreter that will run it from the layers' own sources.

What that interpreter has made before, and would load from the ``__pycache__`` beside a source, is taken from there:
it is what the user runs already, and compiling everything anew takes a minute for a large environment. It is taken if
and only if the interpreter would, for the very source that the layer has; the rules are in `likewise.layers.compiler`.
All else is compiled. Files are named neutrally in the code (``numpy/__init__.py``), in what was taken too; importlib
puts the real place there when it loads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from likewise.errors import LayerError
from likewise.layers import compiler
from likewise.model.digest import Digest
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source

Progress = Callable[[int], None]

_ROOTS = re.compile(r"(?:purelib|code/[^/]+|interpreter/lib/(?:python|pypy)[^/]*)/")
_FOLDER = "bytecode-"
_ABANDONED = 24 * 3600.0  # seconds
_BATCH_BYTES, _BATCH_FILES = 1 << 20, 100


class _Task(NamedTuple):
    """One module that needs bytecode."""

    layer: Digest
    file: SourceFile
    name: str


class _Compiled(NamedTuple):
    sha256: Digest
    size: int
    path: str
    offset: int
    taken: bool


class _Child(NamedTuple):
    """An interpreter that makes bytecode, and the file that it is written to."""

    process: subprocess.Popen[bytes]
    file: str


class Bytecode(NamedTuple):
    """What `compile_layers` made.

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
    python : str
        The environment's interpreter; its version decides names and format.
    work : Path
        Where the bytecode goes, in a new directory of this call's own: several clients may share `work`. It has to
        stay until the layers are packed, see `remove_compiled`.
    jobs : int, default 0
        Interpreters at a time; 0 for one per processor.
    progress : callable, optional
        Called with the number of modules just done, from any thread.

    Returns
    -------
    Bytecode

    Raises
    ------
    LayerError
        When a source changed since it was listed, when the interpreter can't be started, or when `work` can't be
        written.
    """
    by_digest = {source.digest: source for source in sources}
    tasks = _unique(by_digest.values())
    if not tasks:
        return Bytecode({}, 0, 0)
    folder = _new_folder(work)
    try:
        compiled, tag = _Pool(python, folder, progress).run(tasks, jobs or os.cpu_count() or 1)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    layers = (_layer(source, compiled, tag) for source in by_digest.values())
    made = {digest: layer for digest, layer in zip(by_digest, layers, strict=True) if layer.files}
    taken = sum(one.taken for one in compiled.values())
    return Bytecode(made, taken, len(compiled) - taken)


def remove_compiled(layers: Iterable[LayerSource], *, work: Path) -> None:
    """Delete the files of bytecode layers that are packed.

    Parameters
    ----------
    layers : iterable of LayerSource
        All that one or several calls of `compile_layers` made.
    work : Path
        As given to them.
    """
    for place in {file.path for layer in layers for file in layer.files}:
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
        match = _ROOTS.match(file.entry.path) if file.entry.path.endswith(".py") and not file.entry.link else None
        if match:
            yield file, file.entry.path[match.end() :]


def _unique(sources: Iterable[LayerSource]) -> dict[tuple[str, Digest], _Task]:
    """One task for each name and content: a file that two layers own gets the same bytecode in both."""
    tasks: dict[tuple[str, Digest], _Task] = {}
    for source in sources:
        for file, name in _modules(source):
            tasks.setdefault((name, file.entry.sha256), _Task(source.digest, file, name))
    return tasks


def _layer(source: LayerSource, compiled: dict[tuple[str, Digest], _Compiled], tag: str) -> LayerSource:
    files = []
    for file, name in _modules(source):
        done = compiled.get((name, file.entry.sha256))
        if done:
            entry = FileEntry(path=_pyc(file.entry.path, tag), sha256=done.sha256, size=done.size)
            files.append(SourceFile(entry=entry, path=done.path, offset=done.offset))
    return layer_source(LayerKind.BYTECODE, source.name, source.version, files)


def _pyc(path: str, tag: str) -> str:
    """PEP 3147: ``a/b.py`` → ``a/__pycache__/b.cpython-311.pyc``."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name[:-3]}.{tag}.pyc"


def _batches(tasks: Iterable[_Task]) -> Iterator[list[_Task]]:
    batch: list[_Task] = []
    size = 0
    for task in tasks:
        batch.append(task)
        size += task.file.entry.size
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Pool:
    """Threads that each feed one interpreter, until all batches are done."""

    def __init__(self, python: str, work: Path, progress: Progress | None) -> None:
        self._python, self._work, self._progress = python, work, progress
        self._queue: deque[list[_Task]] = deque()
        self._compiled: dict[tuple[str, Digest], _Compiled] = {}
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._stopped = False
        self._tag = ""
        self._program = Path(compiler.__file__).read_text(encoding="utf-8") + "\nserve()\n"

    def run(self, tasks: dict[tuple[str, Digest], _Task], jobs: int) -> tuple[dict[tuple[str, Digest], _Compiled], str]:
        """Compile all of `tasks`. Whatever ends it, Ctrl-C included, no child outlives it."""
        self._queue.extend(_batches(tasks.values()))
        workers = min(jobs, len(self._queue))
        with ThreadPoolExecutor(workers) as threads:
            try:
                futures = [threads.submit(self._feed) for _ in range(workers)]
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                self._stop()
        for future in futures:
            future.result()
        return self._compiled, self._tag

    def _stop(self) -> None:
        """End all children; the threads that feed them then see the end of a pipe, and finish."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.kill()
                child.wait()

    def _feed(self) -> None:
        child = self._start()
        while child:
            try:
                batch = self._queue.popleft()
            except IndexError:
                break
            rest = batch[self._compile(child, batch) :]
            if rest:  # it died in one of these: in which shows when each goes alone, and that one is left out
                _close(child.process)
                if len(rest) == 1:
                    self._advance(1)
                else:
                    self._queue.extendleft([task] for task in reversed(rest))
                child = self._start()
        if child:
            _close(child.process)

    def _start(self) -> _Child | None:
        """A child that has said hello; None once the pool is stopped."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") or k == "PYTHONPYCACHEPREFIX"}
        with self._lock:
            if self._stopped:
                return None
            file = str(self._work / f"modules-{len(self._children)}")
            argv = [self._python, "-S", "-s", "-B", "-W", "ignore", "-c", self._program, file]
            try:
                child = subprocess.Popen(  # in a folder of ours: `-c` looks for modules there first
                    argv, cwd=self._work, env={**environ, "PYTHONHASHSEED": "0"},
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            except OSError as error:
                raise self._broken(error.strerror or str(error)) from error
            self._children.append(child)
        assert child.stdout
        hello = child.stdout.readline()
        if hello:
            self._tag = json.loads(hello)[0]
            return _Child(child, file)
        _close(child)
        if self._stopped:
            return None
        raise self._broken(f"it exited with {child.returncode}")

    def _broken(self, reason: str) -> LayerError:
        return LayerError(
            f"The environment's interpreter can't be started to compile its modules ({reason}).",
            where=self._python,
            todo="Check that it runs.",
        )

    def _compile(self, child: _Child, batch: list[_Task]) -> int:
        """Have `batch` compiled; how many modules were answered, fewer than all when the child died."""
        process = child.process
        assert process.stdin and process.stdout
        rows = [(self._source(task), task.file.entry.sha256, task.name) for task in batch]
        try:
            process.stdin.write(json.dumps(rows).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return 0
        done = 0
        while done < len(batch):
            line = process.stdout.readline()
            if not line.endswith(b"\n"):
                break
            answers = json.loads(line)
            for task, answer in zip(batch[done:], answers, strict=False):
                self._take(task, child.file, answer)
            done += len(answers)
            self._advance(len(answers))
        return done

    def _source(self, task: _Task) -> str:
        if task.file.data is None:
            return task.file.path
        path = self._work / "sources" / task.file.entry.sha256
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(task.file.data)
        return str(path)

    def _take(self, task: _Task, file: str, answer: tuple[str, int, int, bool] | str) -> None:
        if not isinstance(answer, str):
            digest, offset, size, taken = answer
            made = _Compiled(Digest(digest), size, file, offset, taken)
            self._compiled[task.name, task.file.entry.sha256] = made
        elif answer == "changed":
            raise LayerError(
                f"{task.file.path} changed while it was being compiled.", where=task.name, todo="Run again."
            )
        elif answer != "skipped":
            raise LayerError(f"A module could not be compiled ({answer}).", where=task.name)

    def _advance(self, count: int) -> None:
        if self._progress:
            self._progress(count)


def _close(child: subprocess.Popen[bytes]) -> None:
    """Let a child end (it does, at the end of its input) and release its pipes."""
    assert child.stdin and child.stdout
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    child.stdout.close()
    child.wait()
