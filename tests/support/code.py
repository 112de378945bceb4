"""Probes and stat facts for tests of loose code: a process described rather than started."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from likewise.events import Silent
from likewise.model.digest import Digest
from likewise.model.editable import Editable
from likewise.model.snapshot import Interpreter, PrefixKind
from likewise.model.target import Platform
from likewise.scanner.code import CodeScan, Limits, scan_code
from likewise.scanner.probe import MainModule, Probe


class Remembered:
    """Stat facts that never doubt: what was hashed once is known as long as size and times are the same."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int, int], Digest] = {}
        self.hashed: list[str] = []

    def digest(self, path: str, stat: os.stat_result) -> Digest | None:
        return self.known.get((path, stat.st_size, stat.st_mtime_ns))

    def remember(self, path: str, stat: os.stat_result, digest: Digest) -> None:
        self.known[path, stat.st_size, stat.st_mtime_ns] = digest
        self.hashed.append(path)


def make_probe(
    sys_path: Sequence[Path | str],
    *,
    cwd: Path | str = "",
    main: MainModule | None = None,
    pythonpath: Sequence[Path | str] = (),
    modules: Mapping[str, Path | str] | None = None,
    prefix: Path | str = "/nowhere/prefix",
    safe_path: bool = False,
) -> Probe:
    """A probe of a process whose standard library lies in ``<prefix>/lib/python3.11``."""
    stdlib = f"{prefix}/lib/python3.11"
    return Probe(
        interpreter=Interpreter(
            implementation="cpython",
            version="3.11.7",
            cache_tag="cpython-311",
            magic="a70d0d0a",
            abiflags="",
            platform=Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36"),
            prefix=str(prefix),
            base_prefix=str(prefix),
            executable=f"{prefix}/bin/python3.11",
            kind=PrefixKind.OTHER,
            base_kind=PrefixKind.OTHER,
        ),
        base_executable=f"{prefix}/bin/python3.11",
        sys_path=tuple(map(str, sys_path)),
        paths={"stdlib": stdlib, "purelib": f"{stdlib}/site-packages"},
        site_dirs=(f"{stdlib}/site-packages",),
        user_site="",
        user_site_enabled=False,
        pythonpath=tuple(map(str, pythonpath)),
        safe_path=safe_path,
        cwd=str(cwd),
        main=main or MainModule(),
        modules={name: str(path) for name, path in (modules or {}).items()},
    )


def scan_folder(
    root: Path,
    *,
    modules: Mapping[str, Path | str] | None = None,
    limits: Limits | None = None,
    facts: Remembered | None = None,
    editables: Sequence[Editable] = (),
) -> CodeScan:
    """Scan for somebody who works at a prompt in `root`."""
    probe = make_probe([root], cwd=root, main=MainModule(interactive=True), modules=modules)
    return scan_code(
        probe,
        skip=[],
        editables=editables,
        facts=facts or Remembered(),
        limits=limits or Limits(),
        reporter=Silent(),
    )


def shipped(scan: CodeScan, name: str = "code-0") -> set[str]:
    """Relative paths of what goes along from one root; nothing when there is no such root."""
    if name not in scan.sources:
        return set()
    return {f.entry.path.removeprefix(f"code/{name}/") for f in scan.sources[name].files}


def write(root: Path, *names: str, text: str = "x = 1\n") -> None:
    """Make files beneath `root`."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
