"""Prefix placeholders: folders that files of conda packages name where they mean the prefix that they will lie in.

conda-build has packages built in a folder with a very long name and notes which files name it. Installers put the real
prefix there: in text as it is; in binary files, where it stands in C strings, with as many NULs behind the string as it
has become shorter, so that nothing moves. Every function is pure.

Source: the conda documentation ("Making packages relocatable"), and what conda and rattler do.
"""

from __future__ import annotations

import re

SHEBANG_LIMIT = 127
"""Bytes of a first line that every Linux reads; the kernel's buffer had 128 until 5.1 (fs/binfmt_script.c)."""

_SHEBANG = re.compile(rb"#![ \t]*(?P<program>/(?:\\ |[^ \t\r\n])*)(?P<rest>[^\n]*)")
_ENV = re.compile(rb"#!/usr/bin/env (?P<name>[^ \t\r\n]+)(?P<rest>[^\n]*)")
_EXEC = re.compile(rb"#!/bin/sh\n'''exec' \"(?P<program>[^\"\n]+)\"(?P<rest>[^\n]*) \"\$0\" \"\$@\" #'''")
_PYTHON = re.compile(rb".*/python\d*(?:\.\d+)*", re.DOTALL)


def with_prefix(data: bytes, placeholder: str, prefix: str, *, binary: bool) -> bytes:
    """`data` with `prefix` in place of `placeholder`.

    A first line that names an interpreter there and becomes too long for the kernel, or has a space in it, is replaced
    as rattler does: by lines that ``sh`` takes for a command and Python for a string, or, for other interpreters, by
    one that looks for it on the ``PATH``.

    Raises
    ------
    ValueError
        `prefix` is longer than the placeholder of a binary file.
    """
    old, new = placeholder.encode(), prefix.encode()
    if binary:
        if len(new) > len(old):
            raise ValueError(f"{len(new)} bytes don't fit into {len(old)}")
        return _padded(data, old, new)
    head, mark, body = data.partition(b"\n")
    return _first_line(head, old, new) + mark + body.replace(old, new)


def originals(data: bytes, placeholder: str, prefix: str, *, binary: bool) -> tuple[bytes, ...]:
    """What an installer may have made `data` of, the likeliest first.

    None of them is right where the original names `prefix` itself.
    """
    old, new = placeholder.encode(), prefix.encode()
    likely = _shortened(data, old, new) if binary else data.replace(new, old)
    if binary:
        return (likely,)
    lines = []
    if (found := _EXEC.match(likely)) is not None:
        lines = [found["program"] + found["rest"]]
    elif (found := _ENV.match(likely)) is not None:
        lines = [old + b"/bin/" + found["name"] + found["rest"]]
    rest = likely[found.end() :] if found else b""
    return likely, *(mark + line + rest for line in lines for mark in (b"#!", b"#! "))


def _first_line(head: bytes, old: bytes, new: bytes) -> bytes:
    made = head.replace(old, new)
    found = _SHEBANG.match(head)
    if found is None or old not in found["program"]:
        return made
    if len(made) <= SHEBANG_LIMIT and b" " not in new:
        return made
    program, rest = found["program"].replace(old, new), found["rest"].replace(old, new)
    if _PYTHON.fullmatch(program):
        return b"#!/bin/sh\n'''exec' \"" + program + b'"' + rest + b' "$0" "$@" #' + b"'''"
    return b"#!/usr/bin/env " + program.rpartition(b"/")[2] + rest


def _padded(data: bytes, old: bytes, new: bytes) -> bytes:
    shorter = len(old) - len(new)

    def put(match: re.Match[bytes]) -> bytes:
        text = match.group()
        return text.replace(old, new) + b"\0" * (shorter * text.count(old))

    return re.sub(re.escape(old) + rb"[^\0]*\0", put, data)


def _shortened(data: bytes, old: bytes, new: bytes) -> bytes:
    """Each C string that names `new` and has the NULs behind it that say that `old` stood there."""
    longer = len(old) - len(new)
    pieces, done = [], 0
    for match in re.finditer(re.escape(new) + rb"[^\0]*\0", data):
        text = match.group()
        padding = longer * text.count(new)
        if data[match.end() : match.end() + padding] == b"\0" * padding:
            pieces += [data[done : match.start()], text.replace(new, old)]
            done = match.end() + padding
    return b"".join([*pieces, data[done:]])
