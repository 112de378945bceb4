"""Where each need of each ELF file ends: in a layer, on the node, in the native layer, or nowhere."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import msgspec
import pytest

from likewise.layers import elf as elf_module
from likewise.layers import native as native_module
from likewise.layers.elf import read_elf
from likewise.layers.native import Native, examine, layer_path
from likewise.layers.relocate import source_data
from likewise.model.layer import LayerKind, LayerSource, layer_source
from likewise.model.manifest import prefix_path
from likewise.model.snapshot import Severity
from likewise.scanner.probe import probe_python
from support.elves import make_elf
from support.objects import make_library, purelib_layer
from support.replica import NoFacts

OWN = probe_python(sys.executable).interpreter


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An empty site-packages."""
    (tmp_path / "site").mkdir()
    return tmp_path / "site"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the machine that the prefix knows nothing of."""
    (tmp_path / "outside").mkdir()
    return tmp_path / "outside"


def look(tmp_path: Path, *layers: LayerSource, library_path: Path | None = None) -> Native:
    """Examine `layers`, where LD_LIBRARY_PATH is `library_path`."""
    environ = {"LD_LIBRARY_PATH": str(library_path)} if library_path else {}
    return examine(layers, interpreter=OWN, facts=NoFacts(), work=tmp_path / "work", environ=environ)


def paths(native: Native) -> list[str]:
    """Layer paths of the native layer."""
    return [f.entry.path for f in native.source.files] if native.source else []


def test_pure_python_needs_nothing(tmp_path: Path, site: Path) -> None:
    """Without ELF files there is no native layer, no need and no problem."""
    native = look(tmp_path, purelib_layer(site, data={"a.py": b"", "bin": b"#!/bin/sh\n", "x.so": b"INPUT(-lx)\n"}))
    assert native == Native(source=None, needs={}, needed_by={}, problems=())


def test_a_library_from_outside_comes_with_its_own_needs(tmp_path: Path, site: Path, outside: Path) -> None:
    """A chain of two libraries becomes the native layer, and the copies find each other by $ORIGIN."""
    make_library(site / "pkg" / "_x.so", needs=["liblwone.so.1"])
    make_library(outside / "liblwone.so.1", needs=["liblwtwo.so.1"], runpath=str(outside))
    make_library(outside / "liblwtwo.so.1")
    native = look(tmp_path, purelib_layer(site), library_path=outside)
    assert paths(native) == ["native/liblwone.so.1", "native/liblwtwo.so.1"]
    assert native.problems == ()
    assert native.source is not None
    one = read_elf(native.source.files[0].path)
    assert one is not None
    assert (one.rpath, one.runpath) == ("$ORIGIN", "")
    assert str(outside).encode() not in Path(native.source.files[0].path).read_bytes()
    assert native.source.files[1].path == str(outside / "liblwtwo.so.1")  # needs no change


def test_nothing_of_this_machine_goes_to_another_platform(tmp_path: Path, site: Path, outside: Path) -> None:
    """A library that this machine has and no layer is expected of the nodes, and named; one that a layer has is not.

    What the C library must be is the files' own affair, whatever this machine's is.
    """
    make_library(site / "pkg" / "_x.so", needs=["liblwone.so.1", "liblwtwo.so.1"], runpath=f"{outside}:$ORIGIN/libs")
    make_library(site / "pkg" / "libs" / "liblwtwo.so.1")
    make_library(outside / "liblwone.so.1")
    environ = {"LD_LIBRARY_PATH": str(outside)}
    layer = purelib_layer(site)
    here, there = (
        examine([layer], interpreter=OWN, facts=NoFacts(), work=tmp_path / "work", environ=environ, here=own)
        for own in (True, False)
    )
    assert (paths(here), here.problems) == (["purelib/pkg/libs/liblwone.so.1"], ())
    assert there.source is None
    assert [(p.code, p.subject, p.severity) for p in there.problems] == [
        ("library-on-nodes", "liblwone.so.1", Severity.NOTE)
    ]


def test_an_absolute_search_path_is_followed_and_passed_on(tmp_path: Path, site: Path, outside: Path) -> None:
    """DT_RPATH to a folder of the machine serves the object and what it loads, as the linker has it."""
    make_library(site / "_x.so", needs=["liblwone.so.1"], rpath=str(outside))
    make_library(outside / "liblwone.so.1", needs=["liblwtwo.so.1"])
    make_library(outside / "liblwtwo.so.1")
    assert paths(look(tmp_path, purelib_layer(site))) == ["native/liblwone.so.1", "native/liblwtwo.so.1"]


def test_a_library_of_another_layer_is_not_brought_again(tmp_path: Path, site: Path, outside: Path) -> None:
    """What an object finds in the replica through its own search path is served, though the machine has one too; whose
    it is is known, whatever the metadata say.
    """
    make_library(site / "pkg" / "_x.so", needs=["liblwone.so.1"], runpath="$ORIGIN/../pkg.libs")
    first = purelib_layer(site)
    make_library(tmp_path / "other" / "pkg.libs" / "liblwone.so.1")
    make_library(outside / "liblwone.so.1")
    native = look(tmp_path, first, purelib_layer(tmp_path / "other", name="other"), library_path=outside)
    assert (native.source, native.problems, native.loads) == (None, (), {"made": ("other",)})


def test_a_library_that_something_else_loads_before_is_no_problem(tmp_path: Path, site: Path) -> None:
    """A bundled library that no search path reaches (its package loads it first) is neither missing nor outside."""
    make_library(site / "pkg" / "_x.so", needs=["liblwone.so.1"])
    make_library(site / "deep" / "libs" / "liblwone.so.1")
    native = look(tmp_path, purelib_layer(site))
    assert (native.source, native.problems) == (None, ())


def test_an_object_with_a_runpath_gets_the_library_where_it_looks(tmp_path: Path, site: Path, outside: Path) -> None:
    """DT_RUNPATH hides the interpreter's search path: the copy goes to the first folder of it inside the prefix."""
    make_library(site / "pkg" / "_x.so", needs=["liblwone.so.1"], runpath=f"{outside}:$ORIGIN/../pkg.libs:$ORIGIN")
    make_library(outside / "liblwone.so.1", needs=["liblwtwo.so.1"])
    make_library(outside / "liblwtwo.so.1")
    native = look(tmp_path, purelib_layer(site), library_path=outside)
    assert paths(native) == ["native/liblwtwo.so.1", "purelib/pkg.libs/liblwone.so.1"]
    assert native.problems == ()
    assert native.source is not None
    copy = read_elf(native.source.files[1].path)
    assert copy is not None
    assert copy.rpath.split(":")[1] == "$ORIGIN/../../../../native"


