"""Bytecode that the client's interpreter has already: taken where that interpreter would load it itself."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import json
import marshal
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likewise.errors import LayerError
from likewise.layers import compiler
from likewise.layers.bytecode import Bytecode, compile_layers
from likewise.layers.content import read_content
from likewise.layers.pack import write_archive
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source

PYTHONS = sorted(Path(sys.base_prefix).parent.glob("3.1[0-9]*/bin/python3")) or [Path(sys.executable)]
CANARY = "canary-d1f7"
SOURCE, OTHER = b"answer = 'source'\n", b"answer = 'cached'\n"  # of one size
MAGIC = importlib.util.MAGIC_NUMBER

RICH = '''"""Doc."""
NAMES = {"a", "b", "c"}; TEXT = "ünïcode"; BIG = 2**70; ALL = (1.5, -0.0, 3j, b"bytes", None, ...)
def is_one(x): return x in {"alpha", "beta", "gamma", 1, (2, "x")}
class Outer:
    """A class."""
    table = [x * y for x in range(3) for y in range(x)]
    def method(self, /, a, *args, b=1, **kw):
        """Closures in closures."""
        try:
            return lambda: (a, b, self.__class__, [lambda: i for i in args])
        finally:
            del kw
async def agen(ünused=None):
    async with ünused as x:
        yield (y := x)
match NAMES:
    case {"a": 1, **rest}: assert rest
    case _: pass
'''

COMPARE = """
import importlib.util, json, marshal, sys
from types import CodeType

def plain(value):
    if isinstance(value, CodeType):
        names = [n for n in dir(value) if n.startswith("co_") and n != "co_lnotab"]
        fields = [getattr(value, n) for n in names]
        return [plain(list(f()) if callable(f) and n != "co_consts" else f)
                for n, f in zip(names, fields) if n not in ("replace", "_co_code_adaptive")]
    if isinstance(value, frozenset):
        return "set", sorted(repr(plain(one)) for one in value)
    if isinstance(value, (tuple, list)):
        return [plain(one) for one in value]
    return type(value), repr(value)

for source, name, pyc in json.load(sys.stdin):
    data, text = open(pyc, "rb").read(), open(source, "rb").read()
    assert data[:8] == importlib.util.MAGIC_NUMBER + b"\\1\\0\\0\\0" and data[8:16] == importlib.util.source_hash(text)
    one, other = marshal.loads(data[16:]), compile(text, name, "exec", dont_inherit=True)
    assert plain(one) == plain(other), name
    if sys.version_info >= (3, 11):  # sets are sorted; version 2 of the format has no references: same bytes
        assert marshal.dumps(one, 2) == marshal.dumps(other, 2), name
