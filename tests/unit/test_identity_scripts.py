"""Interpreter lines: what installers write is put back, what people write stays."""

from __future__ import annotations

import pytest

from likewise.model.identity import script_from_prefix, script_from_wheel


def own(path: str) -> bool:
    """The prefix under test is /p."""
    return path.rpartition("/")[0] == "/p/bin"


@pytest.mark.parametrize(
    "first",
    [b"#!python\n", b"#!python3\n", b"#!pythonw\n", b"#!python -E\n", b"#!python\r\n", b"#!python3.11 -I -s\n"],
)
def test_a_wheels_python_line_is_neutral_without_its_arguments(first: bytes) -> None:
    """Installers replace the whole line, so nothing that follows the word survives an installation."""
    assert script_from_wheel(first + b"print(1)\r\n\n") == b"#!python\nprint(1)\r\n\n"


@pytest.mark.parametrize("content", [b"#!/bin/sh\n", b"#!/usr/bin/env python\n", b"\x7fELF", b"", b" #!python\n"])
def test_a_wheels_other_scripts_stay(content: bytes) -> None:
    """Only a first line that begins with the placeholder is replaced."""
    assert script_from_wheel(content) is None


@pytest.mark.parametrize(
    "head",
    [
        b"#!/p/bin/python\n",
        b"#!/p/bin/python3.11\n",
        b"#! /p/bin/python3 -I\n",
        b'#!"/p/bin/python"\n',
        b"#!/p/bin/pypy3.10\n",
        b"#!/p/bin/python3.13t\n",
        b"#!/bin/sh\n'''exec' /p/bin/python \"$0\" \"$@\"\n' '''\n",
        b"#!/bin/sh\n'''exec' '/p/bin/python3' \"$0\" \"$@\"\n' '''\n",
        b"#!/bin/sh\n'''exec' \"/p/bin/python3\" \"$0\" \"$@\"\n' '''\n",
        b"#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_every_form_that_installers_write_becomes_neutral(head: bytes) -> None:
    """The plain line, the shell line for long paths and for spaces, and the one of relocatable venvs."""
    assert script_from_prefix(head + b"import sys\n", own) == b"#!python\nimport sys\n"


@pytest.mark.parametrize(
    "content",
    [
        b"#!python\nliteral\n",
        b"#!/other/bin/python\n",
        b"#!/usr/bin/env python3\n",
        b"#!/p/bin/pythonista\n",
        b"#!/p/bin/sh\n",
        b"#!/bin/sh\nexec /p/bin/python\n",
        b"#!/bin/sh\n'''exec' /other/python \"$0\" \"$@\"\n' '''\n",
        b"#!/p/bin/python",  # a line without an end is no line
        b"\x7fELF\n",
        b"",
    ],
)
def test_scripts_that_no_installer_wrote_stay(content: bytes) -> None:
    """Another interpreter, another program, a literal placeholder: shipped byte for byte."""
    assert script_from_prefix(content, own) is None


def test_an_interpreter_path_that_is_not_unicode_is_still_compared() -> None:
    """A prefix may lie in a directory with any name."""
    seen: list[str] = []
    script_from_prefix(b"#!/p\xff/bin/python\n", lambda path: bool(seen.append(path)))
    assert seen == ["/p\udcff/bin/python"]
