"""Makes bytecode. Runs *inside* the environment's own interpreter, so it needs the standard library alone.

`likewise.layers.bytecode` hands this file's source to that interpreter (``python -c``), which may be any Python from
3.10 on and has never heard of likewise. It says its cache tag and magic number in a first line, then reads one JSON
line per batch, ``[[path, sha256, name], …]``, and answers with lines that are lists, one item for each file: a word,
or ``[sha256, size, taken, where]`` of a pyc. Where is its offset in the file named by the argument, to which it was
appended: all lie in one file because creating and removing thousands of them takes longer than writing what is in them.
Or it is what makes it of a file that is there, ``[path, head, start, stop, instead]``, bytes as hexadecimal digits (see
`likewise.model.layer.Change`): then nothing is written at all.

A line may also be a text, a folder: until it is through or the next line comes, it looks there for modules whose
bytecode will be wanted, and says ``[sha256, size, taken, where, name, sha256 of the source]`` of each that it can
take. An empty list ends that.

Bytecode that this interpreter has made before is *taken* rather than made again; which, says `find`. That is not
trust in strangers: what it would load for a source is what the user already runs. Only the name of the file is replaced
in it: in the bytes, where they leave no doubt which ones it is, else by unmarshalling all of it.

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
import select
import signal
import stat
import struct
import sys
import time
from types import CodeType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

TAG = sys.implementation.cache_tag or ""
MAGIC = importlib.util.MAGIC_NUMBER
HEADER = 16  # bytes: magic, flags, then mtime and size or a hash (PEP 552)
UNCHECKED = (1).to_bytes(4, "little")
CHECKED = (3).to_bytes(4, "little")
# The types of objects in marshal's format, and what stands in it after the file name of code: its name, from 3.11 on
# its qualified name, the first line in four bytes, the line table, and from 3.11 on the exception table.
SHARED = 0x80
REFERENCE = ord("r")
SHORT = b"zZ"  # ASCII, the length in one byte
STRINGS, BYTES = b"zZaAut", b"s"
FOLLOWING = (STRINGS, STRINGS, b"", BYTES, BYTES) if sys.version_info >= (3, 11) else (STRINGS, b"", BYTES)
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
SECONDS = 0.05  # between two answers
SUITES = frozenset({"test", "tests"})  # folders whose modules get no bytecode


def serve() -> None:
    """Answer batches until the end of the input."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    gc.freeze()
    with open(sys.argv[1], "xb") as out:
        say([TAG, MAGIC.hex()])
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if isinstance(request, str):
                tell(look(request, out))
                say([])
            else:
                tell(answer(path, sha256, name, out) for path, sha256, name in request)
            gc.collect()


def tell(answers: Iterable[object]) -> None:
    """Write `answers`, several in a line, and none much later than it was found."""
    ready: list[object] = []
    said = time.monotonic()
    for one in answers:
        ready.append(one)
        if time.monotonic() - said > SECONDS:
            say(ready)
            ready, said = [], time.monotonic()
    if ready:
        say(ready)


def say(value: object) -> None:
    """Write one line."""
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


def answer(path: str, sha256: str, name: str, out: BinaryIO) -> object:
    """Append the pyc of one source to `out`: its sha256, place and size, whether it was taken; else why there is none.

    PEP 552: a hash-based pyc that is not checked against its source, because the layer's digest has been.
    """
    try:
        source, status = read(path)
        if hashlib.sha256(source).hexdigest() != sha256:
            return "changed"
        taken = find(path, source, status, name)
        if taken:
            return taken.told(source, out)
        try:
            code = make(source, name)
        except Exception:  # Python 2, templates, deliberately broken test data, too deeply nested
            return "skipped"
        return append(header(source) + code, out, taken=False)
    except OSError as error:
        return f"{error.filename or out.name}: {error.strerror}"


def header(source: bytes) -> bytes:
    """The header of the bytecode of `source`."""
    return MAGIC + UNCHECKED + importlib.util.source_hash(source)


def append(data: bytes, out: BinaryIO, *, taken: bool) -> list[object]:
    """Write a pyc; what is said of it."""
    offset = out.tell()
    out.write(data)
    out.flush()
    return [hashlib.sha256(data).hexdigest(), len(data), taken, offset]


class Taken:
    """Bytecode that this interpreter has made before.

    Parameters
    ----------
    code : bytes
        The marshalled code.
    path : str
        The pyc, if its bytes are the code's but for a piece that was replaced; else "".
    start, stop : int
        Where that was in it.
    instead : bytes
        What stands there in the code.
    """

    def __init__(self, code: bytes, path: str = "", start: int = 0, stop: int = 0, instead: bytes = b"") -> None:
        self.code, self.path, self.start, self.stop, self.instead = code, path, start, stop, instead

    def told(self, source: bytes, out: BinaryIO) -> list[object]:
        """What is said of it, the bytecode of `source`; it is written where it has to be."""
        head = header(source)
        data = head + self.code
        if not self.path:
            return append(data, out, taken=True)
        where = [self.path, head.hex(), self.start, self.stop, self.instead.hex()]
        return [hashlib.sha256(data).hexdigest(), len(data), True, where]


