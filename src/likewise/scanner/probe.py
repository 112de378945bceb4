"""What an interpreter is and where it looks for modules: asking it, here or in another process, and its answer."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from likewise.errors import ScanError, UnsupportedError
from likewise.model.snapshot import Interpreter, PrefixKind
from likewise.model.target import Platform
from likewise.scanner import interview

PROBE_TIMEOUT = 60.0
"""Seconds that another interpreter has to answer; sitecustomize and ``.pth`` code run before it does."""


class MainModule(msgspec.Struct, frozen=True, kw_only=True):
    """The ``__main__`` of the probed process; all empty when it was only started to be probed.

    Attributes
    ----------
    file : str
        Absolute path of the script, "" when there is none.
    package : str
        Its ``__package__``.
    spec_name : str
        ``pkg.mod`` when it was run with ``-m``.
    interactive : bool
        A prompt, a notebook or ``-c``: no file stands behind it.
    """

    file: str = ""
    package: str = ""
    spec_name: str = ""
    interactive: bool = False


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an interpreter says of itself.

    Attributes
    ----------
    interpreter : Interpreter
        The part that goes into the snapshot.
    base_executable : str
        The interpreter that a venv was made from.
    sys_path : tuple of str
        Absolute, in order, without duplicates. Relative entries are dropped when the working directory is gone.
    paths : dict
        ``sysconfig.get_paths()``.
    site_dirs : tuple of str
        ``site.getsitepackages()``: the directories whose ``.pth`` files count.
    user_site, user_site_enabled : str, bool
        The user site directory, and whether it is on ``sys.path``.
    pythonpath : tuple of str
        Absolute entries of ``PYTHONPATH``, in order.
    safe_path : bool
        ``-P``: nothing was put before ``PYTHONPATH``.
    cwd : str
        The working directory, "" when it was deleted.
    main : MainModule
    modules : dict
        Name (dotted ones too) -> file of each module loaded in this process; empty for another interpreter.
    """

    interpreter: Interpreter
    base_executable: str
    sys_path: tuple[str, ...]
    paths: dict[str, str]
    site_dirs: tuple[str, ...]
    user_site: str
    user_site_enabled: bool
    pythonpath: tuple[str, ...]
    safe_path: bool
    cwd: str
    main: MainModule = MainModule()
    modules: dict[str, str] = {}

    @property
    def executable(self) -> str:
        """The interpreter, absolute."""
        return self.interpreter.executable


def probe_here() -> Probe:
    """Probe the running process.

    Raises
    ------
    UnsupportedError
        When this Python is older than 3.10.
    """
    return parse_interview(interview.interview(), main=interview.main_module(), modules=interview.loaded_modules())


def probe_python(executable: str | Path) -> Probe:
    """Probe another interpreter: start it as it would be started here, with this working directory and environment.

    Nothing is written into its prefix: bytecode that it would leave there would be taken for the environment's.

    Parameters
    ----------
    executable : str or Path
        Any Python from 3.10 on; likewise need not be installed for it.

    Raises
    ------
    ScanError
        When it can't be started, fails, or gives no answer; ``details["output"]`` has what it said.
    UnsupportedError
        When it is older than 3.10.
    """
    # The answer stands between two marks: .pth files and sitecustomize may print what they like.
    mark = secrets.token_hex(16)
    source = Path(interview.__file__).read_text(encoding="utf-8")
    source += f"\nimport json\nprint('\\n{mark}', json.dumps(interview()), '{mark}', sep='\\n', flush=True)\n"
    where = str(executable)
    try:
        done = subprocess.run(
            [os.path.abspath(where) if os.sep in where else where, "-B", "-c", source],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise ScanError("There is no such Python.", where=where, todo="Check the path.") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise ScanError(f"This Python could not be asked about itself ({error}).", where=where) from error
    answer = done.stdout.split(mark)
    if done.returncode or len(answer) != 3:
        raise ScanError(
            "This Python could not be asked about itself.",
            where=where,
            todo="Check that it is a Python of version 3.10 or newer.",
            details={"exit": done.returncode, "output": _last_line(done.stdout + done.stderr)},
        )
    return parse_interview(json.loads(answer[1]), main={}, modules={})


def _last_line(said: str) -> str:
    """What a program said last; one that is no Python may repeat all that it was given, on one line."""
    lines = said.strip().splitlines() or [""]
    return lines[-1] if len(lines[-1]) <= 200 else f"…{lines[-1][-200:]}"


def parse_interview(raw: Mapping[str, Any], *, main: Mapping[str, Any], modules: Mapping[str, str]) -> Probe:
    """Make a `Probe` of what `interview.interview` returned.

    Raises
    ------
    ScanError
        When the interpreter does not know its own executable.
    UnsupportedError
        When the Python is older than 3.10.
    """
    if tuple(raw["version_info"][:2]) < (3, 10):
        version = ".".join(map(str, raw["version_info"][:3]))
        raise UnsupportedError(
            f"Python {version} is too old.", where=raw["executable"], todo="likewise needs Python 3.10 or newer."
        )
    if not raw["executable"]:
        raise ScanError(
            "This process does not know which Python it runs: it is embedded in another program.",
            todo="Pass the path of a Python.",
        )
    cwd: str = raw["cwd"]
    main_file = _absolute(main.get("file", ""), cwd) if main.get("file") else ""
    return Probe(
        interpreter=_interpreter(raw),
        base_executable=raw["base_executable"],
        sys_path=_absolute_all(raw["sys_path"], cwd),
        paths={name: os.path.normpath(path) for name, path in raw["paths"].items()},
        site_dirs=_absolute_all(raw["site_dirs"], cwd),
        user_site=raw["user_site"],
        user_site_enabled=raw["user_site_enabled"],
        # An empty entry *within* a non-empty PYTHONPATH means the working directory; an empty PYTHONPATH means nothing.
        pythonpath=_absolute_all(raw["pythonpath"], cwd) if any(raw["pythonpath"]) else (),
        safe_path=raw["safe_path"],
        cwd=cwd,
        main=msgspec.convert({**main, "file": main_file}, MainModule),
        modules={name: path for name, file in modules.items() if (path := _absolute(file, cwd))},
    )


def _absolute(entry: str, cwd: str) -> str:
    if not os.path.isabs(entry):
        return os.path.normpath(os.path.join(cwd, entry)) if cwd else ""
    return os.path.normpath(entry)


def _absolute_all(entries: list[str], cwd: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for entry in entries if (path := _absolute(entry, cwd))))


