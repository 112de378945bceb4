"""Real virtual environments, made with uv, for the tests to look at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import uv

UV = uv.find_uv_bin()


def clean_environ(**more: str) -> dict[str, str]:
    """The environment variables without anything that steers a Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA"))}
    return {**kept, **more}


def run(*argv: str | Path, cwd: str | Path | None = None, **environ: str) -> str:
    """Run a command that must succeed; its output is in the error when it does not."""
    done = subprocess.run(
        [str(a) for a in argv], cwd=cwd, env=clean_environ(**environ), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def make_venv(path: Path, *installs: str | Path, python: str = sys.executable, pip_args: tuple[str, ...] = ()) -> Path:
    """A venv at `path` with `installs` (requirement strings or local paths); returns its python executable."""
    run(UV, "venv", "--quiet", "--python", python, path)
    executable = path / "bin" / "python"
    if installs:
        run(UV, "pip", "install", "--quiet", "--python", executable, *pip_args, *installs)
    return executable
