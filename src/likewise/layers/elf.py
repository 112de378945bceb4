"""What the dynamic linker would read in an ELF file: needed libraries, search paths, symbol versions.

Only headers, the dynamic section and its strings are touched, so a file of any size costs a few pages of a memory
map. Input is never trusted: every offset is checked against the buffer and every chain is bounded.

Sources: the System V ABI (ELF header, program header, dynamic section) and the Linux Standard Base, "Symbol
Versioning" (``.gnu.version_r``). Section headers are not used: the dynamic linker ignores them, and so do we.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import msgspec

from likewise.errors import LayerError
from likewise.model.digest import Digest

T = TypeVar("T")

MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_VER_FLG_WEAK = 2  # a weak version may be absent: the dynamic linker only warns
_MACHINES = {
    3: "i386",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}

Buffer = bytes | mmap.mmap


class Elf(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one ELF file that decide how it loads.

    Attributes
    ----------
    machine : str
        As `Platform.arch` spells it (``x86_64``, ``aarch64``), the number as text for one not known here.
    bits : int
        32 or 64.
    interpreter : str
        Path of the program loader (``/lib64/ld-linux-x86-64.so.2``), "" for a library or a static program.
    dynamic : bool
        Whether there is a dynamic section; a static program, an object file or debug data has none.
    needed : tuple of str
        ``DT_NEEDED``, in order: names, or paths when they contain a slash.
    soname : str
    rpath, runpath : str
        ``DT_RPATH`` and ``DT_RUNPATH``, colon-separated and unexpanded. The first is ignored by the dynamic linker when
        the second is there.
    versions : dict
        Library name → versions that must be there: ``{"libc.so.6": ("GLIBC_2.2.5", "GLIBC_2.34")}``. Weak ones
        are left out.
    """

    machine: str
    bits: int
    interpreter: str = ""
    dynamic: bool = False
    needed: tuple[str, ...] = ()
    soname: str = ""
    rpath: str = ""
    runpath: str = ""
    versions: dict[str, tuple[str, ...]] = {}


def is_elf(data: Buffer) -> bool:
    """Whether `data` begins as an ELF file does."""
    return data[:4] == MAGIC


