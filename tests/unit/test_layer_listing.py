"""What a layer may hold, and what a listing must look like."""

from __future__ import annotations

import pytest

from likewise.errors import LayerError
from likewise.model.digest import EMPTY, digest_bytes
from likewise.model.layer import (
    LISTING_MAGIC,
    FileEntry,
    LayerKind,
    SourceFile,
    check_entries,
    decode_listing,
    encode_listing,
    layer_digest,
    layer_source,
)


def entry(path: str, **more: object) -> FileEntry:
    """An empty file."""
    return FileEntry(path=path, sha256=EMPTY, size=0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/purelib/a", "is absolute"),
        ("/etc/passwd", "is absolute"),
        ("C:/a", "is absolute"),
        ("purelib\\a/b", "is absolute"),
        ("lib/a", "no known scheme"),
        ("purelib", "no known scheme"),
        ("purelibx", "no known scheme"),
        ("", "no known scheme"),
        ("Purelib/a", "no known scheme"),
        ("purelib/", "escapes"),
        ("purelib/../a", "escapes"),
        ("purelib/a/../../../etc/passwd", "escapes"),
        ("purelib/..", "escapes"),
        ("purelib/.", "escapes"),
        ("purelib/./a", "escapes"),
        ("purelib//a", "escapes"),
        ("purelib/a/", "escapes"),
        ("purelib/a\0b", "NUL"),
        ("purelib/caf\udce9", "Unicode"),
    ],
)
def test_paths_that_may_not_be_shipped(path: str, reason: str) -> None:
    """Each is refused with its reason, alone and among harmless ones, when made and when read."""
    for others in ([], [entry("purelib/ok.py"), entry("scripts/ok")]):
        with pytest.raises(LayerError, match=reason) as caught:
            check_entries([*others, entry(path)], where="sample 1.0")
        assert caught.value.where == "sample 1.0"
        assert path in caught.value.details["paths"]
    with pytest.raises(LayerError):
        layer_source(LayerKind.CODE, "sample", "1.0", [SourceFile(entry=entry(path), data=b"")])


@pytest.mark.parametrize(
    "path",
    ["purelib/a b", "purelib/🐍.py", "purelib/..a", "purelib/a..", "purelib/...", "purelib/.hidden", "purelib/a\nb",
     "purelib/a\\..\\b", "purelib/a:b", "data/é", "native/libx.so.1"],
)  # fmt: skip
def test_odd_paths_that_are_harmless(path: str) -> None:
    """And come back from a listing as they were."""
    check_entries([entry(path)], where="")
    assert decode_listing(encode_listing([entry(path)])) == (entry(path),)


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["purelib/A.py", "purelib/a.py"], "where case is ignored"),
        (["purelib/Dir/x", "purelib/dir/X"], "where case is ignored"),
        (["purelib/straße", "purelib/STRASSE"], "where case is ignored"),
        (["purelib/a", "purelib/a"], "where case is ignored"),
        (["purelib/a", "purelib/a/b"], "beneath another file"),
        (["purelib/a", "purelib/a-b", "purelib/a/b/c/d"], "beneath another file"),
        (["purelib/A", "purelib/a/b"], "beneath another file"),
    ],
)
def test_paths_that_exclude_each_other(paths: list[str], reason: str) -> None:
    """Two files that not every file system can hold together, a file that would have to be a directory as well."""
    with pytest.raises(LayerError, match=reason):
        check_entries([entry(path) for path in paths], where="")


@pytest.mark.parametrize(
    ("path", "link", "reason"),
    [
        ("purelib/a", "/etc/passwd", "absolute link"),
        ("data/a", "../b", "leaves the layer"),
        ("code/a/b", "../../c", "leaves the layer"),
        ("data/a/b", "../../data/c", "leaves the layer"),
        ("purelib/a", "../../../../c", "leaves the layer"),
        ("purelib/a/b", "./..//../../../../c", "leaves the layer"),
        ("purelib/a", "b/../../c", "leaves the layer"),
        ("purelib/a", "../b/../c", "leaves the layer"),
        ("purelib/a", "b\0", "absolute link"),
        ("purelib/a", "caf\udce9", "Unicode"),
    ],
)
def test_links_that_lead_outside(path: str, link: str, reason: str) -> None:
    """A link never leaves the scheme directory that it lies in, that of a module the prefix; not even on its way."""
    with pytest.raises(LayerError, match=reason):
        check_entries([entry("purelib/ok"), entry(path, link=link)], where="")


