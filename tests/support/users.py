"""Prefixes as users have them: their distributions, and likewise installed beside them as anybody would."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.prefixes import UV, clean_environ, make_venv, run

ROOT = Path(__file__).parents[2]


@functools.lru_cache(maxsize=1)
def likewise_wheel(folder: Path) -> Path:
    """This checkout as a wheel."""
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    return next(folder.glob("likewise-*.whl"))


def make_user_venv(path: Path, *installs: str | Path, python: str = sys.executable) -> Path:
    """A venv with `installs` and likewise itself (not editable); returns its python executable."""
    wheels = path.parent / f"{path.name}-wheels"
    wheel = likewise_wheel(wheels)
    return make_venv(path, wheel, *installs, python=python)


def run_script(
    python: Path, script: Path, *args: str, cache: Path, timeout: float = 300, **environ: str
) -> dict[str, Any]:
    """Run a script that prints one JSON document as its last line; the document."""
    done = subprocess.run(
        [str(python), str(script), *args],
        cwd=script.parent,
        env=clean_environ(LIKEWISE_CACHE=str(cache), **environ),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document
