"""Damaged files are refused in words; whole ones lose nothing on the way through our own formats."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name
from packaging.version import Version

from likewise.errors import UsageError
from likewise.formats.read import Reading, pins_for, read, read_listing, snapshot_of
from likewise.formats.write import write
from likewise.model.plan import Action, Decision, LockedFile, Plan
from likewise.model.target import Platform, Target
from likewise.planner.tags import target_tags
from support.listings import PYLOCK, UV_LOCK, inspected
from support.values import TARGET

FREEZE = """six==1.17.0
# Editable install with no version control (mine==1)
-e /mine
x @ git+ssh://h/x@1 ; os_name == 'nt'
"""
INSPECT = inspected(
    {"metadata": {"name": "six", "version": "1.17.0", "requires_dist": ["x (>=1)"]}, "installer": "pip"},
    python_full_version="3.12.1",
    sys_platform="darwin",
    platform_machine="arm64",
)


NODES = Target(platform=Platform(os="linux", arch="aarch64", libc="glibc", libc_version="2.28"), python="3.12.0")


def read_any(text: str) -> Reading | None:
    """What is read from a file with this text, None when it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            return read(path, machine=TARGET)
        except UsageError as error:
            assert error.where == str(path) and error.what
            return None


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A file of some format with a piece taken out and another put in."""
    text = draw(st.sampled_from([UV_LOCK, PYLOCK, FREEZE, INSPECT]))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 40)))
    pieces = ["", '"', "[", "{", "\n", "=", " ; ", "@", "-e ", "://", "sha256:", "null", "0", "\ud800"]
    return text[:start] + draw(st.sampled_from(pieces) | st.text(max_size=5)) + text[end:]


@given(damaged())
def test_damage_is_refused_in_words_or_harmless(text: str) -> None:
    """Whatever is broken, the error is a UsageError with the file's name; what passes is a snapshot in order."""
    reading = read_any(text)
    if reading is not None:
        names = [d.name for d in reading.snapshot.distributions]
        assert names == sorted(set(names))
        with contextlib.suppress(UsageError):  # what is damaged may be what only the target has
            pins_for(reading.listing, reading.snapshot, NODES, target_tags(NODES))


@given(st.text())
def test_any_text_is_refused_in_words_or_harmless(text: str) -> None:
    """Also what is no format at all."""
    read_any(text)


_NAMES = st.text("abc-0", min_size=1, max_size=6).map(lambda text: f"x{text.replace('--', '-').strip('-')}")
_VERSIONS = st.builds(
    lambda numbers, tail: ".".join(map(str, numbers)) + tail,
    st.lists(st.integers(0, 300), min_size=1, max_size=4),
    st.sampled_from(["", "rc1", ".post2", "+cu128", ".dev3"]),
)


@given(
    st.dictionaries(_NAMES.map(canonicalize_name), _VERSIONS, max_size=5), st.sampled_from(["pylock", "requirements"])
)
def test_what_is_written_is_read_again(versions: dict[str, str], form: str) -> None:
    """Names, versions and hashes of any plan survive both formats."""
    decisions = []
    for place, (name, version) in enumerate(versions.items()):
        filename = f"{name.replace('-', '_')}-{Version(version)}-py3-none-any.whl"
        file = LockedFile(filename=filename, url=f"https://index.example/{filename}", sha256=f"{place:064x}")
        decisions.append(Decision(name=name, version=version, action=Action.FETCH, reason="exact", file=file))
    text = write(Plan(target=TARGET, decisions=tuple(decisions), kit=()), form)
    if not versions and form == "requirements":
        return
    listing = read_listing(text)
    snapshot = snapshot_of(listing, TARGET)
    assert {d.name: Version(d.version) for d in snapshot.distributions} == {
        name: Version(version) for name, version in versions.items()
    }
    hashes = pins_for(listing, snapshot, TARGET, target_tags(TARGET)).hashes
    assert {name: digests for name, (_, digests) in hashes.items()} == {
        d.name: {d.file.sha256} for d in decisions if d.file
    }