def test_links_from_modules_into_the_prefix() -> None:
    """The site directory is three folders deep in every prefix."""
    links = {
        "purelib/torch/lib/libtorch.so": "../../../../libtorch.so",
        "purelib/l": "../../../share/x",
        "purelib/b": ".",
    }
    check_entries([entry(path, link=link) for path, link in links.items()], where="")


def test_links_that_stay_inside_and_have_no_content() -> None:
    """A link is a path and a target; content, an executable bit or a file beneath it are refused."""
    check_entries([entry("purelib/a/l", link="../b/./c"), entry("purelib/b/c")], where="")
    for wrong in (
        FileEntry(path="purelib/l", sha256=EMPTY, size=1, link="b"),
        FileEntry(path="purelib/l", sha256=digest_bytes(b"x"), size=0, link="b"),
        FileEntry(path="purelib/l", sha256=EMPTY, size=0, link="b", executable=True),
    ):
        with pytest.raises(LayerError, match="link with content"):
            check_entries([wrong], where="")
    with pytest.raises(LayerError, match="beneath another file"):
        check_entries([entry("purelib/l", link="b"), entry("purelib/l/x")], where="")


def test_one_error_names_every_path() -> None:
    """The message a few of them, the details all."""
    with pytest.raises(LayerError, match="and 3 more") as caught:
        check_entries([entry(f"purelib/../{n}") for n in range(8)], where="")
    assert len(caught.value.details["paths"]) == 8


GOOD = f"purelib/a\0{EMPTY}\0000\0-\0\0\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "likewise-layer 2\n" + GOOD,
        LISTING_MAGIC + GOOD[:-1],
        LISTING_MAGIC + GOOD + "\n",
        LISTING_MAGIC + "purelib/a\0\n",
        LISTING_MAGIC + GOOD.replace("\0000\0", "\00000\0"),
        LISTING_MAGIC + GOOD.replace("\0000\0", "\000-1\0"),
        LISTING_MAGIC + GOOD.replace("\0000\0", "\000١\0"),
        LISTING_MAGIC + GOOD.replace("\0000\0", "\000" + "9" * 30 + "\0"),
        LISTING_MAGIC + GOOD.replace("\0-\0", "\0y\0"),
        LISTING_MAGIC + GOOD.replace(EMPTY, EMPTY.upper()),
        LISTING_MAGIC + GOOD.replace(EMPTY, EMPTY[:-1]),
        LISTING_MAGIC + GOOD.replace("purelib/a", "purelib/b") + GOOD,
        LISTING_MAGIC + GOOD + GOOD,
        LISTING_MAGIC + GOOD.replace("purelib/a", "purelib/../a"),
    ],
)
def test_a_listing_that_we_would_not_have_written_is_refused(text: str) -> None:
    """Another version, cut off, numbers and digests in other spellings, wrong order, repetitions, forbidden paths."""
    assert decode_listing((LISTING_MAGIC + GOOD).encode()) == (entry("purelib/a"),)
    with pytest.raises(LayerError) as caught:
        decode_listing(text.encode(), where="layer x")
    assert caught.value.where == "layer x"


def test_bytes_that_are_not_unicode_are_no_listing() -> None:
    """The same error as for every other damage."""
    with pytest.raises(LayerError, match="damaged"):
        decode_listing((LISTING_MAGIC + GOOD).encode().replace(b"/a", b"/\xff"))


def test_the_format_never_changes_by_accident() -> None:
    """These digests are names in stores and caches: whoever changes them must mean it."""
    entries = [
        entry("purelib/empty"),
        entry("purelib/link", link="empty"),
        FileEntry(path="scripts/tool", sha256=digest_bytes(b"#!python\n"), size=9, executable=True),
    ]
    assert encode_listing(entries).startswith(LISTING_MAGIC.encode() + b"purelib/empty\0" + EMPTY.encode() + b"\x000\0")
    assert layer_digest([]) == "3cf44b4c1101296dcc4e8f742a6f2f310667f2249fca5e96f336d8b73a2f2da2"
    assert layer_digest(entries) == "f9562c7bd088860058a7e8319719ad42421ae27bad9b01548465ba226e603bd8"
