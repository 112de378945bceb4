"""Prefixes made odd by hand, and a look at them."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from likewise.model.snapshot import Problem, Snapshot
from likewise.scanner import Scanned, scan_prefix
from likewise.scanner.probe import probe_python
from support.prefixes import make_venv, run


def look(python: Path | str, facts: Path | None = None) -> Scanned:
    """Scan the prefix of `python` from the working directory, with stat facts in `facts` (default: a new folder)."""
    return scan_prefix(probe_python(python), facts_dir=facts or Path(os.environ["LIKEWISE_CACHE"]) / "facts")


def site_of(python: Path | str) -> Path:
    """The site-packages of `python`."""
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def versions(snapshot: Snapshot) -> dict[str, str]:
    """Version by normalized name."""
    return {d.name: d.version for d in snapshot.distributions}


def problems(snapshot: Snapshot, code: str) -> list[Problem]:
    """The problems with this code."""
    return [problem for problem in snapshot.problems if problem.code == code]


def shipped(scanned: Scanned, name: str) -> dict[str, str]:
    """Layer path -> path on the disk of what is shipped as `name`; {} when nothing is."""
    source = scanned.sources.get(name)
    return {file.entry.path: file.path for file in source.files} if source else {}


def metadata(name: str, version: str, *, requires: Iterable[str] = ()) -> str:
    """The text of a ``METADATA`` file."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires), "", "The description.", ""])


def make_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str], *, requires: Iterable[str] = ()
) -> Path:
    """A pure wheel with `files`, by hand."""
    stem = f"{name.replace('-', '_')}-{version}"
    content = {
        **files,
        f"{stem}.dist-info/METADATA": metadata(name, version, requires=requires),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_hash(text)},{len(text.encode())}\n" for path, text in content.items())
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
        archive.writestr(f"{stem}.dist-info/RECORD", f"{record}{stem}.dist-info/RECORD,,\n")
    return wheel


def _hash(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def write_files(folder: Path, files: Mapping[str, str]) -> Path:
    """Write `files` (relative path -> text) beneath `folder`; returns `folder`."""
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder


def make_project(
    folder: Path, name: str, *, backend: str, requires: str, files: Mapping[str, str], more: str = ""
) -> Path:
    """A source tree with a ``pyproject.toml``; `more` is appended to it."""
    pyproject = f"""
[build-system]
requires = [{json.dumps(requires)}]
build-backend = "{backend}"
[project]
name = "{name}"
version = "1.0"
description = "A project."
{more}
"""
    return write_files(folder, {"pyproject.toml": pyproject, **files})


def python_like(prefix: Path) -> Path:
    """A Python whose base prefix is `prefix`: this one's program, its library linked; returns the executable."""
    base = Path(sys.base_prefix)
    (prefix / "bin").mkdir(parents=True)
    shutil.copy2(Path(getattr(sys, "_base_executable", sys.executable)).resolve(), prefix / "bin" / "python3")
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = prefix / "lib" / name
    library.mkdir(parents=True)
    for entry in (base / "lib" / name).iterdir():
        if entry.name != "site-packages":
            (library / entry.name).symlink_to(entry)
    (library / "site-packages").mkdir()
    return prefix / "bin" / "python3"


@functools.lru_cache(maxsize=4)
def venv_with_pip(folder: Path) -> Path:
    """The python of a venv with a current pip, to list other prefixes with."""
    return make_venv(folder / "lister", "pip")


def pip_list(lister: Path, python: Path | str, **environ: str) -> dict[str, str]:
    """What ``pip list`` says of the prefix of `python`, by normalized name."""
    from packaging.utils import canonicalize_name

    text = run(lister, "-m", "pip", "--python", python, "list", "--format", "json", **environ)
    return {canonicalize_name(entry["name"]): entry["version"] for entry in json.loads(text)}
