"""Interpreters that make bytecode, and the threads that feed them (see `likewise.layers.compiler` for what they do).

Work may be added while they run, so that they are busy while their client finds out what else there is to compile.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from likewise.errors import LayerError
from likewise.layers import compiler
from likewise.layers.content import differs
from likewise.model.digest import Digest
from likewise.model.layer import Change, LayerSource, SourceFile

Progress = Callable[[int], None]
Key = tuple[str, Digest]
"""What decides the bytecode of a module: its name (as tracebacks show it), and the digest of its source."""

_FEWEST, _SHARES = 50, 4
"""An interpreter gets at least so many modules at once (if there are), and that part of what is its share of the rest:
large batches, as its client may be busy with something else when one is done, and small ones towards the end."""


class Task(NamedTuple):
    """One module that needs bytecode."""

    layer: LayerSource
    file: SourceFile
    name: str

    @property
    def key(self) -> Key:
        """By which its bytecode is found."""
        return self.name, self.file.entry.sha256


class Compiled(NamedTuple):
    """Bytecode: what it is, whether the interpreter had it already, and where it lies or what it is made of."""

    sha256: Digest
    size: int
    taken: bool
    path: str
    offset: int | None
    change: Change | None


def _compiled(file: str, sha256: str, size: int, taken: bool, where: int | list[Any]) -> Compiled:
    """What an interpreter that writes to `file` has said of some bytecode."""
    if isinstance(where, int):
        return Compiled(Digest(sha256), size, taken, file, where, None)
    path, head, start, stop, instead = where
    change = Change(head=bytes.fromhex(head), start=start, stop=stop, instead=bytes.fromhex(instead))
    return Compiled(Digest(sha256), size, taken, path, None, change)


class _Child(NamedTuple):
    """An interpreter that makes bytecode, and the file that it is written to."""

    process: subprocess.Popen[bytes]
    file: str


class Compilers:
    """Threads that each feed one interpreter.

    Parameters
    ----------
    python : str
        The interpreter.
    folder : Path
        Where the bytecode goes; a directory of their own.
    jobs : int
        Interpreters at most.
    """

    def __init__(self, python: str, folder: Path, jobs: int) -> None:
        self._python, self._folder, self._jobs = python, folder, jobs
        self._queue: deque[Task] = deque()
        self._suspects: deque[Task] = deque()  # one of them, or several, crashed an interpreter
        self._folders: deque[str] = deque()
        self._looking: list[subprocess.Popen[bytes]] = []
        self._compiled: dict[Key, Compiled] = {}
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="likewise-compile")
        self._feeding: list[Future[None]] = []
        self._changed = threading.Condition()
        self._complete = self._stopped = False
        self._progress: Progress | None = None
        self._done = 0
        self._tag = ""
        self._program = Path(compiler.__file__).read_text(encoding="utf-8") + "\nserve()\n"

    def look(self, folder: str) -> None:
        """Until there is something to compile, take what is in `folder`: whose layer it is will be known later."""
        with self._changed:
            self._folders.append(folder)
            self._employ(1)

    def add(self, tasks: Iterable[Task]) -> None:
        """Have these compiled. Returns at once."""
        with self._changed:
            self._queue.extend(tasks)
            self._look_no_more()
            self._employ(min(self._jobs, -(-len(self._queue) // _FEWEST)))

    def _employ(self, count: int) -> None:
        """See that there are threads for `count` interpreters, and that they know of what is new."""
        for _ in range(count - len(self._feeding)):
            self._feeding.append(self._threads.submit(self._feed))
        self._changed.notify_all()

    def _look_no_more(self) -> None:
        self._folders.clear()
        for process in self._looking:
            with contextlib.suppress(OSError):
                _send(process, [])

    def finish(self, progress: Progress | None = None) -> tuple[dict[Key, Compiled], str]:
        """Wait until all is compiled: what there is of each module that compiles, and the interpreter's cache tag.

        Parameters
        ----------
        progress : callable, optional
            Called with the number of modules just done, from any thread; the first call has those done before.

        Raises
        ------
        LayerError
            When a source changed, the interpreter can't be started, or the bytecode can't be written.
        """
        with self._changed:
            self._complete = True
            self._look_no_more()
            self._changed.notify_all()
            if progress and self._done:
                progress(self._done)
            self._progress = progress
        try:
            wait(self._feeding, return_when=FIRST_EXCEPTION)
        finally:
            self.close()
        for feeding in self._feeding:
            feeding.result()
        return self._compiled, self._tag

    def close(self) -> None:
        """End all interpreters; the threads that feed them then see the end of a pipe, and finish."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            for child in self._children:
                child.kill()
                child.wait()
        self._threads.shutdown()

    def _next(self) -> list[Task] | str | None:
        """What an interpreter does next, once there is something: a batch or a folder. None when nothing is left."""
        with self._changed:
            while not self._stopped:
                if self._suspects:
                    return [self._suspects.popleft()]
                if batch := self._batch():
                    return batch
                if self._folders:
                    return self._folders.popleft()
                if self._complete:
                    break
                self._changed.wait()
            return None

    def _batch(self) -> list[Task]:
        count = max(_FEWEST, len(self._queue) // (_SHARES * self._jobs))
        batch: list[Task] = []
        while self._queue and len(batch) < count:
            task = self._queue.popleft()
            if task.key in self._compiled:
                self._advance(1)
            else:
                batch.append(task)
        return batch

    def _feed(self) -> None:
        child = self._start()
        while child and (batch := self._next()):
            if isinstance(batch, str):
                if not self._look(child, batch):
                    _close(child.process)
                    child = self._start()
                continue
            rest = batch[self._compile(child, batch) :]
            if rest:  # it died in one of these: in which shows when each goes alone, and that one is left out
                _close(child.process)
                if len(rest) == 1:
                    self._advance(1)
                else:
                    with self._changed:
                        self._suspects.extend(rest)
                        self._changed.notify_all()
                child = self._start()
        if child:
            _close(child.process)

    def _start(self) -> _Child | None:
        """A child that has said hello; None once all is stopped."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") or k == "PYTHONPYCACHEPREFIX"}
        with self._changed:
            if self._stopped:
                return None
            file = str(self._folder / f"modules-{len(self._children)}")
            argv = [self._python, "-S", "-s", "-B", "-W", "ignore", "-c", self._program, file]
            try:
                child = subprocess.Popen(  # in a folder of ours: `-c` looks for modules there first
                    argv, cwd=self._folder, env={**environ, "PYTHONHASHSEED": "0"},
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

    def _compile(self, child: _Child, batch: list[Task]) -> int:
        """Have `batch` compiled; how many modules were answered, fewer than all when the child died."""
        process = child.process
        assert process.stdout
        rows = [(self._source(task), task.file.entry.sha256, task.name) for task in batch]
        try:
            _send(process, rows)
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

    def _look(self, child: _Child, folder: str) -> bool:
        """Have a folder looked through; whether the child survived it."""
        process = child.process
        assert process.stdout
        try:
            with self._changed:
                if self._queue or self._complete:
                    return True
                _send(process, folder)
                self._looking.append(process)
            while (line := process.stdout.readline()).endswith(b"\n"):
                found = json.loads(line)
                for one in found:
                    self._find(child.file, one)
                if not found:
                    return True
        except BrokenPipeError:
            pass
        finally:
            with self._changed:
                if process in self._looking:
                    self._looking.remove(process)
        return False

    def _find(self, file: str, one: list[Any] | str) -> None:
        if isinstance(one, str):
            raise LayerError(f"A module could not be compiled ({one}).", where=file)
        *said, name, source = one
        self._compiled[name, Digest(source)] = _compiled(file, *said)

    def _source(self, task: Task) -> str:
        if task.file.data is None:
            return task.file.path
        path = self._folder / "sources" / task.file.entry.sha256
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(task.file.data)
        return str(path)

    def _take(self, task: Task, file: str, answer: list[Any] | str) -> None:
        if not isinstance(answer, str):
            self._compiled[task.key] = _compiled(file, *answer)
        elif answer == "changed" and task.file.believed:
            raise differs(task.file, task.layer)
        elif answer == "changed":
            raise LayerError(
                f"{task.file.path} changed while it was being compiled.", where=task.name, todo="Run again."
            )
        elif answer != "skipped":
            raise LayerError(f"A module could not be compiled ({answer}).", where=task.name)

    def _advance(self, count: int) -> None:
        with self._changed:
            self._done += count
            if self._progress:
                self._progress(count)


def _send(child: subprocess.Popen[bytes], request: object) -> None:
    assert child.stdin
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()


def _close(child: subprocess.Popen[bytes]) -> None:
    """Let a child end (it does, at the end of its input) and release its pipes."""
    assert child.stdin and child.stdout
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    child.stdout.close()
    child.wait()
