"""Virtual packages: what conda's solvers are told of a machine.

Source: the conda documentation ("Managing virtual packages"); ``CONDA_OVERRIDE_…`` variables count, as they do there.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping

from likewise.model.target import Platform

OVERRIDABLE = ("archspec", "cuda", "cuda_arch", "glibc", "linux", "osx", "win")
"""Those that a variable may set; other variables that begin so are none's."""

_SYSTEMS = {"linux": "linux", "macos": "osx", "windows": "win"}


def virtual_packages(machine: Platform, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Those of this machine as ``name=version=build``, sorted: ``__glibc=2.36=0``, ``__linux=6.1.0=0``, ``__unix=0=0``.

    Parameters
    ----------
    machine : Platform
    environ : mapping, optional
        Environment variables; the process's own by default.

    Notes
    -----
    The version of CUDA is what ``CONDA_OVERRIDE_CUDA`` says: asking the driver means loading it.
    """
    environ = os.environ if environ is None else environ
    found = {"archspec": ("1", machine.arch)}
    system = _SYSTEMS.get(machine.os, "")
    if system:
        found[system] = (_version(platform.release() if machine.os != "macos" else platform.mac_ver()[0]), "0")
    if machine.os != "windows":
        found["unix"] = ("0", "0")
    if machine.libc == "glibc":
        found["glibc"] = (machine.libc_version, "0")
    for name in OVERRIDABLE:
        value = environ.get(f"CONDA_OVERRIDE_{name.upper()}")
        if value is not None:  # the version of archspec is always 1, and its build what the processor is called
            found[name] = ("1" if value else "", value) if name == "archspec" else (value, "0")
    return tuple(f"__{name}={version}={build}" for name, (version, build) in sorted(found.items()) if version)


def _version(text: str) -> str:
    match = re.match(r"\d+(\.\d+)*", text)
    return match[0] if match else "0"