def test_a_library_out_of_reach_is_a_warning_that_names_both(tmp_path: Path, site: Path, outside: Path) -> None:
    """An object that looks only in folders of the machine can't be served, and the user is told."""
    make_library(site / "pkg" / "_x.so", needs=["liblwone.so.1"], runpath=str(outside))
    make_library(outside / "liblwone.so.1")
    native = look(tmp_path, purelib_layer(site))
    assert native.source is None
    (problem,) = native.problems
    assert (problem.code, problem.severity) == ("library-out-of-reach", Severity.WARNING)
    assert "pkg/_x.so" in problem.message
    assert "liblwone.so.1" in problem.message


def test_a_program_does_not_profit_from_the_interpreters_search_path(tmp_path: Path, site: Path) -> None:
    """A program that needs a library from outside is named in a warning: it is not loaded by the interpreter."""
    program = Path(sys.executable).resolve()
    (site / "bin").mkdir()
    tool = site / "bin" / "tool"
    tool.write_bytes(program.read_bytes())
    tool.chmod(0o755)
    elf = read_elf(str(tool))
    assert elf is not None
    make_library(site / "_x.so")
    native = look(tmp_path, purelib_layer(site))
    out = {p.subject for p in native.problems if p.code == "library-out-of-reach"}
    assert out == {n for n in elf.needed if not native_module.stays_with_node(n)}


def test_two_names_of_one_file_stay_one_file(tmp_path: Path, site: Path, outside: Path) -> None:
    """A library needed by its soname and by its full name is shipped once, with a link: it must not be loaded twice."""
    make_library(site / "_x.so", needs=["liblwone.so.1", "liblwone.so.1.2.3"])
    make_library(outside / "liblwone.so.1.2.3", soname="liblwone.so.1")
    (outside / "liblwone.so.1").symlink_to("liblwone.so.1.2.3")
    native = look(tmp_path, purelib_layer(site), library_path=outside)
    assert native.source is not None
    assert [(f.entry.path, f.entry.link) for f in native.source.files] == [
        ("native/liblwone.so.1", ""),
        ("native/liblwone.so.1.2.3", "liblwone.so.1"),
    ]


