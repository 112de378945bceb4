"""Prefix placeholders: put in, taken out, and what can't be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.errors import LayerError
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind, SourceFile, decode_listing, encode_listing, layer_source
from likewise.model.placeholders import MOST_WAYS, likely_original, original_of, originals, with_prefix

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


TEXTS = {
    "longer name": f"prefix={OLD}\nlog={NEW}-logs/x\n",
    "extension": f"{NEW}.bak/a {OLD}/a\n",
    "flags": f"-I{OLD}/include -L{OLD}/lib -Wl,-rpath,{OLD}/lib -L{NEW}2/lib\n",
    "both whole": f"a={OLD}\nb={NEW}\nc={OLD}/lib\nd={NEW}/lib\n",
    "none": f"{NEW}/lib\n",
    "many alike": f"{OLD}/lib\n" * 40 + f"{NEW}/doc\n" * 40,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_that_names_the_prefix_itself(text: str) -> None:
    """The digest tells which of what names the prefix the installer has put there, and which was there before."""
    data = text.encode()
    made = with_prefix(data, OLD, NEW, binary=False)
    assert original_of(made, OLD, NEW, digest_bytes(data), binary=False) == data


def test_a_prefix_that_is_the_end_of_another_path() -> None:
    """``/usr/bin/env`` stays in the first line of a script, with a prefix ``/env``."""
    data = f"#!/usr/bin/env bash\nexec {OLD}/bin/x -I{OLD}/include\n".encode()
    made = with_prefix(data, OLD, "/env", binary=False)
    assert original_of(made, OLD, "/env", digest_bytes(data), binary=False) == data
    assert likely_original(made, OLD, "/env", binary=False) == data


@pytest.mark.parametrize("end", ["", "\0", "\0" * 200, "\0\2"])
@pytest.mark.parametrize("length", [len(NEW), len(OLD)])
def test_c_strings_that_name_the_prefix_themselves(end: str, length: int) -> None:
    """Beside the placeholder or alone, also at the end of a file without a NUL: the padding is as much as was put."""
    new = NEW.ljust(length, "x")
    data = b"\1" + f"{OLD}/bin:{new}-site/bin\0\2{new}-site\0\0\2{OLD}/lib:{OLD}{end}".encode()
    made = with_prefix(data, OLD, new, binary=True)
    assert len(made) == len(data) and OLD.encode() not in made
    assert original_of(made, OLD, new, digest_bytes(data), binary=True) == data


FEW = st.sampled_from([OLD.encode(), NEW.encode(), b"-site", b"\0", b"/lib", b"\0" * 50, b"x", b"\n"])


@given(st.lists(FEW, max_size=6), st.booleans())
def test_the_digest_decides(pieces: list[bytes], binary: bool) -> None:
    """Where the prefix is named a few times, it is told which of them the installer has put there."""
    data = b"".join(pieces)
    made = with_prefix(data, OLD, NEW, binary=binary)
    assert original_of(made, OLD, NEW, digest_bytes(data), binary=binary) == data


def test_the_search_ends() -> None:
    """A file that nobody can make sense of takes a bounded number of attempts; a large one few."""
    small = " ".join(f"{NEW}{number}" for number in range(200)).encode()
    assert original_of(small, OLD, NEW, "0" * 64, binary=False) is None
    assert len(list(originals(small, OLD, NEW, binary=False))) == MOST_WAYS
    for large in (small + b" " * (1 << 25), small * 200):
        assert len(list(originals(large, OLD, NEW, binary=False))) == 3


def test_what_was_changed_has_the_placeholder_where_it_names_the_prefix() -> None:
    """And nowhere else: a longer name is another path."""
    changed = f"{NEW}/lib\n{NEW}-logs\n/mnt{NEW}\nfile://{NEW}\n".encode()
    expected = f"{OLD}/lib\n{NEW}-logs\n/mnt{NEW}\nfile://{OLD}\n".encode()
    assert likely_original(changed, OLD, NEW, binary=False) == expected
    assert expected in originals(changed, OLD, NEW, binary=False)


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
