"""The variables of markers (PEP 508) for an explicit target. Nothing here asks the running interpreter."""

from __future__ import annotations

from likewise.model.target import Target

_SYS_PLATFORM = {"linux": "linux", "macos": "darwin", "windows": "win32"}
_PLATFORM_SYSTEM = {"linux": "Linux", "macos": "Darwin", "windows": "Windows"}
_OS_NAME = {"linux": "posix", "macos": "posix", "windows": "nt"}


def marker_environment(target: Target) -> dict[str, str]:
    """Every marker variable of PEP 508 for `target`.

    `packaging` fills in whatever is left out from the running interpreter, so nothing may be left out.
    """
    system, arch = target.platform.os, target.platform.arch
    machine = {"macos": {"aarch64": "arm64"}, "windows": {"x86_64": "AMD64", "aarch64": "ARM64"}}
    return {
        "implementation_name": "cpython",
        "implementation_version": target.python,
        "os_name": _OS_NAME[system],
        "platform_machine": machine.get(system, {}).get(arch, arch),
        "platform_release": "",
        "platform_system": _PLATFORM_SYSTEM[system],
        "platform_version": "",
        "platform_python_implementation": "CPython",
        "python_full_version": target.python,
        "python_version": ".".join(target.python.split(".")[:2]),
        "sys_platform": _SYS_PLATFORM[system],
        "extra": "",
    }
