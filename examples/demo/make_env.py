"""Make a small real environment with everything in it that usually makes environments hard to copy, and run `main.py`
there: ``python make_env.py [FOLDER]``, by default in .demo/, which is made anew.

Run it with a Python that has uv (``make demo`` does). Needs git, and a package index for numpy and pandas.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
PACKAGES = HERE.parent / "packages"
DEMO = Path(sys.argv[1]).absolute() if sys.argv[1:] else REPOSITORY / ".demo"
PYTHON = DEMO / "venv" / "bin" / "python"

PATCH = '''

def by_hand() -> str:
    """Somebody changed this installed file, as somebody always does."""
    return "patched by hand, in no release"
'''


def main() -> int:
    """Make the environment and run the demo in it; its exit code is ours."""
    make()
    environ = {**os.environ, "LIKEWISE_CACHE": str(DEMO / "cache")}
    return subprocess.run([PYTHON, HERE / "main.py"], env=environ, check=False).returncode


def make() -> None:
    """Make the environment, anew."""
    from uv import find_uv_bin

    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(parents=True)
    say("a git repository of its own, with one commit")
    commit = make_repository("calibration")
    say("a virtual environment: numpy, pandas, an editable package, the git dependency, likewise itself")
    shutil.copytree(PACKAGES / "stations", DEMO / "stations")
    make_venv(find_uv_bin(), commit)
    say("one installed package patched by hand")
    patch(module_file("tabulate"))


def say(what: str) -> None:
    """What is being made."""
    print(f"making {DEMO.name}: {what}", file=sys.stderr, flush=True)


def make_repository(name: str) -> str:
    """A bare repository of the package `name` in .demo/git, with an identity of its own; returns the commit."""
    work = DEMO / "git" / name
    shutil.copytree(PACKAGES / name, work)
    git("init", "--quiet", cwd=work)
    git("add", ".", cwd=work)
    git("commit", "--quiet", "--message", f"{name}, first release", cwd=work)
    commit = git("rev-parse", "HEAD", cwd=work).strip()
    git("clone", "--quiet", "--bare", str(work), f"{work}.git", cwd=work)
    shutil.rmtree(work)
    return commit


def git(*arguments: str, cwd: Path) -> str:
    """Run git as nobody in particular: neither the user's settings nor the system's play a part."""
    identity = ["-c", "user.name=Demo", "-c", "user.email=demo@example.invalid", "-c", "commit.gpgsign=false"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return checked(["git", *identity, *arguments], cwd=cwd, env=environ)


def make_venv(uv: str, commit: str) -> None:
    """The virtual environment of the demo."""
    checked([uv, "venv", "--quiet", "--python", sys.executable, DEMO / "venv"])
    checked(
        [
            uv, "pip", "install", "--quiet", "--python", PYTHON,
            # uv would take the likewise that it built before: it looks at pyproject.toml alone
            "--refresh-package", "likewise",
            "numpy", "pandas", "tabulate", f"likewise @ {REPOSITORY.as_uri()}",
            "--editable", DEMO / "stations",
            f"calibration @ git+{(DEMO / 'git' / 'calibration.git').as_uri()}@{commit}",
        ]
    )  # fmt: skip


def module_file(name: str) -> Path:
    """Where the demo's environment has the module `name`."""
    return Path(checked([PYTHON, "-c", f"import {name}; print({name}.__file__)"]).strip())


def patch(file: Path) -> None:
    """Change an installed file. By replacing it: written in place, uv's cache would change along (a hard link)."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".py", delete=False, encoding="utf-8") as changed:
        changed.write(file.read_text("utf-8") + PATCH)
    shutil.copymode(file, changed.name)
    os.replace(changed.name, file)


def checked(argv: list[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; what it said is shown when it does not."""
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f"The demo needs {argv[0]}, which is not installed here.")
    if done.returncode:
        sys.exit(f"{' '.join(map(str, argv))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
