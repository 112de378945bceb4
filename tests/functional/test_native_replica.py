"""The native layer at work: real processes in a replica, with the libraries of the machine masked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from likewise.layers.elf import read_elf
from likewise.layers.interpreter import interpreter_source
from likewise.layers.loader import Loader, read_cache
from likewise.layers.native import Native, examine
from likewise.layers.relocate import source_file
from likewise.model.layer import LayerKind, LayerSource, layer_source
from likewise.model.snapshot import Interpreter
from likewise.scanner.probe import probe_python
from support.masking import masked
from support.objects import make_library, purelib_layer
from support.prefixes import UV, run
from support.replica import NoFacts, unpack

SYSTEM = "/usr/bin/python3"
PSYCOPG2 = Path("/usr/lib/python3/dist-packages/psycopg2")
LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(open('/proc/self/maps').read())"


class Maker:
    """Makes replicas of one interpreter; its layer is made once."""

    def __init__(self, executable: str, work: Path) -> None:
        self.interpreter: Interpreter = probe_python(executable).interpreter
        self.work = work
        self.layer, _ = interpreter_source(self.interpreter, facts=NoFacts(), work=work)

    def replica(self, prefix: Path, *layers: LayerSource, library_path: Path | None = None) -> tuple[Path, Native]:
        """Python of a replica with `layers` and their native layer, and that layer."""
        environ = {"LD_LIBRARY_PATH": str(library_path)} if library_path else {}
        native = examine(
            [self.layer, *layers], interpreter=self.interpreter, facts=NoFacts(), work=self.work, environ=environ
        )
        found = [native.source] if native.source else []
        return unpack([self.layer, *layers, *found], prefix, self.interpreter.python), native

    def site(self, prefix: Path) -> Path:
        """Its site-packages."""
        return prefix / "lib" / self.interpreter.python / "site-packages"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """The interpreter of this test run."""
    return Maker(sys.executable, tmp_path_factory.mktemp("own"))


def system_files(native: Native) -> list[str]:
    """Where this machine has the libraries of a native layer: every link on the way to the file."""
    loader = Loader(read_elf, environ={}, cache=read_cache())
    this = read_elf(os.path.realpath(sys.executable))
    assert this is not None
    assert native.source is not None
    found = []
    for file in native.source.files:
        name = file.entry.path.rpartition("/")[2]
        path = loader.find(name, this, "/")
        found += [path] if path else []
        found += [os.path.realpath(path)] if path else []
    return sorted({os.path.join(os.path.realpath(os.path.dirname(p)), os.path.basename(p)) for p in found})


@pytest.mark.root
@pytest.mark.skipif(not PSYCOPG2.is_dir(), reason="Debian's python3-psycopg2 is not installed")
def test_debians_psycopg2_works_with_libpq_masked(tmp_path: Path) -> None:
    """Debian's psycopg2 imports and answers in the replica although libpq and all it needs are masked; not without."""
    debian = Maker(SYSTEM, tmp_path / "work")
    files = [
        source_file(str(p), f"purelib/psycopg2/{p.relative_to(PSYCOPG2)}", NoFacts())
        for p in PSYCOPG2.rglob("*")
        if p.is_file() and p.suffix != ".pyc"
    ]
    layer = layer_source(LayerKind.DISTRIBUTION, "psycopg2", "2", files)
    python, native = debian.replica(tmp_path / "prefix", layer)
    assert native.source is not None
    names = [f.entry.path for f in native.source.files]
    assert "native/libpq.so.5" in names
    assert not [n for n in names if n in ("native/libssl.so.3", "native/libcrypto.so.3")]  # the interpreter has them
    code = "import psycopg2, psycopg2.extensions as e; print(e.libpq_version(), e.quote_ident.__name__)"
    hide = system_files(native)
    assert any("libpq" in path for path in hide)
    assert masked([python, "-c", code], hide, check=True).stdout.split()[1] == "quote_ident"
    shutil.rmtree(tmp_path / "prefix" / "native")
    done = masked([python, "-c", code], hide)
    assert done.returncode == 1
    assert "libpq.so.5: cannot open shared object file" in done.stderr


@pytest.mark.root
@pytest.mark.registry
def test_lightgbm_finds_the_machines_openmp_in_the_native_layer(own: Maker, tmp_path: Path) -> None:
    """The published wheel of lightgbm relies on the system's libgomp; it loads where that is masked."""
    site = tmp_path / "site"
    run(UV, "pip", "install", "--quiet", "--no-deps", "--target", site, "--python", sys.executable, "lightgbm==4.6.0")
    python, native = own.replica(tmp_path / "prefix", purelib_layer(site, name="lightgbm"))
    assert native.source is not None
    assert [f.entry.path for f in native.source.files] == ["native/libgomp.so.1"]
    library = own.site(tmp_path / "prefix") / "lightgbm/lib/lib_lightgbm.so"
    hide = system_files(native)
    mapped = masked([python, "-c", LOAD, library], hide, check=True).stdout
    assert f"{tmp_path}/prefix/native/libgomp.so.1" in mapped
    (tmp_path / "prefix/native/libgomp.so.1").unlink()
    assert "libgomp.so.1: cannot open" in masked([python, "-c", LOAD, library], hide).stderr


