"""Prefix placeholders: folders that files of conda packages name where they mean the prefix that they will lie in.

conda-build has packages built in a folder with a very long name and notes which files name it. Installers put the real
prefix there: in text as it is; in binary files, where it stands in C strings, with as many NULs behind the string as it
has become shorter, so that nothing moves. Every function is pure.

Source: the conda documentation ("Making packages relocatable"), and what conda and rattler do.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from likewise.model.digest import digest_bytes

SHEBANG_LIMIT = 127
"""Bytes of a first line that every Linux reads; the kernel's buffer had 128 until 5.1 (fs/binfmt_script.c)."""

_SHEBANG = re.compile(rb"#![ \t]*(?P<program>/(?:\\ |[^ \t\r\n])*)(?P<rest>[^\n]*)")
_ENV = re.compile(rb"#!/usr/bin/env (?P<name>[^ \t\r\n]+)(?P<rest>[^\n]*)")
_EXEC = re.compile(rb"#!/bin/sh\n'''exec' \"(?P<program>[^\"\n]+)\"(?P<rest>[^\n]*) \"\$0\" \"\$@\" #'''")
_PYTHON = re.compile(rb".*/python\d*(?:\.\d+)*", re.DOTALL)
_GOES_ON = re.compile(rb"[\w\x80-\xff-]|\.\w")
"""What follows a path where it is but the beginning of a name: that of ``/env`` in ``/env-old``."""

_BEGINS = re.compile(rb"(?<![\w\x80-\xff.-])|(?<=-[A-Z])")
"""Where a path may begin: not within another one, as in ``/usr/bin/env``; a flag may stand before it (``-I``)."""

_NAME = re.compile(rb"[\w\x80-\xff.-]*")
_PATH = re.compile(rb"[\w\x80-\xff./-]{0,200}")
_NULS = re.compile(rb"\0*")

MOST_WAYS = 256
"""So many ways are tried to tell what of a file the installer has put there, while its bytes, read so often, stay below
`MOST_BYTES`."""

MOST_BYTES = 64 << 20
_SURE_WAYS = 3
_PLACE_COST = 1000  # bytes that can be read while one place is looked at


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