@pytest.mark.parametrize("name", ["libcuda.so.1", "libnvidia-ml.so.1", "libstdc++.so.6", "libresolv.so.2"])
def test_what_belongs_to_the_node_is_never_shipped(tmp_path: Path, site: Path, outside: Path, name: str) -> None:
    """Drivers, glibc and the compiler's run-time are left to the node, wherever the client has them."""
    make_library(site / "_x.so", needs=[name])
    make_library(outside / name)
    native = look(tmp_path, purelib_layer(site), library_path=outside)
    assert (native.source, native.problems) == (None, ())


def test_a_library_that_is_nowhere_is_a_note(tmp_path: Path, site: Path) -> None:
    """What does not load here either is worth knowing and no more; many who need it make one problem."""
    for name in ("_x.so", "_y.so", "_z.so"):
        make_library(site / name, needs=["liblwnowhere.so.9"])
    (problem,) = look(tmp_path, purelib_layer(site)).problems
    assert (problem.code, problem.severity, problem.subject) == (
        "library-not-here", Severity.NOTE, "liblwnowhere.so.9",
    )  # fmt: skip
    assert "and 2 more" in problem.message
    assert "not here either" in problem.message


def test_a_damaged_library_is_a_note_and_stops_nothing(tmp_path: Path, site: Path, outside: Path) -> None:
    """A truncated file (test data of some package, say) does not keep the others from being examined."""
    make_library(site / "_x.so", needs=["liblwone.so.1"])
    make_library(outside / "liblwone.so.1")
    layer = purelib_layer(site, data={"data/broken.so": b"\x7fELF\x02\x01 and no more"})
    native = look(tmp_path, layer, library_path=outside)
    assert paths(native) == ["native/liblwone.so.1"]
    assert [(p.code, p.severity, p.subject) for p in native.problems] == [
        ("damaged-elf", Severity.NOTE, "purelib/data/broken.so")
    ]


def test_files_for_another_processor_are_ignored(tmp_path: Path, site: Path) -> None:
    """A library for another machine (shipped as data) has no needs here."""
    library = make_library(site / "_x.so", needs=["liblwnowhere.so.9"])
    data = bytearray(library.read_bytes())
    struct.pack_into("<H", data, 18, 183 if OWN.platform.arch == "x86_64" else 62)
    library.write_bytes(data)
    assert look(tmp_path, purelib_layer(site)) == Native(source=None, needs={}, needed_by={}, problems=())


def elf_layer(**content: bytes) -> LayerSource:
    """A layer of files made in memory: ``a=…`` is ``purelib/a.so``."""
    files = [source_data(data, f"purelib/{name}.so") for name, data in content.items()]
    return layer_source(LayerKind.DISTRIBUTION, "made", "1", files)


def with_versions(versions: dict[str, list[str]], **more: str) -> bytes:
    """A library of this machine's architecture that needs `versions` and nothing else."""
    machine = 62 if OWN.platform.arch == "x86_64" else 183
    return make_elf(machine=machine, needed=[], versions=versions, **{"rpath": "", "runpath": "", **more})


def test_needs_are_the_highest_of_all_and_name_a_file(tmp_path: Path) -> None:
    """Versions compare by number (2.10 is above 2.9) over all layers; who needs it is told."""
    nine = elf_layer(a=with_versions({"libc.so.6": ["GLIBC_2.9", "GLIBC_2.2.5", "GLIBC_PRIVATE"]}))
    ten = elf_layer(b=with_versions({"libm.so.6": ["GLIBC_2.10"], "libother.so.1": ["OTHER_7"]}))
    native = look(tmp_path, nine, ten)
    assert native.needs == {"GLIBC": "2.10"}
    assert native.needed_by == {"GLIBC": f"lib/{OWN.python}/site-packages/b.so"}


def test_the_marker_of_relative_relocations_is_a_version(tmp_path: Path) -> None:
    """GLIBC_ABI_DT_RELR has no number; glibc understands it from 2.36 on."""
    platform = msgspec.structs.replace(OWN.platform, libc_version="2.40")
    layer = elf_layer(a=with_versions({"libc.so.6": ["GLIBC_ABI_DT_RELR", "GLIBC_2.4"]}))
    new = msgspec.structs.replace(OWN, platform=platform)
    assert examine([layer], interpreter=new, facts=NoFacts(), work=tmp_path, environ={}).needs == {"GLIBC": "2.36"}


