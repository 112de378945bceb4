"""What activating a conda prefix sets: the effect of its packages' scripts and variables, for the nodes' processes.

Nodes have no conda and activate nothing. So the scripts are run here, in a shell that has nothing of this process's
environment, and what they export is what counts. Only those of packages are run: what users put there themselves often
holds their keys.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from likewise.model.manifest import PREFIX_MARK
from likewise.model.snapshot import Problem, Severity

SCRIPTS, VARIABLES, STATE = "etc/conda/activate.d/", "etc/conda/env_vars.d/", "conda-meta/state"
TIMEOUT = 30.0
"""Seconds that all scripts together have."""

NOWHERE = "/nonexistent"
"""The home that scripts see: whatever they make of it is of no use to nodes."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELLS = re.compile(
    r"_|_lw_.*|SHLVL|PWD|OLDPWD|PS1|CONDA_(SHLVL|DEFAULT_ENV|PROMPT_MODIFIER|EXE|PYTHON_EXE|BACKUP_.*)"
)
"""What shells and conda set themselves."""

_NODES = frozenset({"PATH", "HOME", "PYTHONPATH", "PYTHONHOME"})
"""What launch scripts set."""

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)

_END = "end"
_RUN = f"""
_lw_folder=$1; shift; _lw_done=0
trap '/usr/bin/env -0 >"$_lw_folder/{_END}"' EXIT
for _lw_script; do
    . "$_lw_script"
    _lw_done=$((_lw_done + 1))
    : >"$_lw_folder/$_lw_done"
done
trap - EXIT
exec /usr/bin/env -0 >"$_lw_folder/{_END}"
"""
"""A mark for each script that was read to its end, and what is exported when the shell ends, however it does."""


class _State(msgspec.Struct):
    env_vars: dict[str, str] = {}


@dataclass(frozen=True)
class _Ran:
    """What came of scripts: what they export, how many of them were read to their end, and what the next one did."""

    exported: dict[str, str]
    finished: int
    why: str


def activation(
    prefix: str, paths: Collection[str], *, before: Mapping[str, str] | None = None
) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """The environment variables that activating `prefix` sets, `PREFIX_MARK` in place of it, and what is not taken.

    Parameters
    ----------
    prefix : str
    paths : collection of str
        Absolute paths of all files that conda packages have.
    before : mapping, optional
        What is set already, as this function returns it.
    """
    problems = list(_left_out(prefix, paths))
    variables = {name: value.replace(PREFIX_MARK, prefix) for name, value in (before or {}).items()}
    variables["CONDA_PREFIX"] = prefix
    for path in _there(prefix, VARIABLES, ".json", paths):
        try:
            variables.update(msgspec.json.decode(Path(path).read_bytes(), type=dict[str, str]))
        except (OSError, msgspec.MsgspecError) as error:
            problems.append(_problem(path, f"{path} can't be read ({error})"))
    scripts = _there(prefix, SCRIPTS, ".sh", paths)
    if scripts:
        try:
            ran = _run(prefix, scripts, variables)
        except (OSError, ValueError) as error:  # the latter: variables of a package that none can be
            problems.append(_problem(scripts[0], f"The activation scripts of {prefix} could not be run ({error})"))
        else:
            variables.update(ran.exported)
            problems += _cut_short(scripts, ran)
    problems += _withheld(variables)
    return _taken(variables, prefix), tuple(problems)


def not_sent(names: Iterable[str], why: str) -> Problem:
    """The problem that nodes don't get these variables, for a reason."""
    listed = sorted(names)
    what = f"Activating sets {', '.join(listed)}, not sent to the nodes: {why}"
    return _problem(listed[0], what, Severity.NOTE)


def _taken(variables: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        name: value.replace(prefix, PREFIX_MARK)
        for name, value in sorted(variables.items())
        if not _SHELLS.fullmatch(name) and not _why_not(name, value)
    }


def _withheld(variables: Mapping[str, str]) -> Iterator[Problem]:
    """What is not taken of what packages set: names, since a value may be secret."""
    reasons: dict[str, list[str]] = {}
    for name, value in variables.items():
        if not _SHELLS.fullmatch(name) and (why := _why_not(name, value)):
            reasons.setdefault(why, []).append(name)
    return (not_sent(names, why) for why, names in sorted(reasons.items()))


