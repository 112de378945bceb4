"""Makes bytecode. Runs *inside* the environment's own interpreter, so it needs the standard library alone.

`likewise.layers.bytecode` hands this file's source to that interpreter (``python -c``), which may be any Python from
3.10 on and has never heard of likewise. It says its cache tag and magic number in a first line, then reads one JSON
line per batch, ``[[path, sha256, name, target], …]``, and answers with lines that are lists, one item for each file:
``[sha256, size, taken]``, or a word.

Bytecode that this interpreter has made before is *taken* rather than made again; which, says `find`. That is not
trust in strangers: what it would load for a source is what the user already runs. Taken bytecode is unmarshalled,
renamed by what importlib itself uses to rename it, and marshalled again, so that nothing of the file is passed on
unread. `code.replace` would lose which variables are hidden (3.12), and a search for the path in the bytes could take
a constant for a file name.

The caller sets ``PYTHONHASHSEED=0``, since marshal writes sets in the order of their hashes before 3.11. With 3.11 and
3.12 what is compiled then depends on source and name alone (measured over W160, in two orders); with 3.10 and 3.13.0 a
few files differ in what else the process has interned. What is taken may differ in which of its objects are shared.
"""

from __future__ import annotations

import _imp
import errno
import functools
import gc
import hashlib
import importlib.util
import json
import marshal
import os
import signal
import stat
import sys
import time
from types import CodeType

MAGIC = importlib.util.MAGIC_NUMBER
HEADER = 16  # bytes: magic, flags, then mtime and size or a hash (PEP 552)
UNCHECKED = (1).to_bytes(4, "little")
CHECKED = (3).to_bytes(4, "little")
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
SECONDS = 0.05  # between two answers


def serve() -> None:
    """Answer batches until the end of the input."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    gc.freeze()
    say([sys.implementation.cache_tag or "", MAGIC.hex()])
    for line in sys.stdin.buffer:
        answers: list[object] = []
        said = time.monotonic()
        for path, sha256, name, target in json.loads(line):
            answers.append(answer(path, sha256, name, target))
            if time.monotonic() - said > SECONDS:
                say(answers)
                answers, said = [], time.monotonic()
        if answers:
            say(answers)
        gc.collect()


def say(value: object) -> None:
    """Write one line."""
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


def answer(path: str, sha256: str, name: str, target: str) -> object:
    """Write the pyc of one source to `target`: its sha256 and size, and whether it was taken; else why there is none.

    PEP 552: a hash-based pyc that is not checked against its source, because the layer's digest has been.
    """
    try:
        source, status = read(path)
        if hashlib.sha256(source).hexdigest() != sha256:
            return "changed"
        taken = find(path, source, status, name)
        try:
            code = taken or make(source, name)
        except Exception:  # Python 2, templates, deliberately broken test data, too deeply nested
            return "skipped"
        data = MAGIC + UNCHECKED + importlib.util.source_hash(source) + code
        write(target, data)
    except OSError as error:
        return f"{error.filename or target}: {error.strerror}"
    return [hashlib.sha256(data).hexdigest(), len(data), taken is not None]


def make(source: bytes, name: str) -> bytes:
    """Compile `source`; its code, marshalled."""
    return marshal.dumps(compile(source, name, "exec", dont_inherit=True, optimize=0))


def find(path: str, source: bytes, status: os.stat_result, name: str) -> bytes | None:
    """The code of the pyc that this interpreter would load for `source`, renamed and marshalled; None without one.

    The pyc has to lie in the real ``__pycache__`` beside the source, be no link, belong to the source's owner and be
    writable by nobody who can't write the source; `is_valid` says which headers do. One that names the source's folder
    although the source does not has kept it somewhere else than in its file names: it is not used.
    """
    try:
        pyc = importlib.util.cache_from_source(path)
        if not is_safe_folder(os.path.dirname(pyc), os.path.dirname(path)):
            return None
        data, cached = read(pyc, os.O_NOFOLLOW)
        if not is_as_safe(cached, status) or not is_valid(data, source, status):
            return None
        code = marshal.loads(memoryview(data)[HEADER:])
        before = code.co_filename
        _imp._fix_co_filename(code, name)  # type: ignore[attr-defined]  # what importlib calls
        if not is_named(code, name):
            return None
        marshalled = marshal.dumps(code)
    except Exception:  # not there, not readable, not marshal's, not code: Python would compile, or fail
        return None
    folders = {os.fsencode(os.path.dirname(place)) for place in (before, path)} - {b"", b"/"}
    return None if any(folder in marshalled and folder not in source for folder in folders) else marshalled


@functools.lru_cache(maxsize=64)
def is_safe_folder(cache: str, folder: str) -> bool:
    """Whether `cache` is the real ``__pycache__`` of `folder`, and in the hands of nobody else."""
    if cache != os.path.join(folder, "__pycache__"):  # PYTHONPYCACHEPREFIX
        return False
    status = os.lstat(cache)
    return stat.S_ISDIR(status.st_mode) and is_as_safe(status, os.stat(folder))


def is_as_safe(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether `one` has the owner of `other`, and nobody can write it who can't write the other."""
    return one.st_uid == other.st_uid and not one.st_mode & ~other.st_mode & OTHERS_WRITE


def is_valid(pyc: bytes, source: bytes, status: os.stat_result) -> bool:
    """Whether importlib would find that `pyc` belongs to `source`, by its time and size or by its hash.

    An unchecked hash is no reason: importlib would believe it, but the source may have changed since.
    """
    if pyc[:4] != MAGIC or len(pyc) <= HEADER:
        return False
    if pyc[4:8] == CHECKED:
        return pyc[8:HEADER] == importlib.util.source_hash(source)
    numbers = (int(status.st_mtime) & 0xFFFFFFFF, len(source) & 0xFFFFFFFF)
    return pyc[4:HEADER] == b"".join(number.to_bytes(4, "little") for number in (0, *numbers))


def is_named(code: CodeType, name: str) -> bool:
    """Whether `code` and all code in it say that they are from the file `name`."""
    return code.co_filename == name and all(is_named(one, name) for one in code.co_consts if isinstance(one, CodeType))


def read(path: str, flags: int = 0) -> tuple[bytes, os.stat_result]:
    """The content of a regular file and its stat."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        data = os.read(descriptor, status.st_size + 1)
        while piece := os.read(descriptor, 1 << 20):
            data += piece
    finally:
        os.close(descriptor)
    return data, status


def write(target: str, data: bytes) -> None:
    """Write a new file, in a new folder if need be."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(data)
