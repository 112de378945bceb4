"""Damaged and hostile ELF files."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from likewise.errors import LayerError
from likewise.layers.elf import MAGIC, Elf, parse_elf

DYNLOAD = Path(sysconfig.get_path("stdlib"), "lib-dynload")
WHOLE = min((p.read_bytes() for p in DYNLOAD.glob("_c*.so")), key=len)


def check(data: bytes) -> None:
    """Parse `data`: an answer or a LayerError that names the file, nothing else."""
    try:
        answer = parse_elf(data, where="hostile.so")
    except LayerError as error:
        assert error.where == "hostile.so"
    else:
        assert answer is None or isinstance(answer, Elf)


in_the_headers = st.tuples(st.integers(0, 1023), st.binary(min_size=1, max_size=8))
anywhere = st.tuples(st.integers(0, len(WHOLE)), st.binary(max_size=64))
edits = st.lists(in_the_headers | anywhere, max_size=8)


@given(edits, st.integers(0, len(WHOLE)))
@settings(max_examples=400, deadline=2000)
def test_a_mutated_library_is_read_or_refused_in_bounded_time(changes: list[tuple[int, bytes]], size: int) -> None:
    """Whatever bytes of a real library change, and wherever it is cut, there is an answer or a LayerError."""
    data = bytearray(WHOLE)
    for offset, new in changes:
        data[offset : offset + len(new)] = new
    check(bytes(data[:size]))
    check(bytes(data))


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=2000)
def test_noise_after_the_magic_is_read_or_refused(noise: bytes) -> None:
    """Random bytes that begin as an ELF file does lead to no other exception."""
    check(MAGIC + b"\2\1" + noise)
    check(MAGIC + b"\1\2" + noise)
