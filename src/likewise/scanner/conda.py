"""Conda's part of a prefix: which packages count, which distributions they own, and what layers they make."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from likewise.model.conda import spec_name
from likewise.model.conda_identity import PYTHON, is_hidden
from likewise.model.layer import LayerSource
from likewise.model.manifest import PREFIX_MARK
from likewise.model.snapshot import Origin, OriginKind, PrefixKind
from likewise.scanner.conda_activate import activation
from likewise.scanner.conda_files import CondaFound, conda_files
from likewise.scanner.conda_records import Record, Records, read_records
from likewise.scanner.conda_unowned import unowned_files, unowned_problem
from likewise.scanner.distributions import Installed
from likewise.scanner.facts import Facts
from likewise.scanner.files import Progress
from likewise.scanner.ownership import Owned
from likewise.scanner.probe import Probe


def find_records(probe: Probe, facts_dir: Path | None) -> Records:
    """Conda's records that count for the probed interpreter; none where it is not conda's.

    Of the base of a venv it is what the interpreter needs: its distributions can't be imported, and programs of others
    are not on the ``PATH``.
    """
    interpreter = probe.interpreter
    if PrefixKind.CONDA not in (interpreter.kind, interpreter.base_kind):
        return Records()
    records = read_records(interpreter.base_prefix, facts_dir)
    if interpreter.kind is PrefixKind.CONDA:
        return records
    needed = [one for one in _closure(PYTHON, records.packages) if not one.folders]
    return Records(tuple(needed), records.problems)


def find_conda(
    probe: Probe,
    records: Records,
    installed: Iterable[Installed],
    sources: Mapping[str, LayerSource],
    facts_dir: Path,
    *,
    progress: Progress | None = None,
) -> CondaFound:
    """The layers of the packages of `records`; see `likewise.scanner.conda_files.conda_files`."""
    interpreter = probe.interpreter
    prefix = interpreter.base_prefix
    facts = Facts(facts_dir, f"{prefix}\0conda")
    before = Facts(facts_dir, f"{prefix}\0conda originals")
    found = conda_files(
        records,
        prefix=prefix,
        python=interpreter.python,
        implementation=interpreter.implementation,
        installed=installed,
        sources=sources,
        facts=facts,
        facts_before=before,
        look=interpreter.platform.os == "linux",
        progress=progress,
    )
    facts.save()
    before.save()
    if interpreter.kind is not PrefixKind.CONDA or interpreter.platform.os != "linux":
        return found
    variables, problems = activation(prefix, found.paths)
    variables = {name: _marked(value, found.spellings) for name, value in variables.items()}
    unowned = list(unowned_files(prefix, interpreter.python, found.owned))
    problems = (*found.problems, *problems, *unowned_problem(prefix, unowned))
    return msgspec.structs.replace(found, variables=variables, problems=problems)


def conda_owned(prefix: str, records: Records) -> dict[str, Owned]:
    """The metadata folders beneath `prefix` that conda packages own.

    Returns
    -------
    dict of str to Owned
        By absolute path of the dist-info or egg-info. `Origin.url` has channel, subdir and build string. Where a
        package has several, the first that is there has its files, as in its layer; the others have their metadata.
    """
    found: dict[str, Owned] = {}
    for one in records.packages:
        origin = Origin(kind=OriginKind.CONDA, url=one.url, revision=one.build)
        there = [folder for folder in one.folders if os.path.lexists(os.path.join(prefix, folder))]
        for folder in one.folders:
            others = [each for each in one.folders if each != folder]
            mine = [path for path in _files(one) if not _beneath(path, others)]
            mine = mine if folder in there[:1] else [path for path in mine if _beneath(path, [folder])]
            files = tuple(os.path.join(prefix, path) for path in mine)
            found[os.path.join(prefix, folder)] = Owned(origin=origin, files=files)
    return found


def _marked(value: str, spellings: Iterable[str]) -> str:
    """What a variable is set to, with `PREFIX_MARK` for the prefix by any of its paths."""
    for spelling in sorted(spellings, key=len, reverse=True):
        value = value.replace(spelling, PREFIX_MARK)
    return value


def _files(record: Record) -> list[str]:
    """Paths of its files that may be shipped."""
    return [one.path for one in record.claims if not one.folder and not is_hidden(f"data/{one.path}")]


def _beneath(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _closure(name: str, packages: Iterable[Record]) -> list[Record]:
    """The package `name` and what it depends on, sorted by name."""
    by_name = {one.name: one for one in packages}
    found: dict[str, Record] = {}
    waiting = [name]
    while waiting:
        one = by_name.get(waiting.pop())
        if one is not None and one.name not in found:
            found[one.name] = one
            waiting += map(spec_name, one.requires)
    return [found[name] for name in sorted(found)]