print("equal")
"""


def lay(site: Path, files: Mapping[str, bytes]) -> LayerSource:
    """A layer of modules that lie in `site`, each in its place."""
    sources = []
    for name, data in files.items():
        place = site / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        entry = FileEntry(path=f"purelib/{name}", sha256=digest_bytes(data), size=len(data))
        sources.append(SourceFile(entry=entry, path=str(place)))
    return layer_source(LayerKind.DISTRIBUTION, "sample", "1", sources)


def make(source: LayerSource, work: Path, python: Path | str = sys.executable) -> tuple[Bytecode, dict[str, bytes]]:
    """What `compile_layers` says, and layer path -> bytes of what it made."""
    made = compile_layers([source], python=str(python), work=work, jobs=1)
    layer = made.layers[source.digest]
    return made, {file.entry.path: b"".join(read_content(file, layer)) for file in layer.files}


def compile_all(site: Path, python: Path | str = sys.executable, *options: str) -> None:
    """Let `python` fill the ``__pycache__`` folders of `site`."""
    subprocess.run([python, "-m", "compileall", "-q", *options, site], check=True)


def pyc_of(module: Path) -> Path:
    """Where this interpreter keeps the bytecode of `module`."""
    return Path(importlib.util.cache_from_source(str(module)))


def answer_of(pyc: bytes) -> object:
    """What the module says of where it comes from."""
    scope: dict[str, object] = {}
    exec(marshal.loads(pyc[16:]), scope)
    return scope["answer"]


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parent.parent.name)
@pytest.mark.parametrize("mode", ["timestamp", "checked-hash"])
def test_what_is_taken_equals_what_would_be_compiled(python: Path, mode: str, tmp_path: Path) -> None:
    """Header, code, constants and file names are those of a fresh compilation, and no client path is in it."""
    library = Path(subprocess.check_output([python, "-c", "import os; print(os.__file__)"], text=True)).parent
    real = [library / "dataclasses.py", *sorted(library.glob("email/*.py"))]
    files = {f"lib/{path.relative_to(library)}": path.read_bytes() for path in real}
    made_up = {"rich.py": RICH.encode(), "pkg/__init__.py": b"", "latin.py": b"# coding: latin-1\nx = '\xe9'\n"}
    source = lay(tmp_path / CANARY, {**files, **made_up})
    compile_all(tmp_path / CANARY, python, "--invalidation-mode", mode)
    made, pycs = make(source, tmp_path / "work", python)
    assert (made.taken, made.compiled) == (len(source.files), 0)
    assert not any(CANARY.encode() in data for data in pycs.values())
    modules = {file.entry.path: file.path for file in source.files}
    rows = []
    for number, (path, data) in enumerate(pycs.items()):
        module = re.sub(r"__pycache__/(.*)\.[^.]+\.pyc$", r"\1.py", path)
        (tmp_path / f"{number}.pyc").write_bytes(data)
        rows.append((modules.pop(module), module.removeprefix("purelib/"), f"{tmp_path}/{number}.pyc"))
    assert modules == {}
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    argv = [python, "-W", "ignore", "-c", COMPARE]
    done = subprocess.run(argv, input=json.dumps(rows), env=environ, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr


def test_what_is_taken_is_read_when_it_is_packed(tmp_path: Path) -> None:
    """Nothing of it is written before; a pyc that is another by then is an error that names it."""
    source = lay(tmp_path / "site", {"one.py": b"x = 1\n", "two.py": b"x = 2\n"})
    compile_all(tmp_path / "site")
    layer = compile_layers([source], python=sys.executable, work=tmp_path / "work", jobs=1).layers[source.digest]
    assert list((tmp_path / "work").iterdir()) == []
    pyc = pyc_of(tmp_path / "site" / "two.py")
    pyc.write_bytes(pyc.read_bytes()[:16] + marshal.dumps(compile("x = 3", str(tmp_path / "site/two.py"), "exec")))
    with pytest.raises(LayerError, match=r"two.*pyc changed while it was being packed"):
        write_archive(layer, io.BytesIO())


@pytest.mark.skipif(sys.version_info[:2] not in ((3, 11), (3, 12)), reason="others compile to other bytes each time")
def test_what_is_taken_is_what_would_be_compiled_byte_for_byte(tmp_path: Path) -> None:
    """So an environment stays the same when its Python has cached more; but for what a process happens to intern."""
    source = lay(tmp_path / "site", {"rich.py": RICH.encode(), "empty.py": b"", "one.py": b"def f(x): return x\n"})
    compiled, before = make(source, tmp_path / "work")
    compile_all(tmp_path / "site")
    taken, after = make(source, tmp_path / "work")
    assert (compiled.taken, taken.compiled) == (0, 0)
    assert before == after


def cached(module: Path, head: bytes | None = None, *, code: object = None, name: str = "") -> Path:
    """Give `module` a pyc with other code than its own, by default one that its time and size make valid."""
    pyc = pyc_of(module)
    pyc.parent.mkdir(exist_ok=True)
    code = compile(OTHER, name or str(module), "exec") if code is None else code
    pyc.write_bytes((stamp(module) if head is None else head) + marshal.dumps(code))
    return pyc


def stamp(module: Path, *, later: int = 0, longer: int = 0, flags: int = 0) -> bytes:
    """The header of a pyc that goes with a time and a size."""
    status = module.stat()
    numbers = (flags, (int(status.st_mtime) + later) & 0xFFFFFFFF, status.st_size + longer)
    return MAGIC + b"".join(number.to_bytes(4, "little") for number in numbers)


def hashed(flags: int, source: bytes = SOURCE) -> bytes:
    """The header of a pyc that goes with a hash."""
    return MAGIC + flags.to_bytes(4, "little") + importlib.util.source_hash(source)


def linked(path: Path) -> None:
    """Put `path` somewhere else, and a link in its place."""
    path.rename(path.parents[1] / "elsewhere")
    path.symlink_to(path.parents[1] / "elsewhere")


def nested(module: Path) -> object:
    """Code that has code of another file in it."""
    inner = compile("1", "/home/somebody/else.py", "exec")
    outer = compile(OTHER, str(module), "exec")
    return outer.replace(co_consts=(*outer.co_consts, inner))


def telling(module: Path) -> object:
    """Code with the client's path in a constant that its source does not have."""
    return compile(OTHER + f"x = {str(module)!r}\n".encode(), str(module), "exec")


