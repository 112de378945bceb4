"""Commands that run as if some of this machine's folders and files had never been there.

A private mount namespace hides them from one command and its children, and from nobody else: how a test proves that
a replica does not lean on its original. Needs root (mark the test so) and Linux.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from support.prefixes import clean_environ

_WHITEOUTS = "/mnt"  # covered by a tmpfs inside the namespace only


def masked(
    argv: Sequence[str | Path],
    hide: Iterable[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    check: bool = False,
    timeout: float = 120,
    input: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` where every folder in `hide` is empty and every file in `hide` is absent.

    Parameters
    ----------
    argv : sequence of str or Path
        The command; its program must not lie in a hidden folder.
    hide : iterable of str or Path
        Existing folders (each covered by an empty tmpfs) and files (each made absent in its folder). What does not
        exist is an error, since hiding it would prove nothing. A symbolic link counts as a file of its own.
    env : mapping, optional
        The whole environment of the command; by default this one's without anything that steers a Python.
    check : bool
        Whether a failing command is an AssertionError that shows its output.

    Returns
    -------
    subprocess.CompletedProcess
        With text `stdout` and `stderr`.
    """
    command = masked_argv(argv, hide)
    done = subprocess.run(
        command,
        env=dict(env) if env is not None else clean_environ(),
        cwd=cwd,
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        shown = " ".join(map(str, argv))
        raise AssertionError(f"{shown} (masked) exited {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def masked_argv(argv: Sequence[str | Path], hide: Iterable[str | Path]) -> list[str]:
    """The command line that runs `argv` masked, for a test that starts the process itself."""
    return ["unshare", "--mount", "sh", "-ec", _script(hide), "masked", *map(str, argv)]


def _script(hide: Iterable[str | Path]) -> str:
    folders, files = [], {}
    for path in hide:
        text = os.fspath(path)
        if not os.path.lexists(text):
            raise FileNotFoundError(f"{text} is not there, so it can't be masked")
        if os.path.isdir(text) and not os.path.islink(text):
            folders.append(os.path.realpath(text))
        else:
            parent, name = os.path.split(text)
            files.setdefault(os.path.realpath(parent), []).append(name)
    lines = [f"mount -t tmpfs -o mode=700 whiteouts {_WHITEOUTS}"] if files else []
    for number, (parent, names) in enumerate(files.items()):
        lines += _absent(f"{_WHITEOUTS}/{number}", parent, names)
    lines += [f"mount -t tmpfs -o mode=755 masked {shlex.quote(folder)}" for folder in folders]
    return "\n".join([*lines, 'exec "$@"'])


def _absent(whiteouts: str, parent: str, names: Sequence[str]) -> list[str]:
    """Overlay `parent` with a layer of whiteouts (character devices 0/0, as the kernel's overlayfs defines them)."""
    lines = [f"mkdir {whiteouts}"]
    lines += [f"mknod {shlex.quote(f'{whiteouts}/{name}')} c 0 0" for name in names]
    quoted = shlex.quote(parent)
    return [*lines, f"mount -t overlay -o lowerdir={whiteouts}:{quoted} masked {quoted}"]