def _interpreter(raw: Mapping[str, Any]) -> Interpreter:
    abiflags = raw["abiflags"]
    if raw["gil_disabled"] and "t" not in abiflags:  # Windows has no abiflags
        abiflags += "t"
    base = prefix_kind(raw["base_prefix"], raw["config_args"])
    return Interpreter(
        implementation=raw["implementation"],
        version=full_version(raw["version_info"]),
        cache_tag=raw["cache_tag"],
        magic=raw["magic"],
        abiflags=abiflags,
        platform=parse_platform(raw["system"], raw["machine"], raw["bits"], raw["libc"]),
        prefix=os.path.normpath(raw["prefix"]),
        base_prefix=os.path.normpath(raw["base_prefix"]),
        executable=raw["executable"],
        kind=base if raw["prefix"] == raw["base_prefix"] else PrefixKind.VENV,
        base_kind=base,
    )


def full_version(version_info: list[Any]) -> str:
    """``3.14.0rc1`` from ``sys.version_info``."""
    major, minor, micro, level, serial = version_info
    suffix = "" if level == "final" else {"alpha": "a", "beta": "b"}.get(level, "rc") + str(serial)
    return f"{major}.{minor}.{micro}{suffix}"


def parse_platform(system: str, machine: str, bits: int, libc: str) -> Platform:
    """The platform, from `platform.system()`, `platform.machine()`, the pointer width and what the C library says."""
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())
    if bits == 32:  # a 32-bit Python on a 64-bit kernel
        arch = {"x86_64": "i686", "aarch64": "armv7l"}.get(arch, arch)
    os_name = {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}.get(system, system.lower())
    if glibc := re.match(r"glibc (\d+\.\d+)", libc):
        return Platform(os=os_name, arch=arch, libc="glibc", libc_version=glibc[1])
    if musl := re.search(r"^musl libc.*\nVersion (\d+\.\d+)", libc):
        return Platform(os=os_name, arch=arch, libc="musl", libc_version=musl[1])
    return Platform(os=os_name, arch=arch)


def prefix_kind(base_prefix: str, config_args: str) -> PrefixKind:
    """Who made the Python at `base_prefix`."""
    base = Path(os.path.realpath(base_prefix))
    if (base / "conda-meta").is_dir():
        return PrefixKind.CONDA
    # python-build-standalone is configured for /install; uv names its folders cpython-3.11.7-linux-x86_64-gnu.
    if "--prefix=/install" in config_args or re.match(r"(cpython|pypy|graalpy)-\d+\.\d+\.\d+.*-.*-", base.name):
        return PrefixKind.UV
    if base.parent.name == "versions" and (base.parent.parent / "shims").is_dir():
        return PrefixKind.PYENV
    if base == Path("/usr"):
        return PrefixKind.SYSTEM
    return PrefixKind.OTHER