def look(root: str, out: BinaryIO) -> Iterator[object]:
    """Take what can be taken of the modules beneath `root`, as long as nothing else is asked."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name not in SUITES)
        for file in sorted(files) if is_safe_folder(folder) else ():
            if select.select([0], [], [], 0)[0]:
                return
            if file.endswith(".py"):
                yield from glance(f"{folder}/{file}", f"{folder}/{file}"[len(root) + 1 :], out)


def glance(path: str, name: str, out: BinaryIO) -> Iterator[object]:
    """As `answer`, for a source of which nothing is known; nothing unless its bytecode can be taken."""
    try:
        source, status = read(path)
        taken = find(path, source, status, name)
    except OSError:
        return
    if taken:
        try:
            yield [*taken.told(source, out), name, hashlib.sha256(source).hexdigest()]
        except OSError as error:
            yield f"{out.name}: {error.strerror}"


def make(source: bytes, name: str) -> bytes:
    """Compile `source`; its code, marshalled."""
    code = [compile(source, name, "exec", dont_inherit=True, optimize=0)]
    return marshal.dumps(code[0])  # which has another owner, as where importlib does it: marshal notes what has two


def find(path: str, source: bytes, status: os.stat_result, name: str) -> Taken | None:
    """The code of the pyc that this interpreter would load for `source`, renamed; None without one.

    The pyc has to lie in the real ``__pycache__`` beside the source, be no link, belong to the source's owner and be
    writable by nobody who can't write the source; `is_valid` says which headers do.
    """
    folder, _, file = path.rpartition("/")
    try:
        if not file.endswith(".py") or not is_safe_folder(folder):
            return None
        place = f"{folder}/__pycache__/{file[:-3]}.{TAG}.pyc"
        pyc, cached = read(place, os.O_NOFOLLOW)
        if not is_as_safe(cached, status) or not is_valid(pyc, source, status):
            return None
        if piece := renamed(pyc, path, name):
            start, stop, instead = piece
            return Taken(b"".join((pyc[HEADER:start], instead, pyc[stop:])), place, start, stop, instead)
        made = remarshalled(pyc, source, path, name)
        return Taken(made) if made else None
    except Exception:  # not there, not readable, not marshal's, not code: Python would compile, or fail
        return None


@functools.lru_cache(maxsize=64)
def is_safe_folder(folder: str) -> bool:
    """Whether Python loads from a real ``__pycache__`` in `folder` that is in the hands of nobody else."""
    cache = f"{folder}/__pycache__"
    if importlib.util.cache_from_source(f"{folder}/x.py") != f"{cache}/x.{TAG}.pyc":  # PYTHONPYCACHEPREFIX
        return False
    try:
        status = os.lstat(cache)
    except OSError:
        return False
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
    return pyc[4:HEADER] == struct.pack("<III", 0, int(status.st_mtime) & 0xFFFFFFFF, len(source) & 0xFFFFFFFF)


def renamed(pyc: bytes, path: str, name: str) -> tuple[int, int, bytes] | None:
    """What puts `name` in the place of `path` in the code of `pyc`: the piece from where to where is replaced, and by
    what. Found without unmarshalling it; None where that is not surely right.

    All code of a module shares one file name, which marshal writes once. It is surely that if it is the only thing in
    the pyc that names its root, what follows it is what follows the file name of code, and the code of the module,
    which ends where the pyc does, names that file or refers to an earlier object. A pyc with damage in its middle stays
    as it is: this interpreter can't load it either.
    """
    old, new = os.fsencode(path), os.fsencode(name)
    root = old[: -len(new)]
    at = pyc.find(root)
    end = at + len(old)
    module = pyc.rfind(b"<module>") - 2
    if len(root) < 2 or min(at, module) < HEADER or not pyc.startswith(old, at) or pyc.find(root, at + 1) >= 0:
        return None
    kind, length = pyc[at - 2 : at]
    if kind & ~SHARED not in SHORT or length != len(old) or len(new) > 255 or not name.isascii():
        return None
    refers = kind & SHARED and pyc[module - 5] == REFERENCE and HEADER < end_of_code(pyc, end) < module
    if end_of_code(pyc, module) != len(pyc) or not (refers or end == module):
        return None
    return at - 1, end, bytes((len(new),)) + new


def end_of_code(pyc: bytes, at: int) -> int:
    """Where the code ends whose file name ends at `at`: after its names, first line and tables; -1 if it is none."""
    try:
        for kinds in FOLLOWING:
            kind = pyc[at] & ~SHARED
            if not kinds:
                at += 4
            elif kind == REFERENCE:
                at += 5
            elif kind not in kinds:
                return -1
            elif kind in SHORT:
                at += 2 + pyc[at + 1]
            else:
                at += 5 + int.from_bytes(pyc[at + 1 : at + 5], "little")
    except IndexError:
        return -1
    return at


def remarshalled(pyc: bytes, source: bytes, path: str, name: str) -> bytes | None:
    """The code in `pyc`, unmarshalled, renamed as importlib renames it, and marshalled again.

    `code.replace` would lose which variables are hidden (3.12). Code of several files is not used, nor code that names
    the source's folder in something else than its file name although the source does not.
    """
    code = marshal.loads(memoryview(pyc)[HEADER:])
    before = code.co_filename
    _imp._fix_co_filename(code, name)  # type: ignore[attr-defined]  # what importlib calls
    if not is_named(code, name):
        return None
    made = marshal.dumps(code)
    folders = {os.fsencode(os.path.dirname(place)) for place in (before, path)} - {b"", b"/"}
    return None if any(folder in made and folder not in source for folder in folders) else made


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
        while len(data) != status.st_size and (piece := os.read(descriptor, 1 << 20)):
            data += piece
    finally:
        os.close(descriptor)
    return data, status