def fifo(module: Path) -> None:
    """A pyc that never ends."""
    pyc = cached(module)
    pyc.unlink()
    os.mkfifo(pyc)


TAKEN: dict[str, Callable[[Path], object]] = {
    "time and size": lambda m: cached(m),
    "checked hash": lambda m: cached(m, hashed(3)),
    "other time, right hash": lambda m: (cached(m, hashed(3)), os.utime(m, (1, 1))),
    "a time beyond 2106": lambda m: (os.utime(m, (2**32 + 5,) * 2), cached(m)),
    "garbage at the end": lambda m: cached(m).open("ab").write(b"garbage"),
    "read-only": lambda m: cached(m).chmod(0o400),
    "as open as the source": lambda m: (m.chmod(0o664), cached(m).chmod(0o664)),
    "of a folder that was moved": lambda m: cached(m, name="/home/somebody/site/mod.py"),
    "neutral already": lambda m: cached(m, name="mod.py"),
}
REFUSED: dict[str, Callable[[Path], object]] = {
    "none": lambda m: None,
    "older": lambda m: cached(m, stamp(m, later=-1)),
    "younger": lambda m: cached(m, stamp(m, later=1)),
    "shorter": lambda m: cached(m, stamp(m, longer=-1)),
    "unchecked hash": lambda m: cached(m, hashed(1)),
    "wrong hash": lambda m: cached(m, hashed(3, OTHER)),
    "flag 2": lambda m: cached(m, stamp(m, flags=2)),
    "flag 4": lambda m: cached(m, stamp(m, flags=4)),
    "other magic": lambda m: cached(m, b"\x01\x02\r\n" + stamp(m)[4:]),
    "empty": lambda m: cached(m).write_bytes(b""),
    "header only": lambda m: cached(m).write_bytes(stamp(m)),
    "truncated": lambda m: os.truncate(cached(m), 60),
    "not marshalled": lambda m: cached(m).write_bytes(stamp(m) + b"\xff" * 50),
    "not code": lambda m: cached(m, code=(1, "x")),
    "a link": lambda m: linked(cached(m)),
    "a linked folder": lambda m: linked(cached(m).parent),
    "a pipe": fifo,
    "a folder": lambda m: pyc_of(m).mkdir(parents=True),
    "optimized": lambda m: cached(m).rename(pyc_of(m).with_suffix(".opt-1.pyc")),
    "beside the source": lambda m: cached(m).rename(m.with_suffix(".pyc")),
    "writable by the group": lambda m: cached(m).chmod(0o664),
    "writable by all": lambda m: cached(m).chmod(0o646),
    "in a folder writable by all": lambda m: cached(m).parent.chmod(0o777),
    "two files": lambda m: cached(m, code=nested(m)),
    "the path in a constant": lambda m: cached(m, code=telling(m)),
}


