"""ELF files made byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

BASE, HEADERS = 0x1000, 0x200
VERSIONS = {"libc.so.6": ("GLIBC_2.34", "GLIBC_2.2.5")}


def make_elf(
    *,
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
    needed: Sequence[str] = ("libfoo.so.1", "libc.so.6"),
    rpath: str = "/opt/y",
    runpath: str = "$ORIGIN/../x",
    versions: Mapping[str, Sequence[str]] = VERSIONS,
    weak: Sequence[str] = (),
) -> bytes:
    """A library with one load segment and a dynamic section. Versions in `weak` are marked so."""
    strings = _Strings()
    records = _version_records(order, strings, versions, weak)
    single = [(14, "libself.so.2"), *([(15, rpath)] if rpath else []), *([(29, runpath)] if runpath else [])]
    entries = [(tag, strings.at(text)) for tag, text in [*((1, name) for name in needed), *single]]
    versions_at = HEADERS + len(strings.data)
    entries += [(5, BASE + HEADERS), (10, len(strings.data))]
    entries += [(0x6FFFFFFE, BASE + versions_at), (0x6FFFFFFF, len(versions))] if versions else []
    entries += [(0, 0), (1, 0)]  # what follows the end must not be read
    dynamic = b"".join(struct.pack(order + ("QQ" if bits == 64 else "II"), *entry) for entry in entries)
    dynamic_at = versions_at + len(records)
    headers = _headers(bits, order, machine, dynamic_at, len(dynamic))
    return headers.ljust(HEADERS, b"\0") + strings.data + records + dynamic


class _Strings:
    def __init__(self) -> None:
        self.data = b"\0"

    def at(self, text: str) -> int:
        """Offset of `text`, added when it is new."""
        found = self.data.find(b"\0" + text.encode() + b"\0")
        if found < 0:
            found = len(self.data) - 1
            self.data += text.encode() + b"\0"
        return found + 1


def _version_records(
    order: str, strings: _Strings, versions: Mapping[str, Sequence[str]], weak: Sequence[str]
) -> bytes:
    records = b""
    for number, (library, names) in enumerate(versions.items(), 1):
        following = 16 + 16 * len(names) if number < len(versions) else 0
        records += struct.pack(order + "HHIII", 1, len(names), strings.at(library), 16, following)
        for place, name in enumerate(names, 1):
            flags, step = 2 if name in weak else 0, 16 if place < len(names) else 0
            records += struct.pack(order + "IHHII", 0, flags, 2, strings.at(name), step)
    return records


def _headers(bits: int, order: str, machine: int, dynamic_at: int, dynamic_size: int) -> bytes:
    size = dynamic_at + dynamic_size
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    if bits == 64:
        head = struct.pack(order + "HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        load = struct.pack(order + "IIQQQQQQ", 1, 4, 0, BASE, BASE, size, size, 1)
        where = (2, 4, dynamic_at, BASE + dynamic_at, 0, dynamic_size, dynamic_size, 8)
        return ident + head + load + struct.pack(order + "IIQQQQQQ", *where)
    head = struct.pack(order + "HHIIIIIHHHHHH", 3, machine, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    load = struct.pack(order + "IIIIIIII", 1, 0, BASE, BASE, size, size, 4, 1)
    where = (2, dynamic_at, BASE + dynamic_at, 0, dynamic_size, dynamic_size, 4, 4)
    return ident + head + load + struct.pack(order + "IIIIIIII", *where)
