"""Bytecode layers: compiled from the layer's own sources by the environment's interpreter."""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType

import pytest

from likewise.errors import LayerError
from likewise.layers.bytecode import compile_layers, count_modules, remove_compiled
from likewise.layers.content import read_content
from likewise.layers.pack import write_archive
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from support.layers import make_source, read_archive

TAG = sys.implementation.cache_tag
LAYER = layer_source(LayerKind.BYTECODE, "sample", "1", [])  # for messages
MAKE = "def make(source: bytes, name: str) -> bytes:"


def content(file: SourceFile) -> bytes:
    """The bytes of a file of a bytecode layer."""
    return b"".join(read_content(file, LAYER))


def compiled(source: LayerSource, work: Path, python: str = sys.executable, jobs: int = 1) -> dict[str, bytes]:
    """Path -> bytes of the bytecode layer of `source`, each checked against its entry."""
    layer = compile_layers([source], python=python, work=work, jobs=jobs).layers[source.digest]
    found = {}
    for file in layer.files:
        data = content(file)
        assert (digest_bytes(data), len(data)) == (file.entry.sha256, file.entry.size)
        found[file.entry.path] = data
    assert (layer.kind, layer.name, layer.version) == (LayerKind.BYTECODE, source.name, source.version)
    return found


def code_of(pyc: bytes) -> CodeType:
    """The code in a pyc."""
    code = marshal.loads(pyc[16:])
    assert isinstance(code, CodeType)
    return code


def test_every_importable_module_is_compiled_and_nothing_else(tmp_path: Path) -> None:
    """Site-packages, loose code and the interpreter's library; no scripts, no data, no links."""
    files = {
        "purelib/sample/__init__.py": b"x = 1\n",
        "purelib/top.py": b"",
        "purelib/sample/data.txt": b"x",
        "purelib/sample/stub.pyi": b"x: int\n",
        "code/project/pkg/mod.py": b"y = 2\n",
        "interpreter/lib/python3.11/os.py": b"z = 3\n",
        "interpreter/lib/other.py": b"",
        "scripts/tool.py": b"",
        "data/share/x.py": b"",
        "headers/h.py": b"",
        "native/n.py": b"",
    }
    source = make_source(tmp_path / "s", files, links={"purelib/sample/link.py": "__init__.py"})
    names = {path: code_of(pyc).co_filename for path, pyc in compiled(source, tmp_path / "w").items()}
    assert names == {
        f"purelib/sample/__pycache__/__init__.{TAG}.pyc": "sample/__init__.py",
        f"purelib/__pycache__/top.{TAG}.pyc": "top.py",
        f"code/project/pkg/__pycache__/mod.{TAG}.pyc": "pkg/mod.py",
        f"interpreter/lib/python3.11/__pycache__/os.{TAG}.pyc": "os.py",
    }
    assert count_modules([source]) == 4


def test_test_suites_get_none(tmp_path: Path) -> None:
    """Whatever lies in a folder ``test`` or ``tests``; a module of that name is none."""
    files = {
        "purelib/sample/__init__.py": b"",
        "purelib/sample/tests.py": b"a = 1\n",
        "purelib/sample/testing/__init__.py": b"b = 1\n",
        "purelib/sample/tests/__init__.py": b"c = 1\n",
        "purelib/sample/core/test/deep/case.py": b"d = 1\n",
        "purelib/tests/__init__.py": b"e = 1\n",
    }
    source = make_source(tmp_path / "s", files)
    names = {code_of(pyc).co_filename for pyc in compiled(source, tmp_path / "w").values()}
    assert names == {"sample/__init__.py", "sample/tests.py", "sample/testing/__init__.py"}
    assert count_modules([source]) == 3


