"""Where the dynamic linker would find a library, and which libraries belong to the machine and are never shipped.

The search order is that of ld.so(8) and of glibc's ``elf/dl-load.c``: an object's ``DT_RPATH`` (unless it has
``DT_RUNPATH``), ``LD_LIBRARY_PATH``, ``DT_RUNPATH``, ``/etc/ld.so.cache``, the default folders.
"""

from __future__ import annotations

import os
import posixpath
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from likewise.layers.elf import Elf

_GLIBC = re.compile(
    r"(ld-linux.*|ld-musl-.*|ld64|ld|libc\.musl-.*|lib(c|m|mvec|pthread|dl|rt|util|resolv|anl|BrokenLocale"
    r"|thread_db|nss_\w+|c_malloc_debug|memusage|SegFault|pcprofile))\.so(\.\d+)*|linux-(vdso|gate)\.so\.\d+|libnsl\.so\.1"
)
"""glibc and its dynamic linker are one build and talk through private symbols: they come from the node. libcrypt is
not among them: since 2018 it is libxcrypt, a library like any other, and ``libnsl.so.2`` likewise."""

_PLATFORM = re.compile(r"lib(stdc\+\+|gcc_s|atomic)\.so(\.\d+)*")
"""The compiler's run-time. Nodes have it, versions are backward compatible, and drivers that the node loads into the
same process may need a newer one than the client's: so the node's is used, and compared by version before start.
"""

_DRIVER = re.compile(
    r"lib(cuda|cudadebugger|nvidia-[-\w]+|nvcuvid|nvoptix|GLX_\w+|EGL_\w+|GLESv[12]\w*_nvidia|drm(_\w+)?|gbm|va(-\w+)?"
    r"|vdpau(_\w+)?|ibverbs|rdmacm|mlx\d)\.so(\..*)?"
)
"""User-space halves of kernel drivers: they must match the node's kernel module. (``libcudart`` and the other
libraries of the CUDA toolkit need not: those are ordinary.)"""

_LEFT_ALONE = ("_tkinter.", "nis.", "_crypt.")
"""Extension modules of the standard library whose libraries are the node's affair, as display, directory service and
passwords are: Tk with all of X11, NIS with Kerberos, libcrypt. Shipping them would cost 11 MB and raise the version of
glibc that every node must have (Debian 12: from 2.35 to 2.36)."""

_remembered = lru_cache(maxsize=4096)  # the same few hundred names are asked about thousands of times

_DEFAULT_DIRS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")
_CACHE = "/etc/ld.so.cache"


@_remembered
def is_glibc(name: str) -> bool:
    """Whether the library called `name` is a part of the C library."""
    return _GLIBC.fullmatch(os.path.basename(name)) is not None


@_remembered
def is_platform(name: str) -> bool:
    """Whether the library called `name` is a part of the compiler's run-time (libstdc++, libgcc_s)."""
    return _PLATFORM.fullmatch(os.path.basename(name)) is not None


def is_driver(name: str) -> bool:
    """Whether the library called `name` belongs to a kernel driver."""
    return _DRIVER.fullmatch(os.path.basename(name)) is not None


@_remembered
def stays_with_node(name: str) -> bool:
    """Whether a library is never shipped, because it has to be the node's own."""
    return is_glibc(name) or is_platform(name) or is_driver(name)


def is_private(elf: Elf | None) -> bool:
    """Whether a library uses glibc's private symbols, and so belongs to the very build of glibc beside it."""
    return elf is not None and any("GLIBC_PRIVATE" in versions for versions in elf.versions.values())


def is_left_alone(path: str) -> bool:
    """Whether the file at `path` in an interpreter layer is an extension module whose libraries are not shipped."""
    return os.path.basename(path).startswith(_LEFT_ALONE)


def expand(entries: str, origin: str) -> list[str]:
    """The folders of a ``DT_RPATH``, ``DT_RUNPATH`` or ``LD_LIBRARY_PATH`` for an object in the folder `origin`.

    Entries that are relative, or use ``$LIB`` and ``$PLATFORM``, are left out: what they mean depends on the machine.
    """
    folders = []
    for entry in entries.split(":"):
        folder = entry.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
        if folder.startswith("/") and "$" not in folder:
            folders.append(posixpath.normpath(folder))
    return folders


