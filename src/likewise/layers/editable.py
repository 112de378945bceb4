"""Editables become wheels: built from a copy of their tree, once for each content of it.

The key of a build is the digest of what it can see: the tree's files, the Python, the version that is installed. So an
unchanged tree costs no build, and an edited one is never stale. The user's tree is only read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from likewise.errors import BuildError
from likewise.events import Reporter, Silent, StageAdvanced
from likewise.layers.build_process import (
    Processes,
    backend_spoke,
    build_command,
    build_environ,
    last_words,
    one_line,
    scrub,
)
from likewise.layers.built_wheels import BuiltWheels, Record, prefix_state, unpack
from likewise.layers.editable_source import is_pure, missing_from_wheel, package_folders, source_layer
from likewise.layers.source_tree import SourceTree, StatFacts, TreeChangedError, copy_tree, read_tree
from likewise.layers.vcs_version import history_state, lend_history, version_variables
from likewise.model.digest import Digest, digest_bytes
from likewise.model.editable import Editable
from likewise.model.keys import note_key
from likewise.model.layer import LayerSource
from likewise.model.snapshot import Problem, Severity

FORMAT = 1
"""Raised when the same tree would now be built to something else."""

RETRY_SECONDS = 600
"""After this time a build that failed (without a network, say) is tried again though nothing changed."""

STALE_SECONDS = 86400
"""Older build folders were left by a process that was killed."""


_AGAIN = "\n--- again, without build isolation ---\n"


class Notes(Protocol):
    """Small facts remembered from run to run (`likewise.store.local.LocalStore`)."""

    def get_bytes(self, key: str, /) -> bytes | None: ...
    def put_bytes(self, key: str, data: bytes, /, *, replace: bool = False) -> None: ...


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of the editables by normalized name; how many were built now, and how many had been before."""

    sources: dict[str, LayerSource]
    problems: tuple[Problem, ...]
    built: int
    reused: int


def build_editables(
    editables: Iterable[Editable],
    *,
    python: str,
    notes: Notes,
    work: Path,
    reporter: Reporter | None = None,
    jobs: int = 0,
    facts: StatFacts | None = None,
) -> Built:
    """Build each editable as a wheel, several at a time; unpack it, and take its layer from there.

    A build that fails is tried again without isolation, with what the environment itself has installed: that serves
    machines without a network, and build requirements that nobody declared. Where that fails too, a package of pure
    Python is shipped as it lies in its tree, with a warning.

    Parameters
    ----------
    editables : iterable of Editable
    python : str
        The environment's interpreter, absolute.
    notes : Notes
        Remembers failed builds for `RETRY_SECONDS`.
    work : Path
        Built wheels are kept in ``wheels`` beneath it, builds run in ``builds``.
    reporter : Reporter, optional
        Hears of every editable that is done.
    jobs : int
        Builds at a time; 0: one for each processor, at most 4.
    facts : StatFacts, optional
        Digests of source files known from their stat facts.

    Raises
    ------
    BuildError
        When one or more don't build; ``details["output"]`` has the back end's own words, ``details["failures"]`` the
        output for each by name.
    """
    wanted = list(editables)
    if not wanted:
        return Built(sources={}, problems=(), built=0, reused=0)
    shop = _Workshop(python=python, asked=_ask(python), notes=notes, work=work, kept=BuiltWheels(work), facts=facts)
    reporter = reporter or Silent()

    def build_one(editable: Editable) -> _Outcome:
        try:
            outcome = shop.layer_of(editable)
        except OSError as error:
            raise BuildError(
                f"It could not be built: {error.strerror or error} ({error.filename or work}).",
                where=_where(editable),
                todo="Make room, or make the folder writable.",
            ) from error
        reporter.report(StageAdvanced(stage="build", amount=1, item=editable.name))
        return outcome

    pool = ThreadPoolExecutor(max_workers=jobs or min(4, os.cpu_count() or 1), thread_name_prefix="likewise-build")
    try:
        futures = {editable.name: pool.submit(build_one, editable) for editable in wanted}
        wait(futures.values())
    except BaseException:  # Ctrl-C: end the builds first, then wait for their threads to clean up
        shop.processes.stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    shop.kept.sweep()
    return _collect(futures)