def loaded(python: Path, library: Path, **environ: str) -> set[str]:
    """Files mapped into a replica's process that loaded `library`."""
    text = run(python, "-I", "-c", LOAD, library, **environ)
    return {line.split(maxsplit=5)[5] for line in text.splitlines() if "/" in line}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Libraries of the machine: one needs two; two goes by two names."""
    folder = tmp_path / "outside"
    make_library(folder / "liblwone.so.1", needs=["liblwtwo.so.1", "liblwtwo.so.1.2"])
    make_library(folder / "liblwtwo.so.1.2", soname="liblwtwo.so.1")
    (folder / "liblwtwo.so.1").symlink_to("liblwtwo.so.1.2")
    return folder


def test_a_chain_of_libraries_loads_from_the_native_layer(own: Maker, outside: Path, tmp_path: Path) -> None:
    """With the originals gone, object, library and its library load, each once, all from the replica."""
    make_library(tmp_path / "site" / "pkg" / "x.so", needs=["liblwone.so.1"])
    python, _ = own.replica(tmp_path / "prefix", purelib_layer(tmp_path / "site"), library_path=outside)
    shutil.rmtree(outside)
    files = loaded(python, own.site(tmp_path / "prefix") / "pkg" / "x.so")
    names = sorted(os.path.basename(f) for f in files if "liblw" in f)
    assert names == ["liblwone.so.1", "liblwtwo.so.1"]
    assert {os.path.dirname(f) for f in files if "liblw" in f} == {f"{tmp_path}/prefix/native"}


def test_the_original_is_not_preferred_where_it_is_still_there(own: Maker, outside: Path, tmp_path: Path) -> None:
    """A replica on the client's own machine loads its copies, though LD_LIBRARY_PATH names the originals."""
    make_library(tmp_path / "site" / "pkg" / "x.so", needs=["liblwone.so.1"])
    python, _ = own.replica(tmp_path / "prefix", purelib_layer(tmp_path / "site"), library_path=outside)
    files = loaded(python, own.site(tmp_path / "prefix") / "pkg" / "x.so", LD_LIBRARY_PATH=str(outside))
    assert {os.path.dirname(f) for f in files if "liblw" in f} == {f"{tmp_path}/prefix/native"}


def test_an_object_with_a_runpath_is_served_too(own: Maker, outside: Path, tmp_path: Path) -> None:
    """DT_RUNPATH switches the interpreter's DT_RPATH off; the copy in the object's own folder is found all the same."""
    make_library(tmp_path / "site" / "pkg" / "x.so", needs=["liblwone.so.1"], runpath="$ORIGIN/../pkg.libs")
    python, native = own.replica(tmp_path / "prefix", purelib_layer(tmp_path / "site"), library_path=outside)
    assert native.problems == ()
    shutil.rmtree(outside)
    files = loaded(python, own.site(tmp_path / "prefix") / "pkg" / "x.so")
    assert sorted(os.path.relpath(f, tmp_path / "prefix") for f in files if "liblw" in f) == [
        f"lib/{own.interpreter.python}/site-packages/pkg.libs/liblwone.so.1",
        "native/liblwtwo.so.1",
    ]


def test_the_warning_about_a_library_out_of_reach_is_true(own: Maker, outside: Path, tmp_path: Path) -> None:
    """What is reported as out of reach does fail to load in the replica, and would be wrong to keep silent about."""
    make_library(tmp_path / "site" / "pkg" / "x.so", needs=["liblwone.so.1"], runpath=str(outside))
    make_library(tmp_path / "site" / "y.so", needs=["liblwone.so.1"], rpath=str(outside))
    python, native = own.replica(tmp_path / "prefix", purelib_layer(tmp_path / "site"))
    assert [(p.code, p.subject) for p in native.problems] == [("library-out-of-reach", "liblwone.so.1")]
    shutil.rmtree(outside)
    with pytest.raises(AssertionError, match=r"liblwone\.so\.1: cannot open"):
        loaded(python, own.site(tmp_path / "prefix") / "pkg" / "x.so")
    assert loaded(python, own.site(tmp_path / "prefix") / "y.so")  # the one without DT_RUNPATH is served


def real_elf_files(limit: int) -> list[str]:
    """Some programs and libraries of this machine, this Python's own among them."""
    folders = [os.path.dirname(os.path.realpath("/lib/ld-linux.so.2")), "/usr/lib", "/usr/bin", "/usr/lib64"]
    dynload = Path(sys.base_prefix, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "lib-dynload")
    found = [os.path.realpath(sys.executable), *map(str, sorted(dynload.glob("*.so"))[:10])]
    for folder in [*folders, *map(str, Path("/usr/lib").glob("*-linux-gnu"))]:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        files = [f"{folder}/{n}" for n in names if os.path.isfile(f"{folder}/{n}") and ".a" not in n]
        found += files[:: max(1, len(files) // limit)]
    return [path for path in dict.fromkeys(found) if Path(path).open("rb").read(4) == b"\x7fELF"]


@pytest.mark.skipif(not shutil.which("readelf"), reason="binutils is not installed")
def test_needs_are_what_readelf_says() -> None:
    """Names, search paths and needed versions of many real files agree with binutils' reading."""
    files = real_elf_files(40)
    assert len(files) > 30
    for path in files:
        elf = read_elf(path)
        assert elf is not None
        text = subprocess.run(
            ["readelf", "--wide", "-d", "-V", path], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
        ).stdout
        assert list(elf.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", text), path
        assert elf.soname == "".join(re.findall(r"\(SONAME\).*\[(.*)\]", text)[:1]), path
        assert elf.rpath == "".join(re.findall(r"\(RPATH\).*\[(.*)\]", text)[:1]), path
        assert elf.runpath == "".join(re.findall(r"\(RUNPATH\).*\[(.*)\]", text)[:1]), path
        needs = text.partition("Version needs section")[2]
        expected: dict[str, list[str]] = {}
        for file, name, flags in re.findall(r"File: (\S+)|Name: (\S+)\s+Flags: (.*?)\s+Version:", needs):
            if file:
                library = expected.setdefault(file, [])
            elif "WEAK" not in flags:
                library.append(name)
        assert {k: list(v) for k, v in elf.versions.items()} == {k: v for k, v in expected.items() if v}, path
