"""Prefix → `Snapshot`: joins finding, listing and hashing into one value."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from likewise.errors import LayerError
from likewise.events import Reporter, Silent, StageAdvanced
from likewise.model.editable import Editable
from likewise.model.layer import LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.origins import redact_requirement
from likewise.model.snapshot import CodePosition, CodeRoot, Distribution, Problem, Severity, Snapshot
from likewise.scanner.beliefs import Beliefs
from likewise.scanner.census import Census, take_census
from likewise.scanner.code import Limits, scan_code
from likewise.scanner.conda import find_conda, find_records
from likewise.scanner.conda_files import CondaFound
from likewise.scanner.conda_virtual import virtual_packages
from likewise.scanner.distributions import Installed
from likewise.scanner.facts import Facts
from likewise.scanner.files import DistFiles, imports_of, settle
from likewise.scanner.inventory import take_inventory
from likewise.scanner.leftover import LAYER_NAME
from likewise.scanner.memory import Memory
from likewise.scanner.probe import Probe
from likewise.scanner.walks import Walks


class Scanned(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan finds: the snapshot, and what only the client needs to know to act on it.

    Attributes
    ----------
    snapshot : Snapshot
    sources : dict of str to LayerSource
        Where the files of each layer are; by normalized distribution name or by name of the code root.
    editables : tuple of Editable
        Distributions that have to be built, by name.
    base : LayerSource or None
        The interpreter, where it is a conda package.
    conda : tuple of LayerSource
        The layers of conda packages that are neither Python distributions nor the interpreter.
    variables : dict
        What the activation of a conda prefix sets; `PREFIX_MARK` in a value stands for the prefix.
    """

    snapshot: Snapshot
    sources: dict[str, LayerSource]
    editables: tuple[Editable, ...]
    base: LayerSource | None = None
    conda: tuple[LayerSource, ...] = ()
    variables: dict[str, str] = {}


def scan_prefix(
    probe: Probe, *, facts_dir: Path, limits: Limits | None = None, reporter: Reporter | None = None
) -> Scanned:
    """Find everything that the probed interpreter can import.

    The first scan reads and hashes every file but those for which `RECORD` vouches (see `Beliefs`); later ones read
    what changed (see `Facts`).

    Parameters
    ----------
    probe : Probe
    facts_dir : Path
        Where stat facts are kept between scans; made when missing.
    limits : Limits, optional
        For loose code.
    reporter : Reporter, optional
        Told of bytes read, as ``StageAdvanced("scan")``.

    Raises
    ------
    ScanError
        When loose code is beyond `limits`. Everything else that is wrong is a `Problem` of the snapshot.
    """
    with _collector_paused():
        return _scan(probe, facts_dir, limits or Limits(), reporter or Silent())


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A scan makes some hundred thousand objects and no cycles: looking for those would take a sixth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _scan(probe: Probe, facts_dir: Path, limits: Limits, reporter: Reporter) -> Scanned:
    prefix = probe.interpreter.prefix
    beliefs = Beliefs(facts_dir)
    memory, code_facts = Memory(facts_dir, prefix, beliefs), Facts(facts_dir, f"{prefix}\0code")
    walks = Walks(facts_dir, prefix, memory.rules)
    facts = Facts(facts_dir, f"{prefix}\0rest", behind=Facts(facts_dir, prefix))  # the rest of what `memory` knows
    records = find_records(probe, facts_dir)
    census = take_census(probe, memory, records)
    inventory = take_inventory(census, probe, memory, walks, beliefs, max_bytes=limits.max_bytes)
    settled = settle([*inventory.listings.values(), *inventory.loose], facts, progress=_progress(reporter))
    by_name = dict(zip(inventory.listings, settled, strict=False))
    problems = [*census.problems, *inventory.problems]

    sources = _distribution_layers(census, by_name, problems)
    remembered = memory.remember(census.installed, inventory.listings, by_name, sources)
    for name, one in inventory.recalled.items():
        by_name[name], sources[name] = one.files, one.source
    rest = [listing for name, listing in inventory.listings.items() if name not in remembered]
    facts.limit(found.path for listing in (*rest, *inventory.loose) for found in listing.files.values())
    facts.save()  # before anything can fail: reading it all again takes seconds
    memory.save()
    walks.save()
    conda = find_conda(probe, records, census.installed, sources, facts_dir, progress=_progress(reporter))
    problems = [one for one in problems if one.code != "missing-files" or one.subject not in conda.distributions]
    problems += conda.problems
    sources.update(conda.distributions)
    loose = [_without(files, conda.paths) for files in settled[len(inventory.listings) :]]
    site_root = _site_root(loose, inventory.pths, census, sources, problems)
    code = scan_code(
        probe,
        skip=census.sites,
        pth_dirs=inventory.pth_dirs,
        editables=census.editables.values(),
        facts=code_facts,
        limits=limits,
        reporter=reporter,
    )
    code_facts.save()
    imports = {**remembered, **{name: one.imports for name, one in inventory.recalled.items()}}
    imports.update((name, imports_of(source)) for name, source in sources.items() if name not in imports)
    distributions = [
        _describe(one, census, by_name.get(one.name), sources.get(one.name), imports.get(one.name, ()), conda)
        for one in census.installed
    ]
    before = [root for root in code.roots if root.position is CodePosition.BEFORE]
    after = [root for root in code.roots if root.position is CodePosition.AFTER]
    snapshot = Snapshot(
        interpreter=probe.interpreter,
        distributions=tuple(sorted(distributions, key=lambda d: d.name)),
        code=(*before, *site_root, *after),
        problems=tuple(dict.fromkeys(map(_printable, (*problems, *code.problems)))),
        conda=conda.packages,
        virtual_packages=virtual_packages(probe.interpreter.platform) if conda.packages else (),
    )
    editables = tuple(census.editables[name] for name in sorted(census.editables))
    return Scanned(
        snapshot=snapshot,
        sources={**sources, **code.sources},
        editables=editables,
        base=conda.base,
        conda=conda.others,
        variables=conda.variables,
    )