def _collect(futures: dict[str, Future[_Outcome]]) -> Built:
    """All outcomes as one value, or all failures as one error."""
    failures: dict[str, BuildError] = {}
    outcomes: dict[str, _Outcome] = {}
    for name, future in futures.items():
        try:
            outcomes[name] = future.result()
        except BuildError as error:
            failures[name] = error
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        outputs = {name: error.details.get("output", str(error)) for name, error in failures.items()}
        raise BuildError(
            "These editables don't build:\n" + "\n".join(str(error) for error in failures.values()),
            where=", ".join(failures),
            details={"output": "\n".join(outputs.values()), "failures": outputs},
        )
    built = sum(outcome.built for outcome in outcomes.values())
    return Built(
        sources={name: outcome.source for name, outcome in outcomes.items()},
        problems=tuple(problem for outcome in outcomes.values() for problem in outcome.problems),
        built=built,
        reused=len(outcomes) - built,
    )


@dataclass(frozen=True)
class _Outcome:
    source: LayerSource
    problems: tuple[Problem, ...]
    built: bool


@dataclass(frozen=True, kw_only=True)
class _Python:
    """The environment's interpreter: version and cache tag; digest of what is installed."""

    identity: str
    prefix_state: Digest


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a build that failed."""

    output: str
    when: float  # seconds since the epoch
    prefix_state: str


@dataclass(kw_only=True)
class _Workshop:
    """Everything that the builds of one call share."""

    python: str
    asked: _Python
    notes: Notes
    work: Path
    kept: BuiltWheels
    facts: StatFacts | None
    processes: Processes = field(default_factory=Processes)

    def layer_of(self, editable: Editable) -> _Outcome:
        """The layer of one editable, from an earlier build of the same tree or a new one."""
        for _ in range(3):
            tree = read_tree(editable.path, packages=package_folders(editable), facts=self.facts)
            key = self.key(editable, tree)
            known = self.kept.load(key)
            if known and known[1].prefix_state in ("", self.asked.prefix_state):
                return _Outcome(known[0], known[1].problems, built=False)
            failure = self.remembered_failure(key)
            if failure and (outcome := _as_source(editable, tree, failure, built=False)):
                return outcome
            with suppress(TreeChangedError):
                return self.build(editable, tree, key)
        raise BuildError(
            "The source tree keeps changing while it is copied.",
            where=_where(editable),
            todo="Wait until what writes there is done, or add its output to .gitignore.",
        )

    def key(self, editable: Editable, tree: SourceTree) -> Digest:
        """Digest of everything that decides what the build gives."""
        imports = [*editable.imports, *editable.mapping, *(os.path.relpath(r, tree.base) for r in editable.roots)]
        parts = [str(FORMAT), editable.name, editable.version, self.asked.identity, tree.digest, history_state(tree)]
        return digest_bytes("\0".join([*parts, *imports]).encode("utf-8", "surrogateescape"))

    def build(self, editable: Editable, tree: SourceTree, key: Digest) -> _Outcome:
        """Build the tree's wheel and keep it."""
        with self.folder() as folder:
            project = copy_tree(tree, folder / "tree")
            lend_history(tree, folder / "tree")
            outputs = []
            for isolated in (True, False):
                wheel, output = self.try_build(editable, project, folder / f"out{isolated:d}", isolated=isolated)
                outputs.append(output)
                if wheel:
                    problems = [] if isolated else [_not_isolated(editable, outputs[0])]
                    return self.keep(editable, tree, key, wheel, folder / "staged", problems)
        failure = _Failure(output=_both(outputs), when=time.time(), prefix_state=self.asked.prefix_state)
        outcome = _as_source(editable, tree, failure, built=True)
        if outcome is None:
            raise _build_error(editable, outputs)
        self.notes.put_bytes(note_key("build-failed", key), msgspec.json.encode(failure), replace=True)
        return outcome

    def try_build(self, editable: Editable, project: Path, out: Path, *, isolated: bool) -> tuple[Path | None, str]:
        """One attempt: the wheel, or None; and what was said, fit to be shown."""
        environ = build_environ(os.environ, version_variables(editable.name, editable.version))
        command = build_command(project, out, python=self.python, isolated=isolated)
        status, output = self.processes.run(command, cwd=str(project), env=environ)
        wheels = sorted(out.glob("*.whl")) if status == 0 else []
        shown = scrub(output, environ).replace(os.path.realpath(project), editable.path)
        return (wheels[0] if wheels else None), shown.replace(str(project), editable.path)

    def keep(
        self, editable: Editable, tree: SourceTree, key: Digest, wheel: Path, staged: Path, problems: list[Problem]
    ) -> _Outcome:
        layer = unpack(wheel, staged)
        problems += missing_from_wheel(editable, tree, layer) + _large(editable, tree) + _moved(editable, layer.version)
        record = Record(
            name=editable.name,
            version=layer.version,
            entries=tuple(f.entry for f in layer.files),
            problems=tuple(problems),
            prefix_state=self.asked.prefix_state if any(p.code == "built-without-isolation" for p in problems) else "",
        )
        return _Outcome(self.kept.keep(key, staged, record), record.problems, built=True)

    def remembered_failure(self, key: Digest) -> _Failure | None:
        """The failed build of the same tree, when trying again would be of no use."""
        note = self.notes.get_bytes(note_key("build-failed", key))
        if note is None:
            return None
        try:
            failure = msgspec.json.decode(note, type=_Failure)
        except msgspec.MsgspecError:
            return None
        fresh = 0 <= time.time() - failure.when < RETRY_SECONDS
        return failure if fresh and failure.prefix_state == self.asked.prefix_state else None

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for one build, removed afterwards; with it go those that a killed process left."""
        builds = self.work / "builds"
        builds.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            for entry in list(os.scandir(builds)):
                if time.time() - entry.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(entry.path, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=builds, prefix="build-", ignore_cleanup_errors=True) as path:
            yield Path(path)


def _ask(python: str) -> _Python:
    """Ask the interpreter for its version and where its distributions are."""
    ask = "import json, sys; print(json.dumps([sys.version, sys.implementation.cache_tag, sys.path]))"
    try:
        done = subprocess.run([python, "-I", "-B", "-c", ask], capture_output=True, check=True, encoding="utf-8")
        version, tag, path = json.loads(done.stdout.splitlines()[-1])  # `.pth` code may print, too
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        raise BuildError(f"The environment's Python does not run ({error}).", where=python) from error
    sites = [entry for entry in path if entry.endswith("-packages")]
    return _Python(identity=f"{version} {tag}", prefix_state=prefix_state(sites))


def _where(editable: Editable) -> str:
    return f"{editable.name} ({editable.path})"


def _both(outputs: Sequence[str]) -> str:
    return _AGAIN.join(outputs)


def _build_error(editable: Editable, outputs: Sequence[str]) -> BuildError:
    words = last_words(outputs[0])
    if not backend_spoke(outputs[0]):  # it never came to the back end: the second try says as much
        words += f"\nWithout build isolation:\n{last_words(outputs[1])}"
    return BuildError(
        f"The source tree does not build:\n{words}\n",
        where=_where(editable),
        todo=f"Repair the build (`uv build --wheel` in that folder shows all of it), or leave it out with "
        f"package_sync_ignore=[{editable.name!r}].",
        details={"output": _both(outputs), "name": editable.name, "path": editable.path},
    )


def _as_source(editable: Editable, tree: SourceTree, failure: _Failure, *, built: bool) -> _Outcome | None:
    """The tree itself as a layer, for a package of pure Python that does not build; None for any other."""
    layer = source_layer(editable, tree) if is_pure(editable, tree) else None
    if layer is None:
        return None
    problem = Problem(
        code="shipped-as-source",
        subject=editable.name,
        message=f"{editable.name} does not build, so its source is shipped as it is in {editable.path}. "
        f"Why: {one_line(failure.output.split(_AGAIN)[0])}",
    )
    return _Outcome(layer, (problem, *_large(editable, tree)), built=built)


def _not_isolated(editable: Editable, output: str) -> Problem:
    return Problem(
        code="built-without-isolation",
        subject=editable.name,
        message=f"{editable.name} was built with what is installed here, because its own build environment "
        f"could not be used. Why: {one_line(output)}",
        severity=Severity.NOTE,
    )


def _moved(editable: Editable, version: str) -> list[Problem]:
    if version == editable.version:
        return []
    return [
        Problem(
            code="version-moved",
            subject=editable.name,
            message=f"{editable.name} is installed as {editable.version}, and its tree now builds to {version}; "
            "install it again to bring them together.",
        )
    ]


def _large(editable: Editable, tree: SourceTree) -> list[Problem]:
    if not tree.large:
        return []
    return [
        Problem(
            code="large-file-left-out",
            subject=editable.name,
            message=f"Too large to be source and not tracked by git, so not part of {editable.name}: "
            f"{', '.join(tree.large[:5])}.",
            severity=Severity.NOTE,
        )
    ]
