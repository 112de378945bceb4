"""Prefix placeholders: put in, taken out, and what can't be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.errors import LayerError
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind, SourceFile, decode_listing, encode_listing, layer_source
from likewise.model.placeholders import originals, with_prefix

OLD = "/opt/placeholder" + "_p" * 60
NEW = "/home/user/prefix"


def test_text_names_the_prefix() -> None:
    """Every occurrence is replaced, and the size changes."""
    data = f"prefix={OLD}\nlibdir={OLD}/lib\n".encode()
    assert with_prefix(data, OLD, NEW, binary=False) == f"prefix={NEW}\nlibdir={NEW}/lib\n".encode()


def test_c_strings_keep_their_length() -> None:
    """NULs follow each string, one that names it twice has twice as many; the rest stays where it is."""
    data = b"\1" + f"{OLD}/lib:{OLD}/lib64".encode() + b"\0\2" + f"{OLD}".encode() + b"\0\3"
    made = with_prefix(data, OLD, NEW, binary=True)
    shorter = len(OLD) - len(NEW)
    first = f"{NEW}/lib:{NEW}/lib64".encode() + b"\0" * (2 * shorter + 1)
    assert made == b"\1" + first + b"\2" + NEW.encode() + b"\0" * (shorter + 1) + b"\3"
    assert len(made) == len(data)


def test_a_prefix_that_does_not_fit_is_refused() -> None:
    """A binary file has room for a path of the placeholder's length."""
    with pytest.raises(ValueError, match="don't fit"):
        with_prefix(OLD.encode() + b"\0", OLD, OLD + "x", binary=True)
    assert with_prefix(OLD.encode(), OLD, OLD + "x", binary=False) == f"{OLD}x".encode()


@pytest.mark.parametrize("prefix", ["/home/a user/prefix", "/" + "deep/" * 40 + "prefix"])
def test_a_first_line_that_the_kernel_can_t_read(prefix: str) -> None:
    """Its interpreter is looked for on the PATH, as conda has it; the rest of the script has the prefix."""
    script = f"#!{OLD}/bin/perl -w\nuse lib '{OLD}/lib';\n".encode()
    made = with_prefix(script, OLD, prefix, binary=False)
    assert made == f"#!/usr/bin/env perl -w\nuse lib '{prefix}/lib';\n".encode()
    assert script in originals(made, OLD, prefix, binary=False)


@pytest.mark.parametrize("line", ["/bin/python", "/bin/python3.11 -s -E"])
def test_a_first_line_of_python_that_the_kernel_can_t_read(line: str) -> None:
    """sh starts that Python, whose arguments stay, and Python takes the lines for a string; it can be undone."""
    prefix = "/" + "deep/" * 40 + "prefix"
    for mark in ("#!", "#! "):
        script = f"{mark}{OLD}{line}\nprint('{OLD}')\n".encode()
        made = with_prefix(script, OLD, prefix, binary=False)
        program, _, rest = line.partition(" ")
        words = f'"{prefix}{program}"{" " * bool(rest)}{rest} "$0" "$@"'
        assert made == f"#!/bin/sh\n'''exec' {words} #'''\nprint('{prefix}')\n".encode()
        compile(made, "script", "exec")
        assert script in originals(made, OLD, prefix, binary=False)


def test_a_first_line_of_another_interpreter_stays() -> None:
    """Only a line that names the prefix's own interpreter changes."""
    script = f"#!/bin/sh -e\nexec {OLD}/bin/x\n".encode()
    assert with_prefix(script, OLD, "/with space", binary=False).startswith(b"#!/bin/sh -e\nexec /with space/bin/x")


PIECES = st.sampled_from([OLD.encode(), b"\0", b"/lib", b"\0\0\0", b"x", b"\n", b"\xff", b":"])


@given(st.lists(PIECES, max_size=30))
def test_what_was_put_in_is_taken_out(pieces: list[bytes]) -> None:
    """The original is among what the file may have been, binary or text, whatever stands around it."""
    data = b"".join(pieces)
    for binary in (True, False):
        assert data in originals(with_prefix(data, OLD, NEW, binary=binary), OLD, NEW, binary=binary)


def entry(**fields: object) -> FileEntry:
    """A file that names its prefix."""
    known = {"path": "data/bin/x", "sha256": digest_bytes(b"x"), "size": 1, "placeholder": OLD, **fields}
    return FileEntry(**known)  # type: ignore[arg-type]


def test_a_placeholder_is_part_of_the_identity() -> None:
    """A listing has it, text and binary are two things, and both can be read back."""
    plain, text, binary = entry(placeholder=""), entry(), entry(binary=True, executable=True)
    assert len({encode_listing([one]) for one in (plain, text, binary)}) == 3
    for one in (plain, text, binary):
        assert decode_listing(encode_listing([one])) == (one,)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"placeholder": "relative"}, "no path"),
        ({"placeholder": "/a\nb"}, "no path"),
        ({"size": 0}, "no content"),
    ],
)
def test_placeholders_that_make_no_sense(fields: dict[str, object], reason: str) -> None:
    """They are refused before a layer is made."""
    with pytest.raises(LayerError, match=reason):
        layer_source(LayerKind.CONDA, "conda:x", "1", [SourceFile(entry=entry(**fields), data=b"x")])


def test_terminfo_may_have_names_that_differ_in_case() -> None:
    """ncurses has ``E/Eterm`` beside ``e/eterm``; modules may not."""
    paths = ["data/share/terminfo/E/Eterm", "data/share/terminfo/e/eterm"]
    files = [SourceFile(entry=entry(path=path, placeholder=""), data=b"x") for path in paths]
    source = layer_source(LayerKind.CONDA, "conda:ncurses", "6.4", files)
    assert [e.path for e in decode_listing(encode_listing([f.entry for f in source.files]))] == paths
