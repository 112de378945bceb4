"""Layers of wheels that were not read: the same as those of the whole wheel, wherever the wheel says the truth."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from likewise.errors import LayerError
from likewise.layers.claimed import claimed_source
from likewise.layers.metadata import without_credentials
from likewise.layers.outline import build_outline
from likewise.layers.wheel import wheel_source
from likewise.model.layer import LayerSource
from support.wheels import record_hash, write_wheel

DATA = "sample-1.0.data"
INFO = "sample-1.0.dist-info"


class Counting(io.BytesIO):
    """A file that knows how much of it was read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def claimed(wheel: Path) -> LayerSource:
    return claimed_source(io.BytesIO(wheel.read_bytes()), where=wheel.name)


def whole(wheel: Path) -> LayerSource:
    return wheel_source(wheel, unpack_to=wheel.parent / "whole")


def test_a_claimed_layer_is_that_of_the_whole_wheel(tmp_path: Path) -> None:
    """Scripts of all kinds, headers, data, executable files, entry points, bytecode, an egg's metadata inside."""
    files = {
        "sample/__init__.py": b"",
        "sample/fast.so": bytes(5_000),
        "sample/run.sh": b"#!/bin/sh\n",
        "sample/__pycache__/__init__.cpython-311.pyc": b"by-product",
        "sample/only.pyc": b"content",
        "sample/_vendor/inner-1.0.dist-info/METADATA": b"Name: inner\n",
        "sample.pth": b"sample/extra\n",
        f"{DATA}/scripts/tool": b"#!python3 -E\nprint(1)\n",
        f"{DATA}/scripts/program": b"\x7fELF" + bytes(5_000),
        f"{DATA}/scripts/empty": b"",
        f"{DATA}/headers/sample.h": b"int x;\n",
        f"{DATA}/data/etc/sample.conf": b"a = 1\n",
        f"{DATA}/platlib/other.py": b"x = 1\n",
        f"{INFO}/entry_points.txt": b"[console_scripts]\nmade = sample:main\n",
    }
    wheel = write_wheel(tmp_path, files, executable=("sample/run.sh", f"{DATA}/scripts/program"))
    there, here = whole(wheel), claimed(wheel)
    assert (here.digest, here.name, here.version) == (there.digest, "sample", "1.0")
    assert [file.entry for file in here.files] == [file.entry for file in there.files]
    for known, file in zip(here.files, there.files, strict=True):
        assert known.path == ""
        assert known.data in (None, Path(file.path).read_bytes())
    assert {file.entry.path for file in here.files if file.data is not None} == {
        "purelib/sample.pth",
        "purelib/sample/_vendor/inner-1.0.dist-info/METADATA",
        f"purelib/{INFO}/METADATA",
        f"purelib/{INFO}/WHEEL",
        f"purelib/{INFO}/entry_points.txt",
        "scripts/tool",
        "data/etc/sample.conf",
    }
    assert build_outline([here], {}) == build_outline([there], {})
    assert without_credentials(here)[0] is here


def test_little_of_a_large_wheel_is_read(tmp_path: Path) -> None:
    """Of a wheel of 5 MB it takes some thousand bytes."""
    wheel = write_wheel(tmp_path, {f"sample/part{number}.so": bytes(1_000_000) for number in range(5)})
    file = Counting(wheel.read_bytes())
    assert claimed_source(file, where="w").digest == whole(wheel).digest
    assert file.count < 20_000


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"sample/a.py": None}, "does not say what sample/a.py is"),
        ({"sample/a.py": "sample/a.py,,"}, "does not say what sample/a.py is"),
        ({"sample/a.py": "sample/a.py,md5=8JcB8hqkrCYs0r9lKOIpLQ,1"}, "does not say what sample/a.py is"),
        ({"sample/a.py": f"sample/a.py,{record_hash(b'a')},2"}, "does not say what sample/a.py is"),
        ({"two": f"sample/a.py,{record_hash(b'b')},1"}, "says two things of sample/a.py"),
        ({"bad": 'sample/"b.py,,\n"'}, "RECORD can't be read"),
    ],
)
def test_a_wheel_that_does_not_say_enough_is_refused(tmp_path: Path, rows: dict[str, str | None], said: str) -> None:
    """Such a layer can't be known without the wheel: the error says so."""
    wheel = write_wheel(tmp_path, {"sample/a.py": b"a"}, record=rows)
    with pytest.raises(LayerError, match=said) as caught:
        claimed(wheel)
    assert "whole wheel" in caught.value.todo
    assert caught.value.where == wheel.name


def test_what_is_read_is_believed_before_record(tmp_path: Path) -> None:
    """A wrong hash of METADATA does no harm; a wrong one of a module makes another layer, which whoever has it sees."""
    record = {f"{INFO}/METADATA": f"{INFO}/METADATA,{record_hash(b'other')},5"}
    wheel = write_wheel(tmp_path / "read", {"sample/a.py": b"a"}, record=record)
    assert claimed(wheel).digest == whole(wheel).digest
    wheel = write_wheel(
        tmp_path / "not", {"sample/a.py": b"a"}, record={"sample/a.py": f"sample/a.py,{record_hash(b'b')},1"}
    )
    assert claimed(wheel).digest != whole(wheel).digest


def test_members_that_may_not_be_shipped_are_refused(tmp_path: Path) -> None:
    """Paths are checked as those of a wheel that is here."""
    wheel = write_wheel(tmp_path, {"../../escape.py": b""})
    with pytest.raises(LayerError, match="may not be shipped"):
        claimed(wheel)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """Neither here, where metadata has a limit, nor where a wheel's size is known from its listing."""
    bomb = tmp_path / "sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
        archive.writestr(f"{INFO}/RECORD", bytes(33 << 20))
    with pytest.raises(LayerError, match="more than 33554432 are not read"):
        claimed(bomb)
    wheel = write_wheel(tmp_path / "large", {"sample/a.py": bytes(1_000)})
    size = claimed(wheel).size
    with pytest.raises(LayerError, match=f"{size - 1} are expected"):
        wheel_source(wheel, unpack_to=tmp_path / "none", most=size - 1)
    assert not (tmp_path / "none").exists()
    # Scripts and RECORD aside, the listing's size is what it unpacks to.
    assert wheel_source(wheel, unpack_to=tmp_path / "some", most=size).size == size


def test_what_is_no_wheel_is_refused() -> None:
    """An error with its name, whatever it is."""
    with pytest.raises(LayerError, match="can't be read") as caught:
        claimed_source(io.BytesIO(b"<html>sign in</html>"), where="sample.whl")
    assert caught.value.where == "sample.whl"
