"""The environments that are measured, and how each is made: prefixes, wheels, archives, all below one folder.

What is made here is prepared once and found again by the next run of the bench; only likewise itself is installed anew,
since the checkout as it is gets measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
W160_TASK = ("numpy", "pandas", "sklearn.linear_model", "pyarrow", "scipy.stats", "matplotlib")
GB = 10**9
PROGRAM = '''"""A user's program: its first task needs what it imports."""

from __future__ import annotations

from ways import main


def task() -> dict[str, str]:
    """Runs on a worker, the same in every way."""
    import sys

{imports}

    versions = {{name: str(getattr(sys.modules[name], "__version__", "")) for name in {names}}}
    return {{**versions, "prefix": sys.prefix}}


if __name__ == "__main__":
    main(task)
'''
_LOCAL = {"calibration": "1.4.2", "stations": "0.3.0"}
"""The packages of the demo that no index has (`examples/packages`), and their versions."""


class Unavailable(Exception):
    """What is wanted can't be had on this machine; the text says why."""


@dataclass(frozen=True)
class Environment:
    """One environment.

    Attributes
    ----------
    name, about : str
        For people.
    folder : str
        Where its prefixes are; environments that differ in their task alone share one.
    task : tuple of str
        The modules that the first task imports.
    changed : str
        The module of a pure distribution, one file of which changes before a launch.
    ways : tuple of str
        What is measured unless the command line says otherwise; all when empty.
    needs : int
        Free bytes without which it is not begun.
    """

    name: str
    about: str
    folder: str
    task: tuple[str, ...]
    changed: str
    ways: tuple[str, ...] = ()
    needs: int = 1 * GB


_FEW = ("preinstalled", "same processes", "likewise, empty node", "likewise, warm")
_TORCH = "W160 and torch; the same task, which does not import it"
ENVIRONMENTS = {
    e.name: e
    for e in (
        Environment("demo", "the environment of examples/demo", "demo",
                    ("numpy", "pandas", "tabulate", "stations", "calibration"), "tabulate"),
        Environment("w160", "160 distributions, 1.4 GB", "w160", W160_TASK, "requests", needs=15 * GB),
        Environment("w160-torch", _TORCH, "w160-torch", W160_TASK, "requests", _FEW, 20 * GB),
        Environment("w160-torch-imported", "the same, and the task imports torch as well", "w160-torch",
                    (*W160_TASK, "torch"), "requests", _FEW, 20 * GB),
    )
}  # fmt: skip


def own_environment(requirements: Path, task: tuple[str, ...]) -> Environment:
    """An environment of the user's: what a requirements file names."""
    return Environment("own", requirements.name, f"own-{requirements.stem}", task, task[0])


class Place:
    """Where one environment is, and the making of it.

    Parameters
    ----------
    environment : Environment
    base : Path
        The bench's folder.
    requirements : Path, optional
        Of the user's own environment.
    wheels : Path, optional
        A folder that has all wheels; they are downloaded otherwise.
    """

    def __init__(self, environment: Environment, base: Path, requirements: Path | None, wheels: Path | None) -> None:
        self.environment = environment
        self.folder = base / environment.folder
        self.given = requirements
        self.tools = base / "tools"
        self.client, self.plain = self.folder / "client", self.folder / "plain"
        self.dask, self.node = self.folder / "dask", self.folder / "node"
        self.ray = self.folder / "ray"
        self.requirements = self.folder / "requirements.txt"
        self.program = self.folder / f"program-{environment.name}" / "first_task.py"
        self.wheels = wheels or self.folder / "wheels"
        self.archive = self.folder / "venv-pack.tar.gz"
        self.cwd = self.folder / "cwd"
        self.notes = self.folder / "prepared.json"
        self.rehearsed = self.folder / "rehearsed.json"

    def make_program(self) -> None:
        """The user's program, and beside it the module that it imports."""
        self.program.parent.mkdir(parents=True, exist_ok=True)
        names = sorted({name.partition(".")[0] for name in self.environment.task})
        imports = "\n".join(f"    import {name}" for name in self.environment.task)
        _write(self.program, PROGRAM.format(imports=imports, names=names))
        _write(self.program.parent / "ways.py", (REPOSITORY / "bench" / "ways.py").read_text("utf-8"))

    def make_client(self) -> None:
        """The client's prefix, all bytecode compiled, and the list of what is in it."""
        self.cwd.mkdir(parents=True, exist_ok=True)
        self._make_prefix(self.client)
        compiled = self.client / "compiled"
        new = self.client.glob("lib/*/site-packages/likewise") if compiled.exists() else [self.client / "lib"]
        checked([self.client / "bin/python", "-m", "compileall", "-q", *new], codes=(0, 1))
        compiled.touch()
        frozen = uv("pip", "freeze", "--quiet", "--python", self.client / "bin/python")
        names = [line for line in map(self._as_wheel, frozen.splitlines()) if not line.startswith("likewise ")]
        self.requirements.write_text("".join(f"{name}\n" for name in names if "==" in name))

    def _as_wheel(self, line: str) -> str:
        """A line of ``pip freeze``, as a version: the demo's local packages are served as wheels, too."""
        name = line.removeprefix("-e ").partition(" @ ")[0].rstrip("/").rpartition("/")[2]
        return f"{name}=={_LOCAL[name]}" if name in _LOCAL and "==" not in line else line

    def make_plain(self) -> None:
        """A prefix like the client's without any bytecode, as uv leaves it."""
        self._make_prefix(self.plain)

    def _make_prefix(self, prefix: Path) -> None:
        if self.environment.folder == "demo":
            self._make_demo(prefix)
        elif not (prefix / "complete").exists():
            make_venv(prefix)
            self._install_all(prefix)
            (prefix / "complete").touch()
        # Apart from the rest, and always anew: what is measured is the checkout as it is.
        again = ["--refresh-package", "likewise", "--reinstall-package", "likewise"]
        pip_install(prefix, *again, REPOSITORY)

    def _make_demo(self, prefix: Path) -> None:
        """As ``make demo`` makes it."""
        if not prefix.exists():
            home = self.folder / f"demo-{prefix.name}"
            code = "import make_env; make_env.make()"
            checked([sys.executable, "-c", code, home], cwd=REPOSITORY / "examples" / "demo")
            prefix.symlink_to(home / "venv")

    def _install_all(self, prefix: Path) -> None:
        if self.environment.folder != "w160-torch":
            pip_install(prefix, "--requirement", self.given or REPOSITORY / "bench" / "w160.txt")
            return
        w160 = ["--requirement", REPOSITORY / "bench" / "w160.txt"]
        try:
            pip_install(prefix, *w160, "torch", "--torch-backend", "cpu", seconds=600)
        except Unavailable as error:
            say(f"the build of torch for CPUs can't be had ({_last_line(error)}); trying the default index")
            pip_install(prefix, *w160, "torch")

    def make_wheels(self) -> None:
        """Every wheel of the requirements, fetched once; the demo's own packages are built."""
        done = self.wheels / "complete"
        if self.wheels.parent != self.folder or (done.exists() and done.read_text() == self.requirements.read_text()):
            return
        self.wheels.mkdir(exist_ok=True)
        wanted = self.requirements.read_text().splitlines()
        if self.environment.folder == "demo":
            for name in _LOCAL:
                source = REPOSITORY / "examples" / "packages" / name
                uv("build", "--quiet", "--wheel", "--out-dir", self.wheels, source)
            wanted = [line for line in wanted if line.partition("==")[0] not in _LOCAL]
            pip_download(self.wheels, "hatchling")  # builds the editable: likewise finds it on the same index
        fetch = self.folder / "fetch.txt"
        fetch.write_text("\n".join(wanted) + "\n")
        pip_download(self.wheels, "--no-deps", "--requirement", fetch)
        done.write_text(self.requirements.read_text())

    def make_dask(self) -> None:
        """A prefix that has Dask and pip alone."""
        wanted = [line for line in self.requirements.read_text().splitlines() if line.startswith(("dask=", "distr"))]
        make_venv(self.dask)
        # Copies: links to uv's cache would change the ctime of the client's files, which are the same ones.
        pip_install(self.dask, *wanted, "pip", "--compile-bytecode", "--link-mode", "copy")

    def make_ray(self) -> None:
        """A prefix that has Ray alone (dependency group ``bench-ray``), with pip, from which Ray gets uv."""
        if not (self.ray / "complete").exists():
            make_venv(self.ray)
            pip_install(self.ray, "pip", "--compile-bytecode", "--group", f"{REPOSITORY}/pyproject.toml:bench-ray")
            (self.ray / "complete").touch()

    def make_archive(self) -> None:
        """The client's prefix as venv-pack packs it; the processor's seconds for that are noted.

        An archive of the same distributions stays: what it has of likewise is not used.
        """
        if self.archive_notes().get("of") == self._content():
            return
        if not (self.tools / "complete").exists():
            make_venv(self.tools)
            pip_install(self.tools, "--group", f"{REPOSITORY}/pyproject.toml:bench")
            (self.tools / "complete").touch()
        self.archive.unlink(missing_ok=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        checked([self.tools / "bin/venv-pack", "--quiet", "--prefix", self.client.resolve(), "--output", self.archive])
        size = round(self.archive.stat().st_size / 1e6)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        self.notes.write_text(json.dumps({"seconds of a core to pack": seconds, "MB": size, "of": self._content()}))

    def archive_notes(self) -> dict[str, Any]:
        """How long packing took, how large the archive is, and what it was made of."""
        return _notes(self.notes)

    def was_rehearsed(self, way: str) -> bool:
        """Whether the caches of a way were filled in an earlier run of the bench, with the same distributions."""
        return bool(_notes(self.rehearsed).get(way) == self._content())

    def note_rehearsed(self, way: str) -> None:
        """The caches of a way are filled."""
        self.rehearsed.write_text(json.dumps({**_notes(self.rehearsed), way: self._content()}))

    def _content(self) -> str:
        """The digest of the requirements."""
        return hashlib.sha256(self.requirements.read_bytes()).hexdigest()

    def change_one(self) -> None:
        """Change a module's file in the client's prefix by replacing it: written in place, uv's cache would change."""
        (found,) = [
            path
            for name in (f"{self.environment.changed}.py", f"{self.environment.changed}/__init__.py")
            for path in self.client.glob(f"lib/python*/site-packages/{name}")
        ]
        lines = [line for line in found.read_text("utf-8").splitlines() if not line.startswith("# changed at ")]
        with tempfile.NamedTemporaryFile("w", dir=found.parent, delete=False, encoding="utf-8") as new:
            new.write("\n".join([*lines, f"# changed at {time.time_ns()}"]) + "\n")
        shutil.copymode(found, new.name)
        os.replace(new.name, found)

    def free(self) -> int:
        """Free bytes of the disk."""
        existing = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        return shutil.disk_usage(existing).free


def _notes(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write(path: Path, text: str) -> None:
    """Write a file that may be there already: one that is as it should be stays as old as it is."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def make_venv(prefix: Path) -> None:
    """An empty virtual environment, unless it is there."""
    if not (prefix / "bin" / "python").exists():
        uv("venv", "--quiet", "--python", sys.executable, prefix)


def pip_install(prefix: Path, *arguments: str | Path, seconds: float | None = None) -> None:
    """Install with uv, with the user's own configuration and cache."""
    uv("pip", "install", "--quiet", "--python", prefix / "bin" / "python", *arguments, seconds=seconds)


def pip_download(folder: Path, *arguments: str | Path) -> None:
    """Download wheels with pip, which has a command for that."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    checked([*argv, "--only-binary", ":all:", "--dest", folder, *arguments])


def find_uv() -> str:
    """The uv that came with likewise."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def uv(*arguments: str | Path, seconds: float | None = None) -> str:
    """Run uv; what it printed."""
    return checked([find_uv(), *arguments], seconds=seconds)


def checked(
    argv: list[str | Path], *, cwd: Path | None = None, codes: tuple[int, ...] = (0,), seconds: float | None = None
) -> str:
    """Run a command of the preparation; what it printed.

    Raises
    ------
    Unavailable
        With the command's last words, when it fails.
    """
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA", "DASK_"))}
    try:
        done = subprocess.run(
            [str(a) for a in argv],
            cwd=cwd, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(argv[0]).name} took more than {seconds:.0f} s") from None
    if done.returncode not in codes:
        raise Unavailable(f"{Path(argv[0]).name} exited {done.returncode}: {last_words(done.stdout + done.stderr)}")
    return done.stdout


def last_words(text: str, most: int = 600) -> str:
    """The end of what a process said, in one line."""
    return " ".join(text.split())[-most:]


def _last_line(error: Unavailable) -> str:
    return str(error)[-160:]


def say(what: str) -> None:
    """How far it is."""
    print(what, file=sys.stderr, flush=True)
