"""What the dynamic linker would read in an ELF file: needed libraries, search paths, symbol versions.

Only headers, the dynamic section and its strings are read, so a file of any size costs a few blocks. Input is never
trusted: every offset is checked against the size and every chain is bounded. (A memory map would be as quick, but a
file that somebody truncates meanwhile would kill the process.)

Sources: the System V ABI (ELF header, program header, dynamic section) and the Linux Standard Base, "Symbol
Versioning" (``.gnu.version_r``). Section headers are not used: the dynamic linker ignores them, and so do we.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

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

_LIMIT = 65_536
"""Most entries of a table and most bytes of a string that are believed. Real files have a few hundred."""

_REMEMBERED = 20_000
_BLOCK = 4096
Read = Callable[[int, int], bytes]
"""Gives `size` bytes at `offset`, fewer at the end of the file."""


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


def is_elf(data: bytes) -> bool:
    """Whether `data` begins as an ELF file does."""
    return data[:4] == MAGIC


def read_elf(path: str) -> Elf | None:
    """The facts of the file at `path`, None when it is no ELF file.

    Raises
    ------
    LayerError
        When it begins as an ELF file and is damaged, or can't be read.
    """
    blocks: dict[int, bytes] = {}

    def read(offset: int, size: int) -> bytes:
        if size > _BLOCK:
            return os.pread(file.fileno(), size, offset)
        number, begin = divmod(offset, _BLOCK)
        for wanted in (number, number + 1) if begin + size > _BLOCK else (number,):
            if wanted not in blocks:
                blocks[wanted] = os.pread(file.fileno(), _BLOCK, wanted * _BLOCK)
        return (blocks[number] + blocks.get(number + 1, b""))[begin : begin + size]

    try:
        with open(path, "rb", buffering=0) as file:
            return _parse(read, where=path)
    except (OSError, OverflowError) as error:
        raise LayerError(f"The file can't be read ({error}).", where=path) from error


def parse_elf(data: bytes, *, where: str) -> Elf | None:
    """The facts in the bytes of one file, None when they are no ELF file. `where` names it in errors.

    Raises
    ------
    LayerError
        When the bytes begin as an ELF file does and are damaged.
    """
    return _parse(lambda offset, size: data[offset : offset + size], where=where)


def _parse(read: Read, *, where: str) -> Elf | None:
    head = read(0, 64)
    if not is_elf(head):
        return None
    try:
        return _Reader(read, head).elf()
    except (_Damaged, struct.error) as error:
        raise LayerError(
            f"The ELF file is damaged ({error}).", where=where, todo="Reinstall the distribution that owns it."
        ) from error


class Known(Generic[T]):
    """What was read once, remembered by content in one small file: a second start opens none of it again.

    Environments may share a file; the `_REMEMBERED` digests that were new last are kept.

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

    def forget(self, digest: Digest) -> None:
        """What belongs to `digest` is not known any more."""
        self._known.pop(digest, None)
        self._used.pop(digest, None)

    def save(self) -> None:
        """Write what is new since the start, atomically."""
        if self._used.keys() <= self._known.keys():
            return
        self._known |= self._used
        kept = dict(itertools.islice(self._known.items(), max(0, len(self._known) - _REMEMBERED), None))
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=".known-")
            try:
                with open(descriptor, "wb") as out:
                    out.write(msgspec.msgpack.encode(kept))
                os.replace(temporary, self._file)
            except BaseException:
                os.unlink(temporary)
                raise

    def _load(self) -> dict[Digest, T]:
        try:
            return cast("dict[Digest, T]", msgspec.msgpack.decode(self._file.read_bytes(), type=self._type))
        except (OSError, msgspec.DecodeError):
            return {}


class _Segment(NamedTuple):
    """What a program header says of a part of the file."""

    kind: int
    address: int
    offset: int
    size: int


class _Damaged(Exception):
    """An offset, size or chain leads out of the file."""


