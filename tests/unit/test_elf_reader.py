"""What the ELF reader says of bytes made by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from likewise.errors import LayerError
from likewise.layers import elf as elf_module
from likewise.layers.elf import Elf, Known, parse_elf, read_elf
from likewise.model.digest import digest_bytes
from support.elves import make_elf


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_field_is_read_in_both_classes_and_byte_orders(bits: int, order: str) -> None:
    """Names, search paths and versions come out the same whatever the word size and byte order."""
    assert parse_elf(make_elf(bits=bits, order=order), where="x") == Elf(
        machine="x86_64",
        bits=bits,
        dynamic=True,
        needed=("libfoo.so.1", "libc.so.6"),
        soname="libself.so.2",
        rpath="/opt/y",
        runpath="$ORIGIN/../x",
        versions={"libc.so.6": ("GLIBC_2.34", "GLIBC_2.2.5")},
    )


def test_a_weak_version_is_not_a_need() -> None:
    """A version that the linker only warns about is left out."""
    elf = parse_elf(make_elf(weak=["GLIBC_2.34"]), where="x")
    assert elf is not None
    assert elf.versions == {"libc.so.6": ("GLIBC_2.2.5",)}


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"#!/bin/sh\n", b"/* GNU ld script */"])
def test_what_is_no_elf_file_gives_none(data: bytes) -> None:
    """Scripts, linker scripts and empty files are not ELF, and no error."""
    assert parse_elf(data, where="x") is None


def test_every_truncation_is_an_error_that_names_the_file_or_a_smaller_answer() -> None:
    """A file cut anywhere is refused with its name; it never raises anything else."""
    whole = make_elf()
    for size in range(4, len(whole) - 40):
        with pytest.raises(LayerError) as caught:
            parse_elf(whole[:size], where="some/lib.so")
        assert caught.value.where == "some/lib.so"


def test_a_chain_that_never_ends_is_refused() -> None:
    """Version records that claim endless successors, one byte apart, cost no time."""
    data = bytearray(make_elf())
    first = data.index(struct.pack("<HHI", 1, 2, 1))  # one library, two versions, its name at offset 1
    struct.pack_into("<HHIII", data, first, 1, 65535, 1, 16, 1)
    struct.pack_into("<I", data, first + 16 + 12, 1)
    struct.pack_into("<QQ", data, data.index(struct.pack("<QQ", 0x6FFFFFFF, 1)), 0x6FFFFFFF, 2**63)
    with pytest.raises(LayerError):
        parse_elf(bytes(data) + bytes([1]) * 300_000, where="x")


def test_a_foreign_machine_is_named(tmp_path: Path) -> None:
    """The machine is a field, not an error: who compares decides."""
    file = tmp_path / "x.so"
    file.write_bytes(make_elf(machine=183))
    elf = read_elf(str(file))
    assert elf is not None
    assert elf.machine == "aarch64"


def test_a_file_and_its_bytes_give_the_same_answer_across_block_borders(tmp_path: Path) -> None:
    """Reading by blocks changes nothing, wherever the tables fall."""
    for shift in (0, 3580, 3700, 3800):
        data = make_elf()
        moved = bytearray(data[:0x200] + bytes(shift) + data[0x200:])
        struct.pack_into("<Q", moved, 64 + 8, shift)  # the load segment now begins later in the file
        (dynamic_at,) = struct.unpack_from("<Q", moved, 64 + 56 + 8)
        struct.pack_into("<Q", moved, 64 + 56 + 8, dynamic_at + shift)
        file = tmp_path / f"{shift}.so"
        file.write_bytes(moved)
        assert read_elf(str(file)) == parse_elf(bytes(moved), where="x") == parse_elf(data, where="x")


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A file that vanished meanwhile is a LayerError."""
    with pytest.raises(LayerError, match=r"gone\.so"):
        read_elf(str(tmp_path / "gone.so"))


def test_known_facts_come_back_without_reading(tmp_path: Path) -> None:
    """What was saved is given again by digest, also after another environment saved its own in the same file."""
    elf, digest, other = parse_elf(make_elf(), where="x"), digest_bytes(b"1"), digest_bytes(b"2")
    known: Known[Elf | None] = Known(tmp_path / "a" / "facts", Elf | None)
    assert known.get(digest, lambda: elf) == elf
    known.save()
    second: Known[Elf | None] = Known(tmp_path / "a" / "facts", Elf | None)
    assert second.get(other, lambda: None) is None
    second.save()
    third: Known[Elf | None] = Known(tmp_path / "a" / "facts", Elf | None)
    assert third.get(digest, lambda: pytest.fail("read again")) == elf
    assert third.get(other, lambda: pytest.fail("read again")) is None


def test_the_memory_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest facts are forgotten when there are too many."""
    monkeypatch.setattr(elf_module, "_REMEMBERED", 3)
    for number in range(5):
        known: Known[int] = Known(tmp_path / "facts", int)
        known.get(digest_bytes(bytes([number])), lambda number=number: number)  # type: ignore[misc]
        known.save()
    last: Known[int] = Known(tmp_path / "facts", int)
    assert [last.get(digest_bytes(bytes([n])), lambda: -1) for n in range(5)] == [-1, -1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"\xff\x00garbage", b"\x81\xa1a\x01"])
def test_a_damaged_memory_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    """Whatever lies in the remembered file, everything is read anew rather than trusted or refused."""
    file = tmp_path / "facts"
    file.write_bytes(content)
    known: Known[Elf | None] = Known(file, Elf | None)
    elf = parse_elf(make_elf(), where="x")
    assert known.get(digest_bytes(b"1"), lambda: elf) == elf