def test_a_file_that_this_client_cannot_load_raises_no_need(tmp_path: Path) -> None:
    """An optional module for a newer glibc than the client's would refuse nodes for nothing."""
    layer = elf_layer(a=with_versions({"libc.so.6": ["GLIBC_2.99"]}), b=with_versions({"libc.so.6": ["GLIBC_2.4"]}))
    assert look(tmp_path, layer).needs == {"GLIBC": "2.4"}


def test_the_compilers_run_time_counts_unless_it_is_bundled(tmp_path: Path) -> None:
    """GLIBCXX and CXXABI are needs of the node, but not for an object that finds a libstdc++ among the layers."""
    cxx = {"libstdc++.so.6": ["GLIBCXX_3.4.30", "CXXABI_1.3.9"], "libgcc_s.so.1": ["GCC_3.0"]}
    assert look(tmp_path, elf_layer(a=with_versions(cxx))).needs == {
        "CXXABI": "1.3.9",
        "GCC": "3.0",
        "GLIBCXX": "3.4.30",
    }
    bundled = layer_source(
        LayerKind.DISTRIBUTION, "bundle", "1", [source_data(with_versions({}), "purelib/libs/libstdc++.so.6")]
    )
    own = elf_layer(a=with_versions(cxx, runpath="$ORIGIN/libs"))
    assert look(tmp_path, own, bundled).needs == {"GCC": "3.0"}


def test_a_second_examination_opens_no_file(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer contains is remembered by the layer's digest."""
    make_library(site / "_x.so", needs=["liblwnowhere.so.9"])
    layer = purelib_layer(site)
    first = look(tmp_path, layer)
    monkeypatch.setattr(native_module, "read_elf", lambda path: pytest.fail(f"{path} was opened"))
    monkeypatch.setattr(elf_module, "read_elf", lambda path: pytest.fail(f"{path} was opened"))
    assert look(tmp_path, layer) == first


def test_a_work_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, site: Path) -> None:
    """Remembering is best effort."""
    make_library(site / "_x.so", needs=["liblwnowhere.so.9"])
    (tmp_path / "work").write_text("in the way")
    assert len(look(tmp_path, purelib_layer(site)).problems) == 1


@pytest.mark.parametrize(
    "path",
    ["native/libx.so", "purelib/a/b.so", "scripts/tool", "data/share/x", "interpreter/lib/libx.so", "code/r/m.py",
     "headers/p/x.h"],
)  # fmt: skip
def test_layer_path_is_the_inverse_of_prefix_path(path: str) -> None:
    """From the place in a prefix back to the path in a layer."""
    assert layer_path(prefix_path(path, "python3.11"), "python3.11") == path


def test_library_path_of_this_process_is_the_default(
    tmp_path: Path, site: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `environ`, LD_LIBRARY_PATH is this process's."""
    make_library(site / "_x.so", needs=["liblwone.so.1"])
    make_library(outside / "liblwone.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", os.fspath(outside))
    native = examine([purelib_layer(site)], interpreter=OWN, facts=NoFacts(), work=tmp_path / "work")
    assert paths(native) == ["native/liblwone.so.1"]


def test_what_a_wrong_belief_told_is_forgotten(tmp_path: Path, site: Path, outside: Path) -> None:
    """What was told from a file that did not hold what was believed is no fact about layers that do hold it."""
    make_library(site / "_x.so")
    believed = purelib_layer(site)
    note = tmp_path / "note"
    files = tuple(msgspec.structs.replace(file, believed=str(note)) for file in believed.files)
    assert paths(look(tmp_path, msgspec.structs.replace(believed, files=files), library_path=outside)) == []

    make_library(tmp_path / "other" / "_x.so", needs=["liblwone.so.1"])
    make_library(outside / "liblwone.so.1")
    true = msgspec.structs.replace(purelib_layer(tmp_path / "other"), digest=believed.digest)
    assert paths(look(tmp_path, true, library_path=outside)) == []
    note.touch()
    for _ in range(2):
        assert paths(look(tmp_path, true, library_path=outside)) == ["native/liblwone.so.1"]
