"""A plan with conda packages as an explicit list, which conda, mamba and micromamba install, or as a ``pixi.lock``."""

from __future__ import annotations

import json
from collections.abc import Iterator

from likewise.errors import UnsupportedError
from likewise.model.conda import spec_name
from likewise.model.origins import redact
from likewise.model.plan import Action, CondaDecision, Decision, LockedFile, Plan
from likewise.model.subdirs import subdir_of

PIXI_VERSION = 6


def explicit(plan: Plan) -> str:
    """One URL a line with the archive's hash, what others need before those (conda's documentation, "Explicit
    specification file"). What pip has on top stands in comments, as conda-lock writes it.
    """
    chosen = _packages(plan)
    lines = [f"# platform: {subdir_of(plan.target.platform)}", "@EXPLICIT"]
    lines += [f"{_file(one).url}#{_hash(one)}" for one in chosen]
    for one in _wheels(plan):
        lines.append(f"# pip {one.name} @ {_file(one).url} --hash=sha256:{_file(one).sha256}")
    return "\n".join([*lines, ""])


def pixi(plan: Plan) -> str:
    """A lock of version 6 with one environment, for one platform; every newer rattler reads it."""
    chosen, wheels, subdir = _packages(plan), _wheels(plan), subdir_of(plan.target.platform)
    lines = [f"version: {PIXI_VERSION}", "environments:", "  default:", "    channels:"]
    lines += [f"    - url: {_quoted(channel)}" for channel in dict.fromkeys(one.channel for one in chosen)]
    lines += ["    packages:", f"      {subdir}:"]
    lines += [f"      - conda: {_quoted(_file(one).url)}" for one in chosen]
    lines += [f"      - pypi: {_quoted(_file(one).url)}" for one in wheels]
    lines.append("packages:")
    for one in chosen:
        lines += _package(one)
    for wheel in wheels:
        lines += [f"- pypi: {_quoted(_file(wheel).url)}", f"  name: {wheel.name}"]
        lines += [f"  version: {_quoted(wheel.version)}", f"  sha256: {_file(wheel).sha256}"]
    return "\n".join([*lines, ""])


def _package(one: CondaDecision) -> Iterator[str]:
    file = _file(one)
    yield f"- conda: {_quoted(file.url)}"
    yield f"  name: {_quoted(one.name)}"
    yield f"  version: {_quoted(one.version)}"
    yield f"  build: {_quoted(one.build)}"
    yield f"  build_number: {one.build_number}"
    yield f"  subdir: {one.subdir}"
    if one.noarch:
        yield f"  noarch: {one.noarch}"
    if file.sha256:
        yield f"  sha256: {file.sha256}"
    if one.md5:
        yield f"  md5: {one.md5}"
    for key, specs in (("depends", one.requires), ("constrains", one.constrains)):
        if specs:
            yield f"  {key}:"
            yield from (f"  - {_quoted(spec)}" for spec in specs)
    if file.size is not None:
        yield f"  size: {file.size}"


def _packages(plan: Plan) -> list[CondaDecision]:
    """Each behind what it depends on, where that is possible.

    Raises
    ------
    UnsupportedError
        The plan has none.
    """
    left = {one.name: one for one in plan.conda if one.action is not Action.DROP}
    if not left:
        raise UnsupportedError(
            "This plan has no conda packages.", todo="Choose another format: pylock, requirements or dockerfile."
        )
    ordered: list[CondaDecision] = []
    waiting = sorted(left, reverse=True)
    seen: set[str] = set()
    while waiting:
        name = waiting[-1]
        needs = [need for need in _needs(left[name]) if need in left and need not in seen]
        if name in seen or not needs:
            waiting.pop()
            if name not in {one.name for one in ordered}:
                ordered.append(left[name])
        else:
            waiting += sorted(needs, reverse=True)
        seen.add(name)
    return ordered


def _needs(one: CondaDecision) -> Iterator[str]:
    return map(spec_name, one.requires)


def _wheels(plan: Plan) -> list[Decision]:
    return sorted((d for d in plan.decisions if d.action is Action.FETCH and d.file), key=lambda d: d.name)


def _file(one: Decision) -> LockedFile:
    assert one.file is not None
    return one.file


def _hash(one: CondaDecision) -> str:
    """sha256 where the channel says it, else md5."""
    return f"sha256:{_file(one).sha256}" if _file(one).sha256 else one.md5


def _quoted(text: str) -> str:
    """A text as YAML has it in quotation marks, as JSON does; no credential in it."""
    return json.dumps(redact(text) if "://" in text else text)
