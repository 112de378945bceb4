"""Wheels whose zip file can be opened and not be read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from likewise.errors import LayerError
from likewise.layers.wheel import wheel_source

DIRECTORY = b"PK\x01\x02"  # begins an entry of the central directory


def damage(data: bytearray, how: str) -> None:
    """Make it what it should not be."""
    metadata, module = data.find(DIRECTORY), data.rfind(DIRECTORY)
    if how == "encrypted":
        data[module + 8] |= 1
    elif how == "encrypted metadata":
        data[metadata + 8] |= 1
    elif how == "unknown compression":
        data[module + 10] = 99
    else:
        start = data.find(b"sample.py") + len(b"sample.py")
        data[start : start + 3] = b"\xff\xff\xff"


@pytest.mark.parametrize("how", ["encrypted", "encrypted metadata", "unknown compression", "damaged stream"])
def test_what_cant_be_read_is_told(tmp_path: Path, how: str) -> None:
    """The error names the wheel and what to do."""
    wheel = tmp_path / "sample-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sample-1.dist-info/METADATA", "Name: sample\nVersion: 1\n")
        archive.writestr("sample.py", "answer = 42\n" * 100)
    data = bytearray(wheel.read_bytes())
    damage(data, how)
    wheel.write_bytes(data)
    with pytest.raises(LayerError, match="damaged") as caught:
        wheel_source(wheel, unpack_to=tmp_path / "files")
    assert caught.value.where == str(wheel)
    assert caught.value.todo
