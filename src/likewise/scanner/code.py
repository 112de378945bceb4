"""Loose code: importable files that no distribution owns, as layers of their own.

Roots come from ``sys.path``, in its order (`code_roots`); `code_walk` finds what goes along; here it is hashed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from likewise.events import Reporter, StageAdvanced
from likewise.model.digest import Digest
from likewise.model.editable import Editable
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source, path_problem
from likewise.model.snapshot import CodeRoot, Problem, Severity
from likewise.scanner.code_roots import Candidate, Territory, candidates, territory
from likewise.scanner.code_walk import Found, Limits, Walked, is_module, walk_root
from likewise.scanner.probe import Probe

__all__ = ["CodeScan", "Limits", "scan_code"]


class StatFacts(Protocol):
    """What the scan needs of `likewise.scanner.facts.Facts`."""

    def digest(self, path: str, stat: os.stat_result, /) -> Digest | None: ...
    def remember(self, path: str, stat: os.stat_result, digest: Digest, /) -> None: ...


class CodeScan(msgspec.Struct, frozen=True, kw_only=True):
    """The loose code of one process; `sources` has the layer of each root by the root's name."""

    roots: tuple[CodeRoot, ...]
    sources: dict[str, LayerSource]
    problems: tuple[Problem, ...]


def scan_code(
    probe: Probe,
    *,
    skip: Collection[str],
    pth_dirs: Sequence[tuple[str, str]] = (),
    editables: Iterable[Editable] = (),
    facts: StatFacts,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    reporter: Reporter,
) -> CodeScan:
    """Find the loose code that the probed process can import.

    Parameters
    ----------
    probe : Probe
    skip : collection of str
        Directories that belong to something else, with all beneath them: site directories, the standard library.
    pth_dirs : sequence of (directory, name of the .pth file)
        What ``.pth`` files that belong to no distribution add to ``sys.path``.
    editables : iterable of Editable
        What they import from their trees is their own; the rest of a tree is loose code where the user stands in it.
    facts : StatFacts
        Digests known from an earlier scan; new ones are put there.
    limits : Limits
        For each root.
    reporter : Reporter

    Raises
    ------
    ScanError
        When a root is beyond the limits; it names the biggest folders and files.
    """
    land = territory(probe, skip, editables)
    problems = _path_problems(probe, land)
    loaded = _loaded(probe, land)
    roots: list[CodeRoot] = []
    sources: dict[str, LayerSource] = {}
    for candidate in candidates(probe, land=land, pth_dirs=pth_dirs):
        walked = walk_root(candidate, loaded=loaded, limits=limits)
        name = f"code-{len(roots)}"
        source = _layer(name, candidate, walked, facts, problems)
        problems += _walk_problems(candidate, walked)
        if source is None:
            continue
        sources[name] = source
        roots.append(
            CodeRoot(
                name=name,
                path=_printable(candidate.path),
                why=candidate.why,
                position=candidate.position,
                files=len(source.files),
                size=source.size,
                content=source.digest,
            )
        )
        reporter.report(StageAdvanced(stage="scan", amount=0, item=candidate.path))
    return CodeScan(roots=tuple(roots), sources=sources, problems=tuple(problems))


def _path_problems(probe: Probe, land: Territory) -> list[Problem]:
    """What is on ``sys.path`` and can't be a root."""
    problems = []
    if not probe.cwd and probe.main.interactive:
        problems.append(
            Problem(
                code="deleted-working-directory",
                subject="working directory",
                message="The working directory was deleted, so nothing can be imported from it here or on the nodes.",
            )
        )
    for entry in probe.sys_path:
        if os.path.isfile(entry) and not land.owns(os.path.realpath(entry)):
            problems.append(
                Problem(
                    code="archive-on-path",
                    subject=_printable(entry),
                    message=f"{_printable(entry)} is on sys.path, but archives are not shipped; unpack it.",
                )
            )
    return problems


def _loaded(probe: Probe, land: Territory) -> frozenset[str]:
    """Real paths of the loaded modules that may be loose code: resolving thousands of others would take long."""
    others = tuple(folder + os.sep for folder in land.taken)
    return frozenset(os.path.realpath(path) for path in probe.modules.values() if not path.startswith(others))


def _layer(
    name: str, candidate: Candidate, walked: Walked, facts: StatFacts, problems: list[Problem]
) -> LayerSource | None:
    """The layer of a root; None when it holds no Python file. Files that can't be shipped become problems."""
    files: list[SourceFile] = []
    folded: dict[str, str] = {}
    for found in walked.files:
        path = f"code/{name}/{found.relative}"
        reason = path_problem(path)
        twin = folded.setdefault(path.casefold(), found.relative)
        if twin != found.relative:
            reason = f"differs from {twin!r} only in upper and lower case"
        try:
            digest = None if reason else _digest(found, facts)
        except OSError as error:
            reason = f"can't be read ({error.strerror or error})"
            digest = None
        if digest is None:
            problems.append(_left_out(candidate, found.relative, reason))
            continue
        entry = FileEntry(
            path=path,
            sha256=digest,
            size=found.facts.st_size,
            executable=bool(found.facts.st_mode & stat.S_IXUSR),
        )
        files.append(SourceFile(entry=entry, path=found.path))
    if not any(is_module(os.path.basename(f.entry.path)) for f in files):
        return None
    return layer_source(LayerKind.CODE, name, "", files)


def _digest(found: Found, facts: StatFacts) -> Digest:
    known = facts.digest(found.path, found.facts)
    if known is not None:
        return known
    digest = hashlib.sha256()
    with open(found.path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    facts.remember(found.path, found.facts, Digest(digest.hexdigest()))
    return Digest(digest.hexdigest())


def _walk_problems(candidate: Candidate, walked: Walked) -> list[Problem]:
    problems = [_left_out(candidate, path, f"can't be read ({reason})") for path, reason in walked.unreadable]
    for relative, reason in walked.closed:
        path = _printable(os.path.join(candidate.path, relative))
        problems.append(
            Problem(
                code="closed-folder",
                subject=path,
                message=f"{path} can't be opened ({reason}), so nothing is imported from it here or on the nodes.",
                severity=Severity.NOTE,
            )
        )
    if walked.secrets:
        listed = ", ".join(walked.secrets[:5]) + (" and more" if len(walked.secrets) > 5 else "")
        problems.append(
            Problem(
                code="secret-left-out",
                subject=_printable(candidate.path),
                message=f"Not shipped, for their names are those of secrets: {_printable(listed)}.",
                severity=Severity.NOTE,
            )
        )
    return problems


def _left_out(candidate: Candidate, relative: str, reason: str) -> Problem:
    path = _printable(os.path.join(candidate.path, relative))
    return Problem(
        code="unreadable-code" if "read" in reason else "unshippable-code",
        subject=path,
        message=f"{path} {reason}, so it is missing on the nodes.",
        severity=Severity.ERROR,
    )


def _printable(path: str) -> str:
    """`path` with bytes that are no UTF-8 spelled out: snapshots are JSON."""
    return path.encode("utf-8", "backslashreplace").decode()