def originals(data: bytes, placeholder: str, prefix: str, *, binary: bool) -> Iterator[bytes]:
    """What an installer may have made `data` of, the likeliest first.

    Where the package names the very prefix itself, it is not all of what names it that has been put there: then it is
    what is no part of a longer name, or else some of it. No more than `MOST_WAYS` are tried.
    """
    old = placeholder.encode()
    places = _places(data, old, prefix.encode(), binary=binary)
    cost = len(data) + _PLACE_COST * len(places)
    most = max(_SURE_WAYS, min(MOST_WAYS, MOST_BYTES // (cost + 1)))
    for way in itertools.islice(_ways(places, most), most):
        likely = _put_back(data, [place for place in places if place.start in way], old, len(prefix.encode()))
        yield likely
        if not binary:
            yield from _first_lines(likely, old)


def original_of(data: bytes, placeholder: str, prefix: str, sha256: str, *, binary: bool) -> bytes | None:
    """What an installer has made `data` of: the one of `originals` with that digest; None when there is none."""
    found = originals(data, placeholder, prefix, binary=binary)
    return next((one for one in found if digest_bytes(one) == sha256), None)


def likely_original(data: bytes, placeholder: str, prefix: str, *, binary: bool) -> bytes:
    """What stands for a file that has been changed since: the placeholder is where it names `prefix` as a whole path.

    One of `originals`.
    """
    old, new = placeholder.encode(), prefix.encode()
    places = [one for one in _places(data, old, new, binary=binary) if one.ends and (binary or one.begins)]
    return _put_back(data, places, old, len(new))


def names(data: bytes, prefix: str) -> bool:
    """Whether `data` has `prefix` or a path in it."""
    new = prefix.encode()
    return any(not _GOES_ON.match(data, found.end()) for found in re.finditer(re.escape(new), data))


class _Place(NamedTuple):
    """Where a prefix stands in a file. `end` is that of its C string, `room` the NULs that this can spare."""

    start: int
    begins: bool  # no name goes on there,
    ends: bool  # nor behind it
    rest: bytes  # the path that goes on there
    end: int = 0
    room: int = 0


def _places(data: bytes, old: bytes, new: bytes, *, binary: bool) -> list[_Place]:
    """Where an installer can have put `new` in the place of `old`."""
    longer = len(old) - len(new)
    if binary and longer < 0:
        return []
    found = []
    for match in re.finditer(re.escape(new), data):
        start, stop = match.span()
        begins = _BEGINS.match(data, start) is not None
        rest = _PATH.match(data, stop)
        place = _Place(start, begins, not _GOES_ON.match(data, stop), rest.group() if rest else b"")
        if binary:
            place = _in_string(data, place, stop)
            if place.room < longer:
                continue
        found.append(place)
    return found


def _in_string(data: bytes, place: _Place, stop: int) -> _Place:
    end = data.find(b"\0", stop)
    end = len(data) if end < 0 else end
    nuls = _NULS.match(data, end)
    behind = nuls.end() if nuls else end
    own = 0 if behind == len(data) else 1  # the last string may have no NUL
    return place._replace(end=end, room=behind - end - own)


def _ways(places: Sequence[_Place], most: int) -> Iterator[frozenset[int]]:
    """Which of them the installer may have put there, the likeliest first, none twice."""
    seen: set[frozenset[int]] = set()
    for way in _guesses(places, most):
        if way not in seen:
            seen.add(way)
            yield way


def _guesses(places: Sequence[_Place], most: int) -> Iterator[frozenset[int]]:
    yield frozenset(one.start for one in places)
    yield frozenset(one.start for one in places if one.ends)
    yield frozenset(one.start for one in places if one.ends and one.begins)
    for alike in (_name, _path):  # what is a part of one name, or of one path, is likely to be alike
        groups: dict[tuple[bool, bytes], list[int]] = {}
        for one in places:
            groups.setdefault(alike(one), []).append(one.start)
        yield from itertools.islice(_some(list(groups.values())), most // 3)
    yield from itertools.islice(_some([[one.start] for one in places]), most)


def _name(place: _Place) -> tuple[bool, bytes]:
    found = _NAME.match(place.rest)
    return place.begins, found.group() if found else b""


def _path(place: _Place) -> tuple[bool, bytes]:
    return place.begins, place.rest


def _some(groups: Sequence[Iterable[int]]) -> Iterator[frozenset[int]]:
    """All but one of the groups, one alone, all but two, two alone, and so on."""
    everything = frozenset(itertools.chain.from_iterable(groups))
    for number in range(1, len(groups) // 2 + 1):
        for few in itertools.combinations(groups, number):
            yield everything.difference(*few)
        for few in itertools.combinations(groups, number):
            yield frozenset(itertools.chain.from_iterable(few))
    yield frozenset()


def _put_back(data: bytes, places: Iterable[_Place], old: bytes, length: int) -> bytes:
    """`data` with `old` at these places, where so many bytes are not its own; a C string that has no room stays."""
    strings: dict[int, list[_Place]] = {}
    for place in places:
        strings.setdefault(place.end, []).append(place)
    pieces, done = [], 0
    for end, several in strings.items():
        padding = len(several) * (len(old) - length) if end else 0
        if end and padding > several[0].room:
            continue
        for place in several:
            pieces += [data[done : place.start], old]
            done = place.start + length
        if end:
            pieces.append(data[done:end])
            done = end + padding
    return b"".join([*pieces, data[done:]])


def _first_lines(likely: bytes, old: bytes) -> Iterator[bytes]:
    """The same with first lines in whose place an installer may have put the one that is there."""
    line = b""
    if (found := _EXEC.match(likely)) is not None:
        line = found["program"] + found["rest"]
    elif (found := _ENV.match(likely)) is not None:
        line = old + b"/bin/" + found["name"] + found["rest"]
    if found:
        yield from (mark + line + likely[found.end() :] for mark in (b"#!", b"#! "))


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
    """The NULs stand before the one that ends the string, or where the file ends, as rattler has it."""
    shorter = len(old) - len(new)

    def put(match: re.Match[bytes]) -> bytes:
        text = match.group()
        return text.replace(old, new) + b"\0" * (shorter * text.count(old))

    return re.sub(re.escape(old) + rb"[^\0]*", put, data)
