"""Reading metadata folders: the same answers as the standard library's slow ways, by tables."""

from __future__ import annotations

import email
import importlib.metadata

import pytest

from likewise.scanner.metadata import (
    Metadata,
    is_valid_name,
    parse_metadata,
    parse_requires_txt,
    parse_wheel_tags,
    split_folder_name,
)


@pytest.mark.parametrize(
    "text",
    [
        "Metadata-Version: 2.1\nName: plain\nVersion: 1.0\n\nName: body\n",
        "Metadata-Version: 2.1\r\nName: crlf\r\nVersion: 1.0\r\n\r\nName: body\r\n",
        "Name: folded\nLicense: MIT\n  \n\tName: not me\n .\nVersion: 1.0\n\n",
        "name:nospace\nVERSION:   1.0   \n\n",
        "Name: unterminated\nVersion: 1.0",
        "Version: 1.0\n\nName: only in the body\n",
        "",
        "Name: first\nName: second\nVersion: 1.0\n\n",
        "Description: Name: inside\nName: outside\nVersion: 1.0\n\n",
        "Name: wide\nVersion: 1.0\nRequires-Dist: a (>=1) ; extra == 'x'\nRequires-Dist: b[c]\nProvides-Extra: x\n\n",
    ],
)
def test_headers_are_read_as_the_email_module_reads_them(text: str) -> None:
    """Name, version, requirements and extras are what email.parser finds."""
    message = email.message_from_string(text)
    assert parse_metadata(text.encode()) == Metadata(
        name=message["Name"] or "",
        version=(message["Version"] or "").strip(),
        requires=tuple(message.get_all("Requires-Dist", [])),
        provides_extras=tuple(message.get_all("Provides-Extra", [])),
    )


def test_a_folded_requirement_is_one_line() -> None:
    """Continuation lines are joined with one space."""
    text = b"Name: n\nRequires-Dist: numpy\n  ; python_version\n  > '3'\nVersion: 1\n\n"
    assert parse_metadata(text).requires == ("numpy ; python_version > '3'",)


def test_a_byte_order_mark_and_wrong_bytes() -> None:
    """Neither stops the reading of the other headers."""
    assert parse_metadata(b"\xef\xbb\xbfName: bom\nAuthor: Andr\xe9\nVersion: 1.0\n\n").name == "bom"


@pytest.mark.parametrize(
    "text",
    [
        "a\nb>=1\n",
        "a\n\n[x]\nb\nc\n\n[y:python_version < '3']\nd\n\n[:sys_platform == 'win32']\ne\n",
        "[x:a or b]\nc\n",
        "# comment\n\npkg @ https://example.invalid/p.whl\n[x]\nq @ https://example.invalid/q.whl\n",
        "",
    ],
)
def test_requires_txt_is_read_as_importlib_metadata_reads_it(text: str) -> None:
    """Sections become markers and extras, exactly as the standard library makes them."""
    expected = list(importlib.metadata.Distribution._deps_from_requires_text(text))  # type: ignore[attr-defined]
    expected = [r.strip() for r in expected if not r.startswith("#")]
    assert list(parse_requires_txt(text)[0]) == expected


def test_extras_of_requires_txt_are_named_once() -> None:
    """Each section's extra, in order, without repetition."""
    assert parse_requires_txt("[x]\na\n[x:m]\nb\n[y]\nc\n[:m]\nd\n")[1] == ("x", "y")


def test_wheel_tags() -> None:
    """Each Tag header is one tag."""
    text = b"Wheel-Version: 1.0\r\nTag: cp311-cp311-manylinux_2_17_x86_64\r\ntag: py3-none-any\n"
    assert parse_wheel_tags(text) == ("cp311-cp311-manylinux_2_17_x86_64", "py3-none-any")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("numpy-1.26.4.dist-info", ("numpy", "1.26.4")),
        ("torch-2.1.0+cu126.dist-info", ("torch", "2.1.0+cu126")),
        ("foo-1.0-py3.11.egg-info", ("foo", "1.0")),
        ("foo-1.0-py3.11-linux-x86_64.egg", ("foo", "1.0")),
        ("foo.egg-info", ("foo", "")),
        ("-umpy-1.0.dist-info", ("", "umpy-1.0")),
    ],
)
def test_folder_names(folder: str, expected: tuple[str, str]) -> None:
    """Name and version as installers spell them in the names of metadata folders."""
    assert split_folder_name(folder) == expected


@pytest.mark.parametrize(
    ("name", "valid"),
    [("numpy", True), ("Zope.Interface", True), ("a", True), ("a-b_c.d9", True)]
    + [(bad, False) for bad in ("", "-a", "a-", "a b", "naïve", "a/b", "~a", "a\n")],
)
def test_valid_names(name: str, valid: bool) -> None:
    """Only what the specification allows is a distribution's name."""
    assert is_valid_name(name) is valid
