"""A plan as a file for other tools: ``pylock.toml`` (PEP 751), hashed requirements, a Dockerfile, or one of conda's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from likewise.errors import UnsupportedError, UsageError
from likewise.formats.conda_write import explicit, pixi
from likewise.model.markers import marker_environment
from likewise.model.plan import Action, Decision, Plan
from likewise.model.target import Target

_DOCKER_ARCHES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}
_MARKERS = ("sys_platform", "platform_machine", "implementation_name")


def write(plan: Plan, form: str) -> str:
    """The text of a file that has what `plan` has, as far as its format can say it; comments name the rest.

    Nothing in it is secret: private indexes are left to the settings of whoever uses it.

    Parameters
    ----------
    plan : Plan
    form : str
        One of `FORMS`.

    Raises
    ------
    UsageError
        The format is not known.
    UnsupportedError
        It can't be written for this target.
    """
    if form not in FORMS:
        raise UsageError(f"{form!r} is no format that can be written.", todo=f"Use one of {', '.join(FORMS)}.")
    text = FORMS[form](plan)
    return "\n".join([*_left_out(plan, form), text]) if form in CONDA_FORMS else text


def unwritten(plan: Plan) -> tuple[Decision, ...]:
    """What the nodes have and no file of another tool can: code that lies on the client, in the order of the plan."""
    return tuple(d for d in plan.decisions if d.action is not Action.DROP and d.file is None)


def lost(plan: Plan, form: str) -> tuple[Decision, ...]:
    """What the nodes have and a file in this format can't say: `unwritten`, and conda packages in one of pip's."""
    packages = () if form in CONDA_FORMS else tuple(d for d in plan.conda if d.action is not Action.DROP)
    return (*unwritten(plan), *packages)


def _pylock(plan: Plan) -> str:
    lines = [
        *_head(plan),
        'lock-version = "1.0"',
        f"environments = [{_quoted(_marker(plan.target))}]",
        f"requires-python = {_quoted(_pythons(plan.target))}",
        'created-by = "likewise"',
    ]
    found = _with_file(plan)
    for decision in found:
        lines += ["", *_package(decision)]
    lines += [] if found else ["packages = []"]
    return "\n".join([*lines, ""])


def _package(decision: Decision) -> Iterator[str]:
    file = decision.file
    assert file is not None
    yield "[[packages]]"
    yield f"name = {_quoted(decision.name)}"
    yield f"version = {_quoted(decision.version)}"
    size = f", size = {file.size}" if file.size is not None else ""
    entry = (
        f"name = {_quoted(file.filename)}, url = {_quoted(file.url)}{size}, hashes = {{ sha256 = "
        f"{_quoted(file.sha256)} }}"
    )
    yield f"wheels = [{{ {entry} }}]" if file.filename.endswith(".whl") else f"sdist = {{ {entry} }}"


def _requirements(plan: Plan) -> str:
    how = "# Install it with: pip install --no-deps --require-hashes -r FILE"
    return "\n".join([*_head(plan), how, *_pinned(plan), ""])


def _pinned(plan: Plan) -> Iterator[str]:
    """One line each: by version, or by URL where the version is of a build that only its own index has (PEP 440)."""
    for decision in _with_file(plan):
        file = decision.file
        assert file is not None
        what = f"{decision.name} @ {file.url}" if "+" in decision.version else f"{decision.name}=={decision.version}"
        yield f"{what} --hash=sha256:{file.sha256}"


def _dockerfile(plan: Plan) -> str:
    target = plan.target
    if target.platform.os != "linux":
        raise UnsupportedError(
            f"There is no image of Python for {target.platform}.", todo="Name a target like linux-64."
        )
    arch = _DOCKER_ARCHES.get(target.platform.arch, target.platform.arch)
    kind = "alpine" if target.platform.libc == "musl" else "slim"
    lines = [
        "# syntax=docker/dockerfile:1",
        *_head(plan),
        f"FROM --platform=linux/{arch} python:{target.python}-{kind}",
        "COPY <<'REQUIREMENTS' /tmp/requirements.txt",
        *_pinned(plan),
        "REQUIREMENTS",
        "RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements.txt",
    ]
    return "\n".join([*lines, ""])


CONDA_FORMS: dict[str, Callable[[Plan], str]] = {"explicit": explicit, "pixi": pixi}
"""Formats of conda's and pixi's."""

FORMS: dict[str, Callable[[Plan], str]] = {
    "pylock": _pylock,
    "requirements": _requirements,
    "dockerfile": _dockerfile,
    **CONDA_FORMS,
}
"""The formats that can be written."""


def _head(plan: Plan) -> Iterator[str]:
    yield f"# For {plan.target.platform}, Python {plan.target.python}; written by likewise."
    yield from _left_out(plan, "")


def _left_out(plan: Plan, form: str) -> Iterator[str]:
    """A comment for each of `lost`."""
    for decision in lost(plan, form):
        yield _comment(f"Not in here: {decision.name} {decision.version} ({decision.reason})")


def _with_file(plan: Plan) -> list[Decision]:
    return sorted((d for d in plan.decisions if d.action is not Action.DROP and d.file), key=lambda d: d.name)


def _marker(target: Target) -> str:
    environment = marker_environment(target)
    return " and ".join(f"{name} == '{environment[name]}'" for name in _MARKERS)


def _pythons(target: Target) -> str:
    """Its wheels fit every patch of the target's minor version (PEP 425)."""
    return f"=={'.'.join(target.python.split('.')[:2])}.*"


def _comment(text: str) -> str:
    """One line: no comment may hold control characters (TOML 1.0), and none could end it."""
    return "# " + "".join(one if one.isprintable() else " " for one in text)


def _quoted(text: str) -> str:
    """A basic string of TOML: as in JSON, but that DEL has to be escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
