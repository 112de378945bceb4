"""No change of an archive's bytes makes other files: it is refused, or it made no difference."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from likewise.model.layer import LayerSource
from likewise.node.unpack import DamagedCopy, unpack
from support.nodes import archive, layer

SOURCE = layer(
    "pkg",
    {
        "purelib/a.py": b"a" * 100,
        "purelib/b/c.py": bytes(range(256)) * 20,
        "purelib/l": "a.py",
        "scripts/s": (b"#", True),
    },
)
ARCHIVE = archive(SOURCE)
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)


def unpacked(data: bytes, source: LayerSource) -> dict[str, bytes | str]:
    """What comes out of an archive."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(io.BytesIO(data), source.digest, folder, name="pkg")
        found: dict[str, bytes | str] = {}
        for path in Path(folder).rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found[name] = str(path.readlink())
            elif path.is_file():
                found[name] = path.read_bytes()
        return found


def content(source: LayerSource) -> dict[str, bytes | str]:
    return {f.entry.path: f.entry.link or f.data or b"" for f in source.files}


@settings(max_examples=300, deadline=None)
@given(
    position=st.integers(0, len(ARCHIVE)),
    removed=st.integers(0, 8),
    inserted=st.binary(max_size=8),
    keep=st.one_of(st.none(), st.integers(0, len(ARCHIVE))),
)
def test_mutated_archive(position: int, removed: int, inserted: bytes, keep: int | None) -> None:
    """Bytes changed, inserted, removed or cut off: the archive is refused, or gives exactly the layer's files."""
    data = (ARCHIVE[:position] + inserted + ARCHIVE[position + removed :])[:keep]
    try:
        found = unpacked(data, SOURCE)
    except DamagedCopy:
        return
    assert found == content(SOURCE)


@settings(max_examples=60, deadline=None)
@given(
    files=st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=3000), max_size=8)
)
def test_round_trip(files: dict[str, bytes]) -> None:
    """Whatever files a layer may hold come out of its archive as they went in."""
    folded = [path.casefold() for path in files]
    paths = [p for p, f in zip(files, folded, strict=True) if folded.count(f) == 1 and not any(
        other != f and (other.startswith(f + "/") or f.startswith(other + "/")) for other in folded
    )]  # fmt: skip
    source = layer("pkg", {f"purelib/{path}": files[path] for path in paths})
    assert unpacked(archive(source), source) == content(source)