def _without(files: DistFiles, paths: Collection[str]) -> DistFiles:
    """`files` without those at `paths`, which belong to somebody after all."""
    if not paths:
        return files
    return msgspec.structs.replace(files, files=tuple(file for file in files.files if file.path not in paths))


def _printable(problem: Problem) -> Problem:
    """`problem` with bytes of file names that are no UTF-8 spelled out: snapshots are JSON."""
    subject, message = (
        text.encode("utf-8", "backslashreplace").decode() for text in (problem.subject, problem.message)
    )
    return msgspec.structs.replace(problem, subject=subject, message=message)


def _progress(reporter: Reporter) -> Callable[[int, int], None]:
    told = 0

    def progress(done: int, total: int) -> None:  # called by one thread at a time
        nonlocal told
        reporter.report(StageAdvanced(stage="scan", amount=done - told))
        told = done

    return progress


def _distribution_layers(
    census: Census, by_name: Mapping[str, DistFiles], problems: list[Problem]
) -> dict[str, LayerSource]:
    sources: dict[str, LayerSource] = {}
    for one in census.installed:
        files = by_name.get(one.name)
        if files is None:
            continue
        problems += files.problems
        if files.missing:
            problems.append(_missing(one, files.missing))
        source = _layer(LayerKind.DISTRIBUTION, one.name, one.version, files, problems)
        if source:
            sources[one.name] = source
    return sources


def _layer(kind: LayerKind, name: str, version: str, files: DistFiles, problems: list[Problem]) -> LayerSource | None:
    try:
        return layer_source(kind, name, version, files.files)
    except LayerError as error:
        problems.append(Problem(code="unshippable", subject=name, message=str(error), severity=Severity.ERROR))
        return None


def _missing(one: Installed, missing: Sequence[str]) -> Problem:
    shown = ", ".join(path.partition("/")[2] for path in missing[:3]) + (", …" if len(missing) > 3 else "")
    return Problem(
        code="missing-files",
        subject=one.name,
        message=f"RECORD of {one.name} {one.version} lists {len(missing)} files that are not there ({shown}); the "
        "nodes won't have them either. Reinstall it if it needs them.",
    )


def _site_root(
    loose: Sequence[DistFiles],
    pths: Sequence[SourceFile],
    census: Census,
    sources: dict[str, LayerSource],
    problems: list[Problem],
) -> list[CodeRoot]:
    """The layer of what nobody owns in the site directories, put into `sources`; its code root, if there is any."""
    for files in loose:
        problems += files.problems
    together = DistFiles(files=(*pths, *(file for files in loose for file in files.files)))
    source = _layer(LayerKind.CODE, LAYER_NAME, "", together, problems) if together.files else None
    if source is None:
        return []
    sources[LAYER_NAME] = source
    root = CodeRoot(
        name=LAYER_NAME,
        path=census.sites[0],
        why="site-packages",
        position=CodePosition.AFTER,
        files=len(source.files),
        size=source.size,
        content=source.digest,
    )
    return [root]


def _describe(
    one: Installed,
    census: Census,
    files: DistFiles | None,
    source: LayerSource | None,
    imports: tuple[str, ...],
    conda: CondaFound,
) -> Distribution:
    editable = census.editables.get(one.name)
    return Distribution(
        name=one.name,
        version=one.version,
        origin=census.origin(one),
        tags=one.tags,
        installer=one.installer,
        requested=one.requested,
        requires=tuple(map(redact_requirement, one.metadata.requires)),
        provides_extras=one.metadata.provides_extras,
        imports=editable.imports if editable else imports or one.top_level,
        metadata_path=one.folder,
        files=len(source.files) if source else 0,
        size=source.size if source else 0,
        modified=conda.modified.get(one.name, files.modified if files else ()),
        missing=conda.missing.get(one.name, files.missing if files else ()),
        content=source.digest if source else None,
    )