class _Reader:
    """Walks one file; every method checks where it reads."""

    def __init__(self, read: Read, head: bytes) -> None:
        self.read = read
        self.head = head
        self.bits = {b"\1": 32, b"\2": 64}.get(head[4:5], 0)
        self.order = {b"\1": "<", b"\2": ">"}.get(head[5:6], "")
        if not self.bits or not self.order:
            raise _Damaged("unknown class or byte order")

    def elf(self) -> Elf:
        machine = struct.unpack_from(self.order + "H", self.head, 18)[0]
        name = _MACHINES.get(machine, str(machine))
        segments = self.segments()
        loads = [segment for segment in segments if segment.kind == _PT_LOAD]
        loader = next((self.string(s.offset, s.size) for s in segments if s.kind == _PT_INTERP), "")
        at = next((segment for segment in segments if segment.kind == _PT_DYNAMIC), None)
        if at is None:
            return Elf(machine=name, bits=self.bits, interpreter=loader)
        entries = self.dynamic(at)
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

    def records(self, layout: str, offset: int, count: int, stride: int) -> Iterator[tuple[int, ...]]:
        """`count` records that lie `stride` bytes apart."""
        layout = self.order + layout
        size = struct.calcsize(layout)
        if not size <= stride <= _BLOCK or count > _LIMIT:
            raise _Damaged("a table of impossible size")
        data = self.read(offset, stride * count)
        if len(data) < stride * (count - 1) + size:
            raise _Damaged("it ends too early")
        return (struct.unpack_from(layout, data, stride * number) for number in range(count))

    def record(self, layout: str, offset: int) -> tuple[int, ...]:
        return next(self.records(layout, offset, 1, struct.calcsize(self.order + layout)))

    def string(self, offset: int, limit: int) -> str:
        """The NUL-terminated text at `offset`, at most `limit` bytes long."""
        limit = min(limit, _LIMIT)
        for size in (min(limit, 256), limit):
            text, end, _ = self.read(offset, size).partition(b"\0")
            if end:
                return os.fsdecode(text)
        raise _Damaged(f"the text at {offset} does not end")

    def segments(self) -> list[_Segment]:
        """The program headers."""
        if self.bits == 64:
            table, stride, count = *self.record("Q", 32), *self.record("HH", 54)
            found = self.records("IIQQQQ", table, count, stride) if count else iter(())
            return [_Segment(kind, address, offset, size) for kind, _, offset, address, _, size in found]
        table, stride, count = *self.record("I", 28), *self.record("HH", 42)
        found = self.records("IIIII", table, count, stride) if count else iter(())
        return [_Segment(kind, address, offset, size) for kind, offset, address, _, size in found]

    def dynamic(self, at: _Segment) -> list[tuple[int, int]]:
        """Tag and value of each entry of the dynamic section."""
        layout, width = ("QQ", 16) if self.bits == 64 else ("II", 8)
        entries = self.records(layout, at.offset, at.size // width, width) if at.size >= width else iter(())
        return [(tag, value) for tag, value in itertools.takewhile(lambda entry: entry[0] != _DT_NULL, entries)]

    def table(self, dynamic: dict[int, int], loads: list[_Segment]) -> Callable[[int], str]:
        """A function from an offset in the dynamic string table to the text there."""
        if _DT_STRTAB not in dynamic or _DT_STRSZ not in dynamic:
            raise _Damaged("no dynamic string table")
        start, size = _offset(dynamic[_DT_STRTAB], loads), dynamic[_DT_STRSZ]
        return lambda index: self.string(start + index, size - index)

    def versions(
        self, dynamic: dict[int, int], loads: list[_Segment], text: Callable[[int], str]
    ) -> dict[str, tuple[str, ...]]:
        """The needed versions: a chain of libraries, with a chain of versions each."""
        found: dict[str, tuple[str, ...]] = {}
        if _DT_VERNEED not in dynamic:
            return found
        budget = iter(range(_LIMIT))
        start = _offset(dynamic[_DT_VERNEED], loads)
        for at, (_, count, file, first, _) in self.chain("HHIII", start, dynamic.get(_DT_VERNEEDNUM, 0), budget):
            names = [
                text(name)
                for _, (_, flags, _, name, _) in self.chain("IHHII", at + first, count, budget)
                if not flags & _VER_FLG_WEAK
            ]
            library = text(file)
            found[library] = (*found.get(library, ()), *names)
        return {library: versions for library, versions in found.items() if versions}

    def chain(self, layout: str, at: int, count: int, budget: Iterator[int]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Records whose last field says how far the next one is. `budget` ends a hostile walk."""
        for _ in range(min(count, _LIMIT)):
            if next(budget, None) is None:
                raise _Damaged("its version records don't end")
            record = self.record(layout, at)
            yield at, record
            if not record[-1]:
                return
            at += record[-1]


def _offset(address: int, loads: list[_Segment]) -> int:
    """Where the byte at virtual `address` lies in the file."""
    for segment in loads:
        if segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise _Damaged(f"address {address:#x} is in no segment")
