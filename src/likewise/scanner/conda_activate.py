"""What activating a conda prefix sets: the effect of its packages' scripts and variables, for the nodes' processes.

Nodes have no conda and activate nothing. So the scripts are run here, in a shell that has nothing of this process's
environment, and what they export is what counts. Only those of packages are run: what users put there themselves often
holds their keys.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from likewise.model.manifest import PREFIX_MARK
from likewise.model.snapshot import Problem, Severity

SCRIPTS, VARIABLES, STATE = "etc/conda/activate.d/", "etc/conda/env_vars.d/", "conda-meta/state"
TIMEOUT = 30.0
"""Seconds that all scripts together have."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN = re.compile(
    r"_|SHLVL|PWD|OLDPWD|PATH|HOME|PS1|PYTHONPATH|PYTHONHOME"
    r"|CONDA_(SHLVL|DEFAULT_ENV|PROMPT_MODIFIER|EXE|PYTHON_EXE|BACKUP_.*)"
)
"""What shells, conda and launch scripts set themselves."""

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
_RUN = 'for _lw_script; do . "$_lw_script" >&2 || :; done; unset _lw_script; exec /usr/bin/env -0'


class _State(msgspec.Struct):
    env_vars: dict[str, str] = {}


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
            variables.update(_run(prefix, scripts, variables))
        except (OSError, subprocess.SubprocessError) as error:
            problems.append(_problem(scripts[0], f"The activation scripts of {prefix} could not be run ({error})"))
    return _taken(variables, prefix), tuple(problems)


def _taken(variables: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        name: value.replace(prefix, PREFIX_MARK)
        for name, value in sorted(variables.items())
        if _NAME.fullmatch(name) and not _OWN.fullmatch(name) and not _SECRET.search(name) and _is_text(value)
    }


def _is_text(value: str) -> bool:
    return PREFIX_MARK not in value and value.isprintable()


def _there(prefix: str, folder: str, ending: str, paths: Collection[str]) -> list[str]:
    beginning = f"{prefix}/{folder}"
    return sorted(path for path in paths if path.startswith(beginning) and path.endswith(ending))


def _run(prefix: str, scripts: Iterable[str], variables: Mapping[str, str]) -> dict[str, str]:
    """What the shell exports after it has read `scripts`."""
    shell = next((s for s in ("/bin/bash", "/usr/bin/bash") if os.path.exists(s)), "/bin/sh")
    before = {
        "PATH": f"{prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "CONDA_SHLVL": "1",
        "CONDA_DEFAULT_ENV": os.path.basename(prefix),
        **variables,
    }
    done = subprocess.run(
        [shell, "-c", _RUN, "activate", *scripts],
        env=before,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=TIMEOUT,
        check=True,
    )
    lines = os.fsdecode(done.stdout).split("\0")
    after = dict(line.split("=", 1) for line in lines if "=" in line)
    return {name: value for name, value in after.items() if before.get(name) != value}


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
