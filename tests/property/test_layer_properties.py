"""Listings, paths and archives, whatever their names and contents."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.errors import LayerError
from likewise.layers.pack import write_archive
from likewise.model.digest import EMPTY, digest_bytes
from likewise.model.identity import bytecode_source, installed_path, layout_for, script_from_prefix, script_from_wheel
from likewise.model.layer import (
    SCHEMES,
    FileEntry,
    LayerKind,
    SourceFile,
    check_entries,
    decode_listing,
    encode_listing,
    layer_digest,
    layer_source,
    path_problem,
)
from likewise.model.record import parse_record
from likewise.scanner.listing import Listing, add_claims
from support.layers import read_archive
from support.wheels import record_hash

PART = st.one_of(
    st.sampled_from(["a", "A", "b", "..", ".", "", "purelib", "x.py", "__pycache__", "\0", "a\\b", "/", "\udcff"]),
    st.text(min_size=1, max_size=6),
)
WILD_PATH = st.lists(PART, max_size=5).map("/".join) | st.builds(
    lambda scheme, parts: "/".join([scheme, *parts]), st.sampled_from(sorted(SCHEMES)), st.lists(PART, max_size=4)
)
LINK = st.just("") | st.lists(PART, min_size=1, max_size=4).map("/".join)
GOOD_PART = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=8).filter(
    lambda p: p not in (".", "..")
)
GOOD_PATH = st.builds(
    lambda scheme, parts: "/".join([scheme, *parts]),
    st.sampled_from(sorted(SCHEMES)),
    st.lists(GOOD_PART, min_size=1, max_size=4),
)


@st.composite
def entries(draw: st.DrawFn) -> list[FileEntry]:
    """Entries of a layer, sorted, that may lie together."""
    kept: list[FileEntry] = []
    for path in sorted(draw(st.sets(GOOD_PATH, max_size=8))):
        data = draw(st.binary(max_size=8))
        candidate = FileEntry(path=path, sha256=digest_bytes(data), size=len(data), executable=draw(st.booleans()))
        try:
            check_entries([*kept, candidate], where="")
        except LayerError:
            continue
        kept.append(candidate)
    return kept


@given(entries())
def test_a_listing_comes_back_as_it_was(files: list[FileEntry]) -> None:
    """decode is the inverse of encode."""
    assert decode_listing(encode_listing(files)) == tuple(files)


@given(entries(), st.randoms())
def test_the_digest_does_not_depend_on_order(files: list[FileEntry], random) -> None:  # type: ignore[no-untyped-def]
    """Files may be found in any order."""
    shuffled = list(files)
    random.shuffle(shuffled)
    source = layer_source(LayerKind.CODE, "n", "1", [SourceFile(entry=e, data=b"") for e in shuffled])
    assert source.digest == layer_digest(files)
    assert [f.entry for f in source.files] == files


@given(entries(), st.data())
def test_any_change_of_an_entry_changes_the_digest(files: list[FileEntry], data: st.DataObject) -> None:
    """Path, content, size, executable bit: nothing can be swapped for something else under the same name."""
    if not files:
        return
    index = data.draw(st.integers(0, len(files) - 1))
    old = files[index]
    new = data.draw(
        st.sampled_from([
            FileEntry(path=old.path + "x", sha256=old.sha256, size=old.size, executable=old.executable),
            FileEntry(path=old.path, sha256=digest_bytes(b"other content"), size=old.size, executable=old.executable),
            FileEntry(path=old.path, sha256=old.sha256, size=old.size + 1, executable=old.executable),
            FileEntry(path=old.path, sha256=old.sha256, size=old.size, executable=not old.executable),
            FileEntry(path=old.path, sha256=old.sha256, size=old.size, executable=old.executable, link="a"),
        ])
    )  # fmt: skip
    assert layer_digest([*files[:index], new, *files[index + 1 :]]) != layer_digest(files)


@given(st.binary(max_size=300) | entries().map(encode_listing).flatmap(
    lambda good: st.tuples(st.integers(0, len(good)), st.binary(max_size=3)).map(
        lambda edit: good[: edit[0]] + edit[1] + good[edit[0] + 1 :])
))  # fmt: skip
def test_what_is_read_is_what_we_would_have_written(data: bytes) -> None:
    """A damaged listing is either refused with a LayerError or is the canonical form of other entries."""
    try:
        files = decode_listing(data)
    except LayerError:
        return
    assert encode_listing(files) == data


@given(st.lists(st.tuples(WILD_PATH, LINK), max_size=6))
def test_no_accepted_entry_lies_or_leads_outside_its_root(wild: list[tuple[str, str]]) -> None:
    """Neither by its path nor by its link's target, however the names are made up; and no two exclude each other."""
    files = [FileEntry(path=path, sha256=EMPTY, size=0, link=link) for path, link in wild]
    try:
        check_entries(files, where="")
    except LayerError:
        return
    folded = [e.path.casefold() for e in files]
    assert len(set(folded)) == len(folded)
    for file in files:
        scheme = "/root/" + file.path.partition("/")[0]
        place = os.path.normpath(f"/root/{file.path}")
        assert place.startswith(scheme + "/") and place == f"/root/{file.path}"
        assert "\0" not in file.path and file.path.encode()
        assert not any(other.startswith(file.path.casefold() + "/") for other in folded)
        if file.link and scheme == "/root/purelib":  # what is beside it in a prefix may be linked to
            module = "/lib/python3/site-packages" + os.path.dirname(place.removeprefix(scheme))
            assert os.path.normpath(f"/root{module}/{file.link}").startswith("/root")
        elif file.link:
            assert os.path.normpath(f"{os.path.dirname(place)}/{file.link}").startswith(scheme)
            assert not file.link.startswith("/")