def test_python_imports_it_without_looking_at_the_source(tmp_path: Path) -> None:
    """PEP 552, unchecked: it is used as it is, and tracebacks show the place where the source really lies."""
    source = make_source(tmp_path / "s", {"purelib/mod.py": b"def f():\n    return __file__\nanswer = 42\n"})
    ((path, pyc),) = compiled(source, tmp_path / "w").items()
    assert pyc[:4] == importlib.util.MAGIC_NUMBER
    assert pyc[4:8] == b"\x01\0\0\0"
    assert pyc[8:16] == importlib.util.source_hash(b"def f():\n    return __file__\nanswer = 42\n")
    site = tmp_path / "site"
    (site / "__pycache__").mkdir(parents=True)
    (site / "mod.py").write_text("answer = 'the source was read'\n")
    Path(importlib.util.cache_from_source(str(site / "mod.py"))).write_bytes(pyc)
    script = "import mod; print(mod.answer, mod.f.__code__.co_filename)"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["42", str(site / "mod.py")]
    assert path == f"purelib/__pycache__/mod.{TAG}.pyc"


def test_what_does_not_compile_is_left_out(tmp_path: Path) -> None:
    """Python 2, unknown encodings, NULs, deep nesting; warnings are not shown either."""
    files = {
        "purelib/python2.py": b"print 'hello'\n",
        "purelib/encoding.py": b"# -*- coding: nonsense -*-\n",
        "purelib/latin.py": b"x = '\xe9'\n",
        "purelib/nul.py": b"x = 1\0\n",
        "purelib/deep.py": b"(" * 5000 + b")" * 5000,
        "purelib/template.py": b"{{ cookiecutter.name }} = \n",
        "purelib/warns.py": b"x = '\\d' is 'y'\n",
        "purelib/declared.py": b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
    }
    found = compiled(make_source(tmp_path / "s", files), tmp_path / "w")
    assert set(found) == {f"purelib/__pycache__/{name}.{TAG}.pyc" for name in ("warns", "declared")}


def test_a_layer_without_modules_has_no_bytecode(tmp_path: Path) -> None:
    """Nor one whose only module does not compile; without any module no interpreter is started."""
    nothing = make_source(tmp_path / "1", {"purelib/a.txt": b""})
    broken = make_source(tmp_path / "2", {"purelib/a.py": b"print 'x'"})
    assert compile_layers([nothing], python="/nowhere/python", work=tmp_path / "w").layers == {}
    assert compile_layers([nothing, broken], python=sys.executable, work=tmp_path / "w").layers == {}


def test_neither_order_nor_jobs_nor_variables_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sets of strings come out in one order, docstrings and asserts stay, whatever PYTHON* variables say."""
    text = '"""Doc {0}."""\ndef f{0}(x):\n    """Inner."""\n    assert x\n    return x in {{"a{0}", "b", "c", "d"}}\n'
    sources = [
        make_source(tmp_path / str(n), {f"purelib/m{n}_{i}.py": text.format(i).encode() for i in range(30)})
        for n in range(3)
    ]
    first = compile_layers(sources, python=sys.executable, work=tmp_path / "w1", jobs=1).layers
    for name, value in {"PYTHONHASHSEED": "77", "PYTHONOPTIMIZE": "2", "PYTHONHOME": "/nowhere"}.items():
        monkeypatch.setenv(name, value)
    second = compile_layers(sources[::-1], python=sys.executable, work=tmp_path / "w2", jobs=3).layers
    assert {k: v.digest for k, v in first.items()} == {k: v.digest for k, v in second.items()}
    pyc = content(second[sources[0].digest].files[0])
    assert code_of(pyc).co_consts[0] == "Doc 0."


def test_a_file_that_two_layers_own_has_one_bytecode(tmp_path: Path) -> None:
    """It is compiled once for both."""
    shared = {"purelib/both/__init__.py": b"x = 1\n"}
    one = make_source(tmp_path / "1", {**shared, "purelib/one.py": b""}, name="one")
    two = make_source(tmp_path / "2", {**shared, "purelib/two.py": b""}, name="two")
    told: list[int] = []
    layers = compile_layers([one, two], python=sys.executable, work=tmp_path / "w", progress=told.append).layers
    path = f"purelib/both/__pycache__/__init__.{TAG}.pyc"
    assert len({f for layer in layers.values() for f in layer.files if f.entry.path == path}) == 1
    assert sum(told) == 3


def test_modules_made_in_memory_are_compiled(tmp_path: Path) -> None:
    """Such as a patched _sysconfigdata."""
    entry = FileEntry(path="purelib/made.py", sha256=digest_bytes(b"made = 7\n"), size=9)
    source = layer_source(LayerKind.INTERPRETER, "python", "3", [SourceFile(entry=entry, data=b"made = 7\n")])
    (pyc,) = compiled(source, tmp_path / "w").values()
    assert 7 in code_of(pyc).co_consts


def test_a_source_that_changed_or_vanished_is_an_error(tmp_path: Path) -> None:
    """Bytecode is always that of the layer's own content."""
    source = make_source(tmp_path / "s", {"purelib/mod.py": b"x = 1\n"})
    place = Path(source.files[0].path)
    place.write_bytes(b"x = 2\n")
    with pytest.raises(LayerError, match="changed while it was being compiled"):
        compile_layers([source], python=sys.executable, work=tmp_path / "w")
    place.unlink()
    with pytest.raises(LayerError, match="No such file"):
        compile_layers([source], python=sys.executable, work=tmp_path / "w")


