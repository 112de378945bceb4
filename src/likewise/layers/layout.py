"""Where the parts of a base Python lie, in its own words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec

from likewise.errors import LayerError
from likewise.layers.relocate import Derived

# -S leaves site alone, so that a venv's python answers for its base; -I keeps the user's environment variables out.
_QUESTIONS = """
import json, os, sys, sysconfig
get = sysconfig.get_config_var
try:
    import _ssl
    verify = _ssl.get_default_verify_paths()
except ImportError:
    verify = ("", "", "", "")
name = sysconfig._get_sysconfigdata_name()
stdlib = sysconfig.get_path("stdlib")
print(json.dumps({
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "base_prefix": sys.base_prefix,
    "built_prefixes": sorted({get("prefix") or "", get("exec_prefix") or "", get("projectbase") and sys.base_prefix}),
    "libdir": getattr(sys, "platlibdir", "lib"),
    "stdlib": stdlib,
    "dynload": next((p for p in sys.path if os.path.basename(p) == "lib-dynload"), ""),
    "include": sysconfig.get_path("include"),
    "pyconfig": sysconfig.get_config_h_filename(),
    "makefile": sysconfig.get_makefile_filename(),
    "sysconfigdata": name,
    "multiarch": get("MULTIARCH") or "",
    "libpython": [os.path.join(get("LIBDIR") or "", get(n) or "") for n in ("LDLIBRARY", "INSTSONAME")],
    "wheels": get("WHEEL_PKG_DIR") or "",
    "cafile": verify[1], "capath": verify[3],
}))
"""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a base Python; all paths absolute, "" for what it has not.

    Attributes
    ----------
    executable : str
        The real file, links resolved.
    base_prefix : str
    built_prefixes : list of str
        Prefixes that its build recorded; they differ from `base_prefix` when it was moved or is reached by a link.
    libdir : str
        ``lib`` or ``lib64``: the folder beneath its prefix where it looks for its library.
    stdlib, dynload, include : str
        Folders of the standard library, its extension modules and the C headers.
    pyconfig, makefile : str
        The two files that ``sysconfig`` can parse.
    sysconfigdata : str
        Module that holds the variables of the build.
    multiarch : str
        ``x86_64-linux-gnu``: also the folder of the machine-dependent headers on Debian.
    wheels : str
        Folder of the wheels that ensurepip installs, where they aren't bundled.
    cafile, capath : str
        Where its OpenSSL looks for certificate authorities by default.
    """

    executable: str
    base_prefix: str
    built_prefixes: list[str]
    libdir: str
    stdlib: str
    dynload: str
    include: str
    pyconfig: str
    makefile: str
    sysconfigdata: str
    multiarch: str
    wheels: str
    cafile: str
    capath: str


def base_layout(executable: str, derived: Derived) -> Layout:
    """The layout of the base Python of `executable`; asked once, then remembered as long as the program is the same.

    Raises
    ------
    LayerError
        When it does not start or gives no sensible answer.
    """
    try:
        stat = os.stat(executable)
    except OSError as error:
        raise LayerError(f"The interpreter can't be read ({error.strerror}).", where=executable) from error
    facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    def ask(target: str) -> None:
        Path(target).write_bytes(_ask(executable))

    answer = derived.file("layout", _QUESTIONS, os.path.abspath(executable), *map(str, facts), make=ask)
    try:
        return msgspec.json.decode(Path(answer).read_bytes(), type=Layout)
    except msgspec.DecodeError as error:
        raise LayerError(f"The interpreter's answer makes no sense ({error}).", where=executable) from error


def _ask(executable: str) -> bytes:
    command = [executable, "-I", "-S", "-B", "-c", _QUESTIONS]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise LayerError(
            "The interpreter could not say where its parts lie.",
            where=executable,
            details={"output": done.stderr.decode(errors="replace")},
        )
    return done.stdout
