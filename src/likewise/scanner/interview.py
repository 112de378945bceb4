"""Asks a Python about itself. Runs *inside* the interpreter that is scanned, so it needs the standard library alone.

`likewise.scanner.probe` calls `interview` in its own process, or hands this file's source to another interpreter
(``python -c``) that may be any Python from 3.10 on and has never heard of likewise. Everything it returns is JSON.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import site
import struct
import subprocess
import sys
import sysconfig


def interview() -> dict[str, object]:
    """What this interpreter says of itself. Raw facts only: judging them is the caller's work."""
    try:
        cwd = os.getcwd()
    except OSError:  # the working directory was deleted
        cwd = ""
    return {
        "executable": sys.executable or "",
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "base_executable": getattr(sys, "_base_executable", "") or "",
        "version_info": list(sys.version_info),
        "implementation": sys.implementation.name,
        "cache_tag": sys.implementation.cache_tag or "",
        "magic": importlib.util.MAGIC_NUMBER.hex(),
        "abiflags": getattr(sys, "abiflags", ""),
        "gil_disabled": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "system": platform.system(),
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "libc": _libc(),
        "config_args": sysconfig.get_config_var("CONFIG_ARGS") or "",
        "sys_path": [str(entry) for entry in sys.path],
        "paths": sysconfig.get_paths(),
        "site_dirs": _site_dirs(),
        "user_site": _user_site(),
        "user_site_enabled": bool(site.ENABLE_USER_SITE),
        "safe_path": bool(getattr(sys.flags, "safe_path", False)),
        "pythonpath": [] if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "").split(os.pathsep),
        "cwd": cwd,
    }


def main_module() -> dict[str, object]:
    """What ``__main__`` is: a script, a module run with ``-m``, or somebody typing."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None) or ""
    if file.startswith("<"):  # "<stdin>", of a script that came through a pipe
        file = ""
    return {
        "file": file,
        "package": getattr(main, "__package__", None) or "",
        "spec_name": getattr(spec, "name", None) or "",
        "interactive": not file,
    }


def loaded_modules() -> dict[str, str]:
    """The file of each loaded module; of a namespace package, its first directory."""
    found = {}
    for name, module in list(sys.modules.items()):
        try:
            file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        except Exception:  # modules with a __getattr__ of their own may raise anything
            continue
        if isinstance(file, str):
            found[name] = file
    return found


def _site_dirs() -> list[str]:
    try:
        return site.getsitepackages()
    except AttributeError:  # an embedding program replaced `site`
        return []


def _user_site() -> str:
    try:
        return site.getusersitepackages() or ""
    except Exception:  # no home folder at all
        return ""


def _libc() -> str:
    """``glibc 2.36``, what musl's loader says of itself, or ""."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        pass
    if platform.system() != "Linux":
        return ""
    loader = f"/lib/ld-musl-{platform.machine()}.so.1"  # run without arguments it prints its version to stderr
    try:
        return subprocess.run([loader], capture_output=True, text=True, timeout=10, check=False).stderr
    except (OSError, subprocess.SubprocessError):
        return ""