def test_an_interpreter_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    """One that is not there, and one that ends at once; the error names it."""
    source = make_source(tmp_path / "s", {"purelib/mod.py": b"x = 1\n"})
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    for python, reason in ((tmp_path / "nowhere", "No such file"), (broken, "exited with 3")):
        with pytest.raises(LayerError, match=reason) as caught:
            compile_layers([source], python=str(python), work=tmp_path / "w", jobs=2)
        assert caught.value.where == str(python)


def wrapper(path: Path, body: str) -> str:
    """An interpreter like this one, except that `body` runs before it compiles `source`."""
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "argv = sys.argv[1:]\n"
        f"argv[-2] = argv[-2].replace({MAKE!r}, {MAKE!r} + '\\n    ' + {body!r})\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *argv])\n"
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_module_that_crashes_the_interpreter_is_left_out_alone(tmp_path: Path, jobs: int) -> None:
    """Another interpreter goes on with the rest."""
    python = wrapper(tmp_path / "python", "if b'crash' in source: os.abort()")
    files = {f"purelib/m{i:03}.py": b"crash" if i % 50 == 7 else b"x = 1\n" for i in range(250)}
    told: list[int] = []
    source = make_source(tmp_path / "s", files)
    layers = compile_layers([source], python=python, work=tmp_path / "w", jobs=jobs, progress=told.append).layers
    assert len(layers[source.digest].files) == 245
    assert sum(told) == 250


def test_a_work_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A file in its place: one error that names it."""
    source = make_source(tmp_path / "s", {"purelib/sub/mod.py": b"x = 1\n"})
    (tmp_path / "w").write_text("in the way")
    with pytest.raises(LayerError, match="can't be written") as caught:
        compile_layers([source], python=sys.executable, work=tmp_path / "w")
    assert caught.value.where == str(tmp_path / "w")


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """The error names the file and the reason (here a limit on file sizes); what was compiled so far is deleted."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -f 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    files = {f"purelib/m{i}.py": b"x = 1\n" for i in range(200)}
    source = make_source(tmp_path / "s", {**files, "purelib/z.py": b"x = '" + b"x" * 5000 + b"'\n"})
    with pytest.raises(LayerError, match=r"/w/bytecode-\S+/modules-\d: File too large"):
        compile_layers([source], python=str(python), work=tmp_path / "w")
    assert list((tmp_path / "w").iterdir()) == []


