"""A prefix that grows: a copy of an installed one, whose distributions a stand-in for the filler brings one by one.

It speaks the filler's protocol (map, there, failed, queue, lock, fill) in the fewest lines. What it adds is control: a
distribution can be held back until a test lets it go, or be made to fail, and everything comes slowly and out of order.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import likewise
from support.prefixes import clean_environ

FILLER = Path(__file__).with_name("growing_filler.py")
GATE = "import likewise.node.gate; likewise.node.gate.install()\n"
STUB = """#!/bin/sh
'{python}' -c 'from likewise.node.gate import main; main()' wait bin/{name} && exec "$0" "$@"
"""


def eventually(true: Callable[[], object], timeout: float = 60) -> None:
    """Wait until `true` returns something true."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.005)


class Growing:
    """The prefix `prefix`, which becomes what `original` is. Nothing in `original` is ever written to.

    Parameters
    ----------
    original, prefix : Path
        On one file system where that can be had: files are hard links.
    base : iterable of str
        Names of distributions that are there from the beginning.
    delay : float
        Seconds that each of the others takes.
    seed : int
        Of the order in which they come, which has nothing to do with who requires whom.
    lazy : bool
        Only what is asked for comes.
    """

    def __init__(
        self,
        original: Path,
        prefix: Path,
        *,
        base: Iterable[str] = (),
        delay: float = 0.0,
        seed: int = 0,
        lazy: bool = False,
    ) -> None:
        self.original, self.prefix = original, prefix
        self.python = prefix / "bin" / "python"
        (self.site,) = (prefix / path.relative_to(original) for path in original.glob("lib/python3*/site-packages"))
        self.plan = prefix.with_name(f"{prefix.name}.plan")
        self.growing = prefix / "growing"
        self.files = dict(self._distributions())
        self.needs = closures(self._requirements())
        self.late = sorted(self.files.keys() - {canonicalize_name(name) for name in base})
        self._make_base()
        self._make_growing(delay, seed, lazy)
        self._filler: subprocess.Popen[bytes] | None = None

    @staticmethod
    def all_but(original: Path, *names: str) -> list[str]:
        """All distributions of a prefix, without these."""
        found = (path.name.split("-")[0] for path in original.glob("lib/python3*/site-packages/*.dist-info"))
        return [name for name in found if canonicalize_name(name) not in names]

    def digest(self, name: str) -> str:
        """The first 16 digits of the name of a distribution's layer."""
        return hashlib.sha256(name.encode()).hexdigest()[:16]

    def fill(self) -> int:
        """Start the filler; its process id."""
        self._filler = subprocess.Popen([self.growing / "fill"], stdin=subprocess.DEVNULL)
        return self._filler.pid

    def hold(self, *names: str) -> None:
        """Keep distributions back until `release`."""
        for name in names:
            (self.plan / "hold" / name).touch()

    def release(self, *names: str) -> None:
        """Let distributions come that were held back; all of them when none is named."""
        for path in (self.plan / "hold").iterdir():
            if not names or path.name in names:
                path.unlink()

    def fail(self, name: str, why: str) -> None:
        """Let a distribution fail from now on; with an empty `why`, not any more."""
        if why:
            (self.plan / "fail" / name).write_text(f"{name}: {why}")
        else:
            (self.plan / "fail" / name).unlink()

    def log(self, event: str) -> list[str]:
        """The distributions that were ``wanted``, or that ``came``, or that ``failed``, in this order."""
        lines = [line.split(" ") for line in (self.plan / "log").read_text().splitlines()]
        return [name for what, name in lines if what == event]

    def wait_until_wanted(self, *names: str) -> None:
        """Return as soon as some process waits for all of these."""
        eventually(lambda: set(names) <= set(self.log("wanted")))

    def start(self, code: str, *argv: str, **environ: str) -> subprocess.Popen[str]:
        """Start the prefix's Python with `code`."""
        command = [self.python, *(["-c", code] if code else []), *argv]
        env = clean_environ(**{"LIKEWISE_GATE_TIMEOUT": "60", **environ})
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, code: str, *argv: str, **environ: str) -> str:
        """What the prefix's Python prints with `code`, which must succeed."""
        return finish(self.start(code, *argv, **environ))

    def close(self) -> None:
        """End the filler, whoever started it."""
        (self.plan / "stop").touch()
        if self._filler is not None:
            self._filler.wait(60)

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _distributions(self) -> Iterator[tuple[str, list[str]]]:
        """Names of the distributions with what they own, its bytecode too; paths are relative to the prefix."""
        here = Path(os.path.relpath(self.site, self.prefix))
        for record in sorted((self.original / here).glob("*.dist-info/RECORD")):
            with open(record, newline="", encoding="utf-8") as file:
                paths = [os.path.normpath(here / row[0]) for row in csv.reader(file) if row]
            paths = [path for path in paths if not is_base(path) and "__pycache__" not in path]
            for path in [path for path in paths if path.endswith(".py")]:
                cached = Path(path).parent / "__pycache__" / f"{Path(path).stem}.{sys.implementation.cache_tag}.pyc"
                if (self.original / cached).exists():
                    paths.append(str(cached))
            yield canonicalize_name(record.parent.name.split("-")[0]), paths

    def _requirements(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for metadata in self.original.glob("lib/python3*/site-packages/*.dist-info/METADATA"):
            name = canonicalize_name(metadata.parent.name.split("-")[0])
            head = metadata.read_text("utf-8").partition("\n\n")[0].splitlines()
            lines = [line.partition(":")[2].strip() for line in head if line.startswith("Requires-Dist:")]
            needed = [Requirement(line) for line in lines]
            applies = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
            found[name] = {canonicalize_name(r.name) for r in applies} & self.files.keys()
        return found

    def _make_base(self) -> None:
        """Everything that no late distribution owns, and the folders that it needs."""
        late = {path for name in self.late for path in self.files[name]}
        for folder, folders, names in os.walk(self.original):
            inside = os.path.relpath(folder, self.original)
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                path = os.path.normpath(os.path.join(inside, name))
                if path not in late:
                    (self.prefix / path).parent.mkdir(parents=True, exist_ok=True)
                    self._place(path)
        for name in self.files.keys() - set(self.late):
            for path in self.files[name]:
                if "__pycache__" in path:
                    (self.prefix / path).parent.mkdir(parents=True, exist_ok=True)
                    self._place(path)
        source = Path(likewise.__file__).parents[1]
        (self.site / "000-a-likewise.pth").write_text(f"{source}\n")
        (self.site / "000-likewise-gate.pth").write_text(GATE)

    def _place(self, path: str) -> None:
        source, target = self.original / path, self.prefix / path
        if path.startswith("bin/") and not source.is_symlink():
            data = source.read_bytes().replace(os.fsencode(self.original), os.fsencode(self.prefix))
            target.write_bytes(data)
            shutil.copymode(source, target)
        else:
            link(source, target)

    def _make_growing(self, delay: float, seed: int, lazy: bool) -> None:
        for folder in ("there", "failed"):
            (self.growing / folder).mkdir(parents=True)
        for folder in ("hold", "fail"):
            (self.plan / folder).mkdir(parents=True)
        (self.plan / "log").touch()
        os.mkfifo(self.growing / "queue")
        (self.growing / "map").write_text("".join(f"{k}\t{' '.join(v)}\n" for k, v in self._map().items()))
        fill = f'#!/bin/sh\nexec "{sys.executable}" "{FILLER}" "{self.plan}"\n'
        (self.growing / "fill").write_text(fill)
        (self.growing / "fill").chmod(0o755)
        names = [{"digest": self.digest(name) + "0" * 48, "name": name} for name in self.late]
        (self.prefix / "manifest.json").write_text(json.dumps({"layers": names}))
        plan = {
            "original": str(self.original),
            "prefix": str(self.prefix),
            "gate": str(self.site / "000-likewise-gate.pth"),
            "layers": {name: {"digest": self.digest(name), "files": self.files[name]} for name in self.late},
            "delay": delay,
            "seed": seed,
            "lazy": lazy,
        }
        (self.plan / "plan.json").write_text(json.dumps(plan))

    def _map(self) -> Mapping[str, list[str]]:
        """Top-level names and scripts → digests of what has to be there; stubs for the scripts are written, too."""
        here = f"{self.site.relative_to(self.prefix)}/"
        owners: dict[str, set[str]] = defaultdict(set)
        for name, paths in self.files.items():
            for path in paths:
                if path.startswith(here):
                    owners[top_level(path.removeprefix(here))].add(name)
                elif path.startswith("bin/") and name in self.late:
                    owners[path].add(name)
                    target = self.prefix / path
                    target.write_text(STUB.format(python=self.python, name=target.name))
                    target.chmod(0o755)
        late = set(self.late)
        needs = {top: {need for name in names for need in self.needs[name]} & late for top, names in owners.items()}
        return {top: [self.digest(need) for need in sorted(names)] for top, names in needs.items() if names}


def finish(process: subprocess.Popen[str], timeout: float = 90) -> str:
    """The output of a process that must succeed, and soon: one that hangs is ended and fails the test."""
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{errors}"
    return out.strip()


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where that can't be."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def is_base(path: str) -> bool:
    """Whether a file is there from the beginning: metadata and what Python reads when it starts."""
    parts = Path(path).parts
    return (
        any(part.endswith(".dist-info") for part in parts)
        or path.endswith("/_virtualenv.py")
        or (parts[-2:-1] == ("site-packages",) and path.endswith(".pth"))
    )


def top_level(path: str) -> str:
    """The name by which a file below the site folder is imported."""
    first, _, rest = path.partition("/")
    return first if rest else first.partition(".")[0]


def closures(requires: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Each name with all that it requires, and what that requires."""
    found: dict[str, set[str]] = {}
    for name in requires:
        reached, new = {name}, [name]
        while new:
            more = requires.get(new.pop(), set()) - reached
            reached |= more
            new += more
        found[name] = reached
    return found