def read_elf(path: str) -> Elf | None:
    """The facts of the file at `path`, None when it is no ELF file.

    Raises
    ------
    LayerError
        When it begins as an ELF file and is damaged, or can't be read.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) != MAGIC:
                return None
            size = os.fstat(file.fileno()).st_size
            with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as data:
                return parse_elf(data, where=path)
    except (OSError, ValueError) as error:  # ValueError: the file shrank to nothing in between
        raise LayerError(f"The file can't be read ({error}).", where=path) from error


def parse_elf(data: Buffer, *, where: str) -> Elf | None:
    """The facts in the bytes of one file, None when they are no ELF file. `where` names it in errors.

    Raises
    ------
    LayerError
        When the bytes begin as an ELF file does and are damaged.
    """
    if not is_elf(data):
        return None
    try:
        return _Reader(data).elf()
    except (_Damaged, struct.error, UnicodeDecodeError) as error:
        raise LayerError(
            f"The ELF file is damaged ({error}).", where=where, todo="Reinstall the distribution that owns it."
        ) from error


class Known(Generic[T]):
    """What was read once, remembered by content in one small file: a second start opens none of it again.

    Parameters
    ----------
    file : Path
        Made by `save`. A damaged one counts as empty, and writing is best effort: losing it costs only time.
    values : type
        Of what is remembered, for msgspec.
    """

    def __init__(self, file: Path, values: Any) -> None:
        self._file = file
        self._type = dict[Digest, values]
        self._known: dict[Digest, T] = self._load()
        self._used: dict[Digest, T] = {}

    def get(self, digest: Digest, read: Callable[[], T]) -> T:
        """What belongs to `digest`; `read` is called when that is not known."""
        if digest not in self._used:
            self._used[digest] = self._known[digest] if digest in self._known else read()
        return self._used[digest]

    def save(self) -> None:
        """Write what was asked for since the start, atomically; the rest is forgotten."""
        if self._used == self._known:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=".known-")
            try:
                with open(descriptor, "wb") as out:
                    out.write(msgspec.msgpack.encode(self._used))
                os.replace(temporary, self._file)
            except BaseException:
                os.unlink(temporary)
                raise
            self._known = dict(self._used)

    def _load(self) -> dict[Digest, T]:
        try:
            return cast("dict[Digest, T]", msgspec.msgpack.decode(self._file.read_bytes(), type=self._type))
        except (OSError, msgspec.DecodeError):
            return {}


class _Damaged(Exception):
    """An offset, size or chain leads out of the file."""


class _Reader:
    """Walks one buffer; every method checks where it reads."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.size = len(data)
        if self.size < 20:
            raise _Damaged("shorter than its header")
        self.bits = {1: 32, 2: 64}.get(data[4], 0)
        self.order = {1: "<", 2: ">"}.get(data[5], "")
        if not self.bits or not self.order:
            raise _Damaged("unknown class or byte order")

    def elf(self) -> Elf:
        (machine,) = self.unpack("H", 18)
        name = _MACHINES.get(machine, str(machine))
        segments = list(self.segments())
        loads = [(vaddr, offset, size) for kind, vaddr, offset, size in segments if kind == _PT_LOAD]
        at = next((s for s in segments if s[0] == _PT_DYNAMIC), None)
        loader = next((self.string(o, o + n) for kind, _, o, n in segments if kind == _PT_INTERP), "")
        if at is None:
            return Elf(machine=name, bits=self.bits, interpreter=loader)
        entries = list(self.dynamic(at[2], at[3]))
        single = dict(entries)
        text = self.table(single, loads)
        return Elf(
            machine=name,
            bits=self.bits,
            interpreter=loader,
            dynamic=True,
            needed=tuple(text(value) for tag, value in entries if tag == _DT_NEEDED),
            soname=text(single[_DT_SONAME]) if _DT_SONAME in single else "",
            rpath=text(single[_DT_RPATH]) if _DT_RPATH in single else "",
            runpath=text(single[_DT_RUNPATH]) if _DT_RUNPATH in single else "",
            versions=self.versions(single, loads, text),
        )

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        layout = self.order + layout
        if offset < 0 or offset + struct.calcsize(layout) > self.size:
            raise _Damaged(f"offset {offset} lies outside")
        return struct.unpack_from(layout, self.data, offset)

    def string(self, start: int, end: int) -> str:
        """The NUL-terminated text at `start`, which must end before `end`."""
        end = min(end, self.size)
        stop = self.data.find(b"\0", start, end) if 0 <= start < end else -1
        if stop < 0:
            raise _Damaged(f"text at {start} does not end")
        return os.fsdecode(self.data[start:stop])

    def segments(self) -> Iterator[tuple[int, int, int, int]]:
        """Type, virtual address, file offset and file size of each program header."""
        if self.bits == 64:
            (table,) = self.unpack("Q", 32)
            stride, count = self.unpack("HH", 54)
        else:
            (table,) = self.unpack("I", 28)
            stride, count = self.unpack("HH", 42)
        for number in range(count):
            at = table + number * stride
            if self.bits == 64:
                kind, _, offset, vaddr, _, size = self.unpack("IIQQQQ", at)
            else:
                kind, offset, vaddr, _, size = self.unpack("IIIII", at)
            yield kind, vaddr, offset, size

    def dynamic(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Tag and value of each entry of the dynamic section."""
        layout, width = ("QQ", 16) if self.bits == 64 else ("II", 8)
        for at in range(offset, min(offset + size, self.size), width):
            tag, value = self.unpack(layout, at)
            if tag == _DT_NULL:
                return
            yield tag, value

    def offset(self, address: int, loads: list[tuple[int, int, int]]) -> int:
        """Where the byte at virtual `address` lies in the file."""
        for vaddr, offset, size in loads:
            if vaddr <= address < vaddr + size:
                return address - vaddr + offset
        raise _Damaged(f"address {address:#x} is in no segment")

    def table(self, dynamic: dict[int, int], loads: list[tuple[int, int, int]]) -> Callable[[int], str]:
        """A function from an offset in the dynamic string table to the text there."""
        if _DT_STRTAB not in dynamic or _DT_STRSZ not in dynamic:
            raise _Damaged("no dynamic string table")
        start = self.offset(dynamic[_DT_STRTAB], loads)
        end = start + dynamic[_DT_STRSZ]
        return lambda index: self.string(start + index, end)

    def versions(
        self, dynamic: dict[int, int], loads: list[tuple[int, int, int]], text: Callable[[int], str]
    ) -> dict[str, tuple[str, ...]]:
        """The needed versions. Offsets to the next record only grow, so the walk ends with the file at the latest."""
        found: dict[str, tuple[str, ...]] = {}
        if _DT_VERNEED not in dynamic:
            return found
        at = self.offset(dynamic[_DT_VERNEED], loads)
        for _ in range(dynamic.get(_DT_VERNEEDNUM, 0)):
            _, count, file, first, following = self.unpack("HHIII", at)
            library = text(file)
            found[library] = (*found.get(library, ()), *self.auxiliary(at + first, count, text))
            if not following:
                break
            at += following
        return {library: versions for library, versions in found.items() if versions}

    def auxiliary(self, at: int, count: int, text: Callable[[int], str]) -> Iterator[str]:
        for _ in range(count):
            _, flags, _, name, following = self.unpack("IHHII", at)
            if not flags & _VER_FLG_WEAK:
                yield text(name)
            if not following:
                return
            at += following