def test_two_clients_with_one_work_directory_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each call has files of its own, and removing those of one leaves the other's."""
    source = make_source(tmp_path / "s", {f"purelib/m{i}.py": b"x = 1\n" for i in range(20)})
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(
            lambda _: compile_layers([source], python=sys.executable, work=tmp_path / "w").layers[source.digest],
            range(2),
        )
    assert first.digest == second.digest
    assert {f.path for f in first.files}.isdisjoint(f.path for f in second.files)
    remove_compiled([first], work=tmp_path / "w")
    assert not any(Path(f.path).exists() for f in first.files)
    assert all(Path(f.path).exists() for f in second.files)
    remove_compiled([second], work=tmp_path / "w")
    assert list((tmp_path / "w").iterdir()) == []


def test_what_a_killed_client_left_is_removed_after_a_day(tmp_path: Path) -> None:
    """By the next one that compiles; what is younger may belong to a client that still runs."""
    for name, age in (("bytecode-old", 90_000), ("bytecode-young", 3_600), ("other-old", 90_000)):
        (tmp_path / "w" / name / "x").mkdir(parents=True)
        os.utime(tmp_path / "w" / name, (time.time() - age,) * 2)
    source = make_source(tmp_path / "s", {"purelib/m.py": b""})
    layers = compile_layers([source], python=sys.executable, work=tmp_path / "w").layers
    remove_compiled(layers.values(), work=tmp_path / "w")
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"bytecode-young", "other-old"}


def children_of(pid: int) -> list[str]:
    """Processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_interpreter_outlives_its_client(tmp_path: Path, number: signal.Signals) -> None:
    """Neither after Ctrl-C nor when the client is killed: the client is gone at once, and so are its children."""
    python = wrapper(tmp_path / "python", "__import__('time').sleep(0.5)")
    script = tmp_path / "client.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
        from likewise.layers.bytecode import compile_layers
        from support.layers import make_source
        work = Path({str(tmp_path)!r})
        source = make_source(work / "s", {{f"purelib/m{{i}}.py": b"x = 1" for i in range(500)}})
        compile_layers([source], python={python!r}, work=work / "w", jobs=2, progress=lambda n: print(n, flush=True))
        """)
    )
    client = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert client.stdout and client.stdout.readline() == "1\n"
    children = children_of(client.pid)
    assert len(children) == 2
    client.send_signal(number)
    _, errors = client.communicate(timeout=10)
    assert client.returncode in (-number, 130)
    if number == signal.SIGINT:
        assert errors.rstrip().endswith("KeyboardInterrupt")
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def test_digests_are_those_of_the_source_layers(tmp_path: Path) -> None:
    """The answer is keyed by source layer; the same layer given twice is compiled once."""
    source = make_source(tmp_path / "s", {"purelib/mod.py": b"x = 1\n"})
    told: list[int] = []
    layers = compile_layers([source, source], python=sys.executable, work=tmp_path / "w", progress=told.append).layers
    assert list(layers) == [Digest(source.digest)]
    assert told == [1]


def test_what_is_packed_is_what_was_made(tmp_path: Path) -> None:
    """Bytecode of a layer lies in one file with that of others; its archive holds its own part of it, checked."""
    source = make_source(tmp_path / "s", {f"purelib/m{i}.py": b"x = %d\n" % i for i in range(120)})
    layer = compile_layers([source], python=sys.executable, work=tmp_path / "w", jobs=2).layers[source.digest]
    out = io.BytesIO()
    write_archive(layer, out)
    entries, contents = read_archive(out.getvalue())
    assert [entry.path for entry in entries] == [file.entry.path for file in layer.files]
    assert all(digest_bytes(contents[entry.path]) == entry.sha256 for entry in entries)
    assert {code_of(data).co_consts[0] for data in contents.values()} == set(range(120))
    with open(layer.files[0].path, "r+b") as file:
        file.truncate(30)
    with pytest.raises(LayerError, match="changed while it was being packed"):
        write_archive(layer, io.BytesIO())