@given(st.lists(WILD_PATH, max_size=6))
def test_the_quick_check_refuses_what_the_slow_one_does(wild: list[str]) -> None:
    """A list is accepted exactly when every path is harmless by itself and no two exclude each other."""
    folded = [p.casefold() for p in wild]
    fine = (
        not any(path_problem(p) for p in wild)
        and len(set(folded)) == len(wild)
        and not any(b.startswith(a + "/") for a in folded for b in folded)
    )
    try:
        check_entries([FileEntry(path=p, sha256=EMPTY, size=0) for p in wild], where="")
    except LayerError:
        assert not fine
    else:
        assert fine


CLAIM = st.lists(
    st.sampled_from(["..", ".", "", "a", "b.py", "etc", "passwd", "bin", "share", "sample", "\0", "é", "/"])
    | GOOD_PART,
    min_size=1,
    max_size=9,
).map("/".join)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty site directory."""
    site = tmp_path_factory.mktemp("claims") / "p/lib/python3.11/site-packages"
    site.mkdir(parents=True)
    return site


@given(names=st.lists(CLAIM | CLAIM.map(lambda p: "/" + p), max_size=8))
def test_no_claim_of_a_record_is_looked_up_outside_the_prefix(site: Path, names: list[str]) -> None:
    """Whatever a RECORD says, every path taken from it lies beneath the prefix and gets a layer path that is safe."""
    names = [name for name in names if name and not name.endswith("/")]  # see parse_record
    layout = layout_for(str(site), python="python3.11")
    listing = Listing(name="sample", site=str(site), layout=layout)
    add_claims(listing, [(name, None, -1) for name in names])
    for path in listing.claimed:
        assert path.startswith(layout.prefix + "/") and os.path.normpath(path) == path
        assert installed_path(path, layout)
    assert not [p for p in (*listing.missing, *listing.files) if path_problem(p)]
    outside = [name for name in names if not _beneath(os.path.join(site, name), layout.prefix)]
    assert len([p for p in listing.problems if p.code == "path-escapes"]) == len(outside)


def _beneath(path: str, prefix: str) -> bool:
    return os.path.normpath(path).startswith(prefix + "/")


@given(st.dictionaries(GOOD_PATH, st.binary(max_size=2000), max_size=6), st.integers(1, 5), st.integers(0, 2))
def test_an_archive_comes_back_as_it_was(files: Mapping[str, bytes], level: int, threads: int) -> None:
    """Any contents, at any level, with any number of threads."""
    sources = [
        SourceFile(entry=FileEntry(path=path, sha256=digest_bytes(data), size=len(data)), data=data)
        for path, data in files.items()
    ]
    try:
        source = layer_source(LayerKind.CODE, "n", "1", sources)
    except LayerError:
        return
    out = io.BytesIO()
    write_archive(source, out, level=level, threads=threads)
    read, contents = read_archive(out.getvalue())
    assert contents == files
    assert read == tuple(f.entry for f in source.files)


@given(st.lists(st.tuples(st.text(min_size=1), st.binary(max_size=9) | st.none()), max_size=8))
def test_a_record_written_by_the_rules_of_csv_comes_back(rows: list[tuple[str, bytes | None]]) -> None:
    """Commas, quotes and line ends in names included."""
    rows = [(name, data) for name, data in rows if "\0" not in name and not name.endswith("/")]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        (name, "" if data is None else record_hash(data), "") for name, data in rows
    )
    expected = [(name, None if data is None else digest_bytes(data)) for name, data in rows]
    assert [(name, digest) for name, digest, _ in parse_record(text.getvalue())] == expected


@given(st.text(max_size=200))
def test_no_text_is_too_strange_for_a_record(text: str) -> None:
    """It gives claims or a ValueError, nothing else; no claim is empty or a directory."""
    try:
        claims = parse_record(text)
    except ValueError:
        return
    assert all(name and not name.endswith("/") for name, _, _ in claims)


@given(st.binary(max_size=200), st.sampled_from([b"", b"#!", b"#!python", b"#!/p/bin/python", b"#!/bin/sh\n'''exec' "]))
def test_a_neutral_script_stays_what_it_is(tail: bytes, head: bytes) -> None:
    """From either side the result begins with the placeholder and keeps the rest; doing it twice changes nothing."""
    content = head + tail
    for neutral in (script_from_wheel(content), script_from_prefix(content, lambda path: True)):
        if neutral is not None:
            assert neutral.startswith(b"#!python\n") and content.endswith(neutral[9:])
            assert script_from_wheel(neutral) == neutral


@given(st.text(max_size=40))
def test_the_source_of_bytecode_is_a_python_file(path: str) -> None:
    """For every name whatsoever, and only for bytecode is there one."""
    for name in (path, path + ".pyc", f"{path}/__pycache__/{path}.pyc"):
        source = bytecode_source(name)
        assert (source is not None) == name.endswith((".pyc", ".pyo"))
        assert source is None or source.endswith(".py")