@lru_cache(maxsize=1)
def parse_cache(data: bytes) -> dict[str, list[str]]:
    """Library name → paths, best first, in the content of an ``ld.so.cache``; empty when it can't be understood.

    Entries for special processor levels (``glibc-hwcaps``) are left out: a node's processor may lack them. Source of
    the format: glibc's ``sysdeps/generic/dl-cache.h``.
    """
    start = data.find(b"glibc-ld.so.cache1.1")  # may follow the old format, padded
    found: dict[str, list[str]] = {}
    if start < 0:
        return found
    data = data[start:]
    try:
        count, _ = struct.unpack_from("=II", data, 20)
        for number in range(min(count, len(data) // 24)):
            _, key, value, _, hwcap = struct.unpack_from("=iIIIQ", data, 48 + 24 * number)
            name, path = _text(data, key), _text(data, value)
            if not hwcap and "/glibc-hwcaps/" not in path:
                found.setdefault(name, []).append(path)
    except (struct.error, ValueError):
        return {}
    return found


def _text(data: bytes, at: int) -> str:
    return os.fsdecode(data[at : data.index(b"\0", at)])


class Loader:
    """Finds libraries as the dynamic linker of this machine would.

    Parameters
    ----------
    read : callable
        The facts of the ELF file at a path, None when it is none or unreadable.
    environ : mapping
        Whose ``LD_LIBRARY_PATH`` counts.
    cache : bytes
        Content of ``/etc/ld.so.cache``.
    """

    def __init__(self, read: Callable[[str], Elf | None], *, environ: Mapping[str, str], cache: bytes) -> None:
        self.read = read
        self._library_path = expand(environ.get("LD_LIBRARY_PATH", "").replace(";", ":"), "/nowhere")
        self._cache = cache
        self._listed: dict[str, list[str]] | None = None
        self._found: dict[tuple[str, str, int], str] = {}

    def find(self, name: str, wanted_by: Elf, origin: str, *, inherited: Iterable[str] = ()) -> str:
        """Path of the library `name` that an object in the folder `origin` needs, "" when there is none.

        Parameters
        ----------
        inherited : iterable of str
            Folders in the ``DT_RPATH`` of those that load the object; they count when it has no ``DT_RUNPATH``.
        """
        if "/" in name:
            path = name.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
            return path if self._fits(path, wanted_by) else ""
        own = [] if wanted_by.runpath else [*expand(wanted_by.rpath, origin), *inherited]
        for folder in (*own, *self._library_path, *expand(wanted_by.runpath, origin)):
            path = f"{folder}/{name}"
            if self._fits(path, wanted_by):
                return path
        return self._system(name, wanted_by)

    def _system(self, name: str, wanted_by: Elf) -> str:
        key = (name, wanted_by.machine, wanted_by.bits)
        if key not in self._found:
            self._found[key] = next(
                (p for p in self._system_paths(name, wanted_by.machine) if self._fits(p, wanted_by)), ""
            )
        return self._found[key]

    def _system_paths(self, name: str, machine: str) -> Iterator[str]:
        if self._listed is None:
            self._listed = parse_cache(self._cache)
        yield from self._listed.get(name, ())
        for folder in (f"/lib/{machine}-linux-gnu", f"/usr/lib/{machine}-linux-gnu", *_DEFAULT_DIRS):
            yield f"{folder}/{name}"

    def _fits(self, path: str, wanted_by: Elf) -> bool:
        """Whether there is a library of the right class and machine; others are skipped, as the linker does."""
        if not os.path.isfile(path):
            return False
        elf = self.read(path)
        return elf is not None and elf.machine == wanted_by.machine and elf.bits == wanted_by.bits


def read_cache() -> bytes:
    """Content of this machine's ``ld.so.cache``, empty when there is none."""
    try:
        with open(_CACHE, "rb") as file:
            return file.read()
    except OSError:
        return b""