def _why_not(name: str, value: str) -> str:
    """Why this is nothing for nodes, "" if it is."""
    if name in _NODES:
        return "nodes set it themselves"
    if _SECRET.search(name):
        return "it may be secret"
    if not _NAME.fullmatch(name) or not _is_text(value):
        return "it is no line of text"
    return "it lies in a user's home" if NOWHERE in value else ""


def _is_text(value: str) -> bool:
    return PREFIX_MARK not in value and value.isprintable()


def _there(prefix: str, folder: str, ending: str, paths: Collection[str]) -> list[str]:
    beginning = f"{prefix}/{folder}"
    return sorted(path for path in paths if path.startswith(beginning) and path.endswith(ending))


def _run(prefix: str, scripts: Sequence[str], variables: Mapping[str, str]) -> _Ran:
    """Have a shell read `scripts`, as long as it lives.

    Raises
    ------
    OSError, ValueError
        There is no shell, no folder for what it says, or something in `variables` is no variable.
    """
    before = {
        "PATH": f"{prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": NOWHERE,
        "CONDA_SHLVL": "1",
        "CONDA_DEFAULT_ENV": os.path.basename(prefix),
        **variables,
    }
    said, why = _said(scripts, before)
    finished = sum(str(number) in said for number in range(1, len(scripts) + 1))
    if _END not in said:  # something made an end of the shell itself: what was there before that is asked for again
        said, _ = _said(scripts[:finished], before)
    after = _exported(said.get(_END, b""))
    return _Ran({name: value for name, value in after.items() if before.get(name) != value}, finished, why)


def _said(scripts: Sequence[str], environ: Mapping[str, str]) -> tuple[dict[str, bytes], str]:
    """What a shell writes about `scripts`, by the name of the file, and what one that is not read to its end does."""
    shell = next((s for s in ("/bin/bash", "/usr/bin/bash") if os.path.exists(s)), "/bin/sh")
    why = "ends the shell"
    with tempfile.TemporaryDirectory(prefix="likewise-activating-") as folder:
        try:
            subprocess.run(
                [shell, "-c", _RUN, "activate", folder, *scripts],
                env=dict(environ),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            why = f"does not end within {TIMEOUT:g} s"
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}, why


def _exported(said: bytes) -> dict[str, str]:
    lines = os.fsdecode(said).split("\0")[:-1]  # a shell that was killed has not said the last one to its end
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _cut_short(scripts: Sequence[str], ran: _Ran) -> Iterator[Problem]:
    names = [os.path.basename(path) for path in scripts[ran.finished :]]
    if names:
        first, *others = names
        rest = f", nor what {', '.join(others)} would set" if others else ""
        what = f"{SCRIPTS}{first} {ran.why}: what it would set after that is not sent to the nodes{rest}"
        yield _problem(first, f"{what}; what was set before is")


def _left_out(prefix: str, paths: Collection[str]) -> Iterable[Problem]:
    try:
        own = sorted(name for name in os.listdir(f"{prefix}/{SCRIPTS}") if name.endswith(".sh"))
    except OSError:
        own = []
    own = [name for name in own if f"{prefix}/{SCRIPTS}{name}" not in paths]
    if own:
        yield _problem(own[0], f"No conda package has {SCRIPTS}{own[0]}, so it is not run for the nodes", Severity.NOTE)
    try:
        state = msgspec.json.decode(Path(prefix, STATE).read_bytes(), type=_State)
    except (OSError, msgspec.MsgspecError):
        return
    if state.env_vars:
        names = ", ".join(sorted(state.env_vars))
        yield _problem(STATE, f"Variables of this prefix ({names}) may be secret and are not sent", Severity.NOTE)


def _problem(subject: str, what: str, severity: Severity = Severity.WARNING) -> Problem:
    return Problem(
        code="conda-activation",
        subject=os.path.basename(subject),
        message=f"{what}; name what the nodes need of it in the cluster's `environ`.",
        severity=severity,
    )