def taken_from(tmp_path: Path, prepare: Callable[[Path], object]) -> object:
    """Whether the module says "cached" or "source" after `prepare`; checks what else is shipped."""
    source = lay(tmp_path / CANARY, {"mod.py": SOURCE})
    module = Path(source.files[0].path)
    module.chmod(0o644)
    prepare(module)
    made, pycs = make(source, tmp_path / "work")
    (data,) = pycs.values()
    code = marshal.loads(data[16:])
    assert data[:16] == hashed(1)
    assert code.co_filename == "mod.py"
    stream = io.BytesIO(data[16:])
    assert marshal.load(stream) == code and not stream.read()
    assert not any(word in data for word in (CANARY.encode(), b"somebody", b"garbage"))
    answer = answer_of(data)
    assert (made.taken, made.compiled) == ((1, 0) if answer == "cached" else (0, 1))
    return answer


@pytest.mark.parametrize("case", TAKEN)
def test_what_the_interpreter_would_load_is_taken(tmp_path: Path, case: str) -> None:
    """Its time and size, or its checked hash, are the source's; its file name and nothing else is replaced."""
    assert taken_from(tmp_path, TAKEN[case]) == "cached"


def test_nothing_but_the_name_is_replaced(tmp_path: Path) -> None:
    """Behind the header, the bytes are those that the interpreter wrote, with one name instead of another."""
    source = lay(tmp_path / CANARY, {"rich.py": RICH.encode()})
    compile_all(tmp_path / CANARY)
    place = source.files[0].path.encode()
    before, _, after = pyc_of(Path(source.files[0].path)).read_bytes()[16:].partition(bytes([len(place)]) + place)
    (data,) = make(source, tmp_path / "work")[1].values()
    assert data[16:] == before + b"\x07rich.py" + after
    assert place not in after


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_would_not_load_or_others_can_change_is_compiled(tmp_path: Path, case: str) -> None:
    """Neither what is stale, damaged or unchecked, nor what is linked, is somebody else's, or names the client."""
    assert taken_from(tmp_path, REFUSED[case]) == "source"


@pytest.mark.root
@pytest.mark.parametrize("place", [lambda m: pyc_of(m), lambda m: pyc_of(m).parent], ids=["file", "folder"])
def test_what_belongs_to_somebody_else_is_compiled(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    """A pyc, or a ``__pycache__``, that has another owner than the source."""

    def give_away(module: Path) -> None:
        cached(module)
        os.chown(place(module), 12345, 12345)

    assert taken_from(tmp_path, give_away) == "source"


def test_a_cache_in_another_place_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PYTHONPYCACHEPREFIX the interpreter doesn't load from beside the source, so nothing is taken from there."""
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "other"))
    assert taken_from(tmp_path, cached) == "source"


def test_only_what_is_missing_is_compiled(tmp_path: Path) -> None:
    """Of many modules, those that were imported are taken, the others compiled."""
    source = lay(tmp_path / "site", {f"m{i}.py": SOURCE for i in range(250)})
    for file in source.files[::3]:
        cached(Path(file.path))
    told: list[int] = []
    made = compile_layers([source], python=sys.executable, work=tmp_path / "work", jobs=2, progress=told.append)
    assert (made.taken, made.compiled, sum(told)) == (84, 166, 250)


