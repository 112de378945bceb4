"""Library search paths of copies: many files at once come out as each alone."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from likewise.errors import LayerError
from likewise.layers.relocate import set_rpath, set_rpaths

RPATH = "$ORIGIN/../.."


def modules() -> list[str]:
    """Some extension modules."""
    return [str(path) for path in sorted(Path(numpy.__file__).parent.rglob("*.so"))[:5]]


def test_they_are_the_same_bytes(tmp_path: Path) -> None:
    """And the originals are as they were."""
    sources = modules()
    before = [Path(source).read_bytes() for source in sources]
    copies = [(source, str(tmp_path / str(number))) for number, source in enumerate(sources)]
    set_rpaths(copies, rpath=RPATH)
    for source, copy in copies:
        set_rpath(source, f"{copy}-alone", rpath=RPATH)
        assert Path(copy).read_bytes() == Path(f"{copy}-alone").read_bytes()
        assert RPATH.encode() in Path(copy).read_bytes()
    assert len(copies) == 5
    assert [Path(source).read_bytes() for source in sources] == before


def test_the_one_that_can_not_be_changed_is_named(tmp_path: Path) -> None:
    """Although all are given to patchelf together."""
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF, so it says")
    copies = [(source, str(tmp_path / str(number))) for number, source in enumerate([*modules(), str(broken)])]
    with pytest.raises(LayerError, match="patchelf could not change") as caught:
        set_rpaths(copies, rpath=RPATH)
    assert caught.value.where == str(broken)


def test_none_is_no_work() -> None:
    """patchelf without a file is an error."""
    set_rpaths([], rpath=RPATH)