@st.composite
def sources(draw: st.DrawFn) -> str:
    """Modules whose constants look like what is replaced in them, and like what is looked for to find it."""
    words = [PLACE, PLACE[:-3], "/client/site/", "mod.py", "<module>", "", "x" * 300, "ä", PLACE.replace("c", "\\x63")]
    constants = draw(st.lists(st.sampled_from(words), max_size=5))
    raw = draw(st.lists(st.sampled_from(["z", "\\xda\\x13" + PLACE, "r\\0\\0\\0\\0"]), max_size=2))
    name = draw(st.sampled_from(["f", "módule", "f" * 300]))
    lines = [f"x{i} = '{word}'" for i, word in enumerate(constants)] + [f"y{i} = b'{w}'" for i, w in enumerate(raw)]
    inner = draw(
        st.sampled_from(["pass", "return lambda: __file__", "class A:\n  b = [c for c in ()]", "raise ValueError"])
    )
    lines.append(f"def {name}():\n {inner}" if draw(st.booleans()) else "z = 1")
    return "\n".join(draw(st.permutations(lines)))


PLACE = "/client/site/mod.py"


@given(sources(), st.sampled_from([PLACE, "/client/site/other.py", "mod.py", "/client/site/" + "x" * 300 + ".py"]))
@settings(max_examples=300, deadline=None)
def test_renaming_in_place_is_unmarshalling_and_renaming(text: str, before: str) -> None:
    """Whatever the constants are: what is renamed in the bytes is the code that importlib's own renaming gives."""
    pyc = bytes(16) + marshal.dumps(compile(text, before, "exec"))
    piece = compiler.renamed(pyc, PLACE, "mod.py")
    if piece is not None:
        start, stop, instead = piece
        made = pyc[16:start] + instead + pyc[stop:]
        assert marshal.dumps(marshal.loads(made), 2) == marshal.dumps(compile(text, "mod.py", "exec"), 2)
        assert made.count(b"/client") == 0
    elif before == PLACE:
        assert pyc.count(b"/client/site/") > 1  # any other one is renamed in place


class Loader(importlib.machinery.SourceFileLoader):
    """importlib's own, which says whether it had to compile."""

    compiled = False

    def source_to_code(self, data, path, *, _optimize=-1):  # type: ignore[no-untyped-def, override]
        """Compile, and remember that."""
        self.compiled = True
        return super().source_to_code(data, path)


def importlib_takes(module: Path) -> bool:
    """Whether this interpreter loads the pyc of `module`; an error is a no."""
    loader = Loader("mod", str(module))
    try:
        loader.get_code("mod")
    except Exception:
        return False
    return not loader.compiled


def good_pycs(module: Path) -> st.SearchStrategy[bytes]:
    """Bytes of a pyc with a few bytes of its beginning changed, or cut off."""
    code = marshal.dumps(compile(OTHER, str(module), "exec"))
    heads = st.sampled_from(
        [stamp(module), hashed(3), stamp(module, later=1), hashed(3, OTHER), stamp(module, flags=2)]
    )
    change = st.tuples(st.integers(0, 15), st.integers(0, 255))
    return st.builds(changed, heads.map(lambda head: head + code), st.lists(change, max_size=2), st.integers(0, 60))


def changed(data: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    """`data` with some bytes changed, and a few at its end cut off when `cut` is small."""
    mutable = bytearray(data)
    for place, value in changes:
        mutable[place] = value
    return bytes(mutable[: len(data) - cut] if cut < 20 else mutable)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_taken_only_where_importlib_takes_it(tmp_path: Path, data: st.DataObject) -> None:
    """For any header and any cut: taken means that importlib takes it, and its flags are none or a checked hash."""
    module = tmp_path / "mod.py"
    module.write_bytes(SOURCE)
    os.utime(module, (1_700_000_000, 1_700_000_000))
    pyc = pyc_of(module)
    pyc.parent.mkdir(exist_ok=True)
    pyc.write_bytes(data.draw(good_pycs(module)))
    found = compiler.find(str(module), SOURCE, module.stat(), "mod.py")
    flags = int.from_bytes(pyc.read_bytes()[4:8], "little")
    assert (found is not None) == (importlib_takes(module) and flags in (0, 3))
