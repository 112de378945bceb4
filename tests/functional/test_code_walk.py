"""What goes along from a folder of loose code, tried on real folders."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from likewise.errors import ScanError
from likewise.events import Silent
from likewise.model.editable import Editable
from likewise.model.snapshot import Severity
from likewise.scanner.code import Limits, scan_code
from likewise.scanner.probe import MainModule
from support.code import Remembered, make_probe, scan_folder, shipped, write
from support.prefixes import make_venv, run


def test_modules_and_packages_with_their_data_go_along_and_nothing_else(tmp_path: Path) -> None:
    """Python files and importable packages, data of packages included; what lies beside them in the root stays."""
    write(tmp_path, "one.py", "pkg/__init__.py", "pkg/deep/data.csv", "pkg/table.json", "pkg/not-a-name/t.txt")
    write(tmp_path, "data.csv", "notebook.ipynb", "README.md", "results/plot.png", "my-scripts/run.py")
    assert shipped(scan_folder(tmp_path)) == {
        "one.py",
        "pkg/__init__.py",
        "pkg/deep/data.csv",
        "pkg/table.json",
        "pkg/not-a-name/t.txt",
    }


def test_a_namespace_folder_brings_its_modules_and_the_data_beside_them(tmp_path: Path) -> None:
    """A folder without __init__.py that can be imported counts, to any depth, and the data among its modules."""
    write(tmp_path, "space/inner/mod.py", "space/inner/table.csv", "space/notes.txt", "space/inner/more/only.txt")
    assert shipped(scan_folder(tmp_path)) == {"space/inner/mod.py", "space/inner/table.csv"}


def test_bytecode_without_source_and_extension_modules_are_modules(tmp_path: Path) -> None:
    """They are imported by name; bytecode beside its source, caches and plain libraries are not."""
    write(tmp_path, "bare.pyc", "both.py", "both.pyc", "fast.cpython-311-x86_64-linux-gnu.so", "libz.so")
    write(tmp_path, "__pycache__/both.cpython-311.pyc")
    assert shipped(scan_folder(tmp_path)) == {"bare.pyc", "both.py", "fast.cpython-311-x86_64-linux-gnu.so"}


def test_a_folder_without_python_files_is_no_root(tmp_path: Path) -> None:
    """Nothing to import: no layer, and no number used up."""
    write(tmp_path, "data.csv", "results/a.txt")
    scan = scan_folder(tmp_path)
    assert (scan.roots, scan.sources, scan.problems) == ((), {}, ())


def test_five_gigabytes_of_data_beside_a_script_cost_nothing(tmp_path: Path) -> None:
    """A huge file in the working directory is neither shipped nor read, and a pipe is not waited for."""
    write(tmp_path, "script.py")
    with open(tmp_path / "data.parquet", "wb") as file:
        file.truncate(5 * 10**9)
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.py")
    started = time.perf_counter()
    scan = scan_folder(tmp_path)
    assert shipped(scan) == {"script.py"}
    assert scan.roots[0].size < 100
    assert time.perf_counter() - started < 1


def test_gitignore_is_honoured_at_every_level(tmp_path: Path) -> None:
    """The work tree's own file, the root's, and nested ones; the deeper one wins, and so does a negation."""
    run("git", "init", "-q", tmp_path)
    write(tmp_path, ".gitignore", text="*_out.py\nroot/late.py\n/root/wide/\n")
    root = tmp_path / "root"
    write(root, "a.py", "b_out.py", "late.py", "wide/mod.py", "pkg/__init__.py", "pkg/kept_out.py", "pkg/tmp.csv")
    write(root, ".gitignore", text="!b_out.py\n# a comment\n\n")
    write(root, "pkg/.gitignore", text="!kept_out.py\n*.csv\n")
    assert shipped(scan_folder(root)) == {"a.py", "b_out.py", "pkg/__init__.py", "pkg/kept_out.py"}


def test_whoever_works_in_an_ignored_folder_means_it(tmp_path: Path) -> None:
    """A root that its own work tree ignores is not empty for that."""
    run("git", "init", "-q", tmp_path)
    write(tmp_path, ".gitignore", text="scratch/\n*.txt\n")
    write(tmp_path, "scratch/trial.py", "scratch/inner/more.py")
    assert shipped(scan_folder(tmp_path / "scratch")) == {"trial.py", "inner/more.py"}


def test_an_ignored_module_that_is_imported_goes_along(tmp_path: Path) -> None:
    """A file, a file in a package, a whole package; in an ignored namespace folder just the module."""
    write(tmp_path, ".gitignore", text="gen.py\n_version.py\nmade/\nspare.py\nloose/\nother/\n*.bin\n")
    write(tmp_path, "gen.py", "spare.py", "pkg/__init__.py", "pkg/_version.py", "pkg/x.bin", "other/__init__.py")
    write(tmp_path, "made/__init__.py", "made/part.py", "made/t.csv", "loose/used.py", "loose/unused.py")
    loaded = {
        "gen": tmp_path / "gen.py",
        "pkg._version": tmp_path / "pkg" / "_version.py",
        "made": tmp_path / "made" / "__init__.py",
        "loose.used": tmp_path / "loose" / "used.py",
    }
    assert shipped(scan_folder(tmp_path)) == {"pkg/__init__.py"}
    assert shipped(scan_folder(tmp_path, modules=loaded)) == {
        "gen.py",
        "pkg/__init__.py",
        "pkg/_version.py",
        "made/__init__.py",
        "made/part.py",
        "made/t.csv",
        "loose/used.py",
    }


def test_secrets_stay_and_a_note_names_those_of_a_package(tmp_path: Path) -> None:
    """Keys and passwords in a package are left out, even when .gitignore says nothing; modules named alike go."""
    write(tmp_path, ".env", ".netrc", "key.py", "pkg/__init__.py", "pkg/.env", "pkg/server.pem", "pkg/credentials.py")
    write(tmp_path, "pkg/.ssh/id_rsa", "pkg/.git/config", "pkg/id_ed25519", "pkg/.hidden")
    scan = scan_folder(tmp_path)
    assert shipped(scan) == {"key.py", "pkg/__init__.py", "pkg/credentials.py"}
    (note,) = scan.problems
    assert (note.code, note.severity) == ("secret-left-out", Severity.NOTE)
    assert "pkg/server.pem" in note.message


def test_links_lead_to_no_secret(tmp_path: Path) -> None:
    """A harmless name does not make a key shippable, inside the root or out of it."""
    write(tmp_path, "home/.ssh/id_rsa", "home/.aws/login/__init__.py", "root/.env", "root/pkg/__init__.py")
    root = tmp_path / "root"
    (root / "pkg" / "settings.txt").symlink_to("../.env")
    (root / "pkg" / "mod.py").symlink_to(tmp_path / "home" / ".ssh" / "id_rsa")
    (root / "login").symlink_to(tmp_path / "home" / ".aws" / "login")
    assert shipped(scan_folder(root)) == {"pkg/__init__.py"}


def test_links_out_of_the_root_are_followed_to_packages_and_modules_only(tmp_path: Path) -> None:
    """A linked package is copied with its data; linked data, and a linked folder that is no package, are not."""
    write(tmp_path, "away/lib/__init__.py", "away/lib/t.csv", "away/tool.py", "away/big.csv", "away/folder/x.py")
    root = tmp_path / "root"
    write(root, "pkg/__init__.py", "data/real.csv")
    for name, target in {
        "lib": "../away/lib",
        "tool.py": "../away/tool.py",
        "folder": "../away/folder",
        "pkg/big.csv": "../../away/big.csv",
        "pkg/real.csv": "../data/real.csv",
        "pkg/gone.py": "nowhere.py",
    }.items():
        (root / name).symlink_to(target)
    scan = scan_folder(root)
    assert shipped(scan) == {"lib/__init__.py", "lib/t.csv", "tool.py", "pkg/__init__.py", "pkg/real.csv"}
    assert not any(f.entry.link for f in scan.sources["code-0"].files)
    assert scan.problems == ()


def test_a_symlink_loop_ends(tmp_path: Path) -> None:
    """Links to a folder above, to each other's folders and to themselves bring nothing twice."""
    write(tmp_path, "a/__init__.py", "b/__init__.py")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "to_b").symlink_to("../b")
    (tmp_path / "b" / "to_a").symlink_to("../a")
    assert shipped(scan_folder(tmp_path)) == {
        "a/__init__.py",
        "a/to_b/__init__.py",
        "b/__init__.py",
        "b/to_a/__init__.py",
    }


def test_prefixes_caches_and_build_outputs_are_skipped(tmp_path: Path) -> None:
    """Other prefixes, node_modules, dot-folders, build, dist and egg-info are nobody's loose code."""
    make_venv(tmp_path / "venv")
    write(tmp_path, "a.py", "conda/conda-meta/history", "conda/lib.py", "node_modules/x/y.py", ".tox/z.py")
    write(tmp_path, "build/lib/a.py", "dist/a.py", "a.egg-info/PKG-INFO", "b-1.dist-info/METADATA", "__pycache__/a.py")
    assert shipped(scan_folder(tmp_path)) == {"a.py"}


def test_a_package_may_be_called_build(tmp_path: Path) -> None:
    """The names of build outputs are skipped only where they are no packages."""
    write(tmp_path, "build/__init__.py", "build/step.py", "pkg/__init__.py", "pkg/dist/app.js")
    assert shipped(scan_folder(tmp_path)) == {
        "build/__init__.py",
        "build/step.py",
        "pkg/__init__.py",
        "pkg/dist/app.js",
    }


def test_a_prefix_that_is_the_project_folder_itself(tmp_path: Path) -> None:
    """`python -m venv .` in a project leaves the modules beside pyvenv.cfg loose code."""
    write(tmp_path, "pyvenv.cfg", "mine.py", "bin/activate_this.py", "lib/python3.11/site-packages/six.py")
    probe = make_probe([tmp_path], cwd=tmp_path, main=MainModule(interactive=True), prefix=tmp_path)
    scan = scan_code(probe, skip=[str(tmp_path)], facts=Remembered(), reporter=Silent())
    assert shipped(scan) == {"mine.py"}


def test_odd_names(tmp_path: Path) -> None:
    """Spaces and emoji are ordinary; a name that is no Unicode is an error that says so, and the rest goes along."""
    root = tmp_path / "my 🐍 project"
    write(root, "my script 🎉.py", "mó.py", "a package/__init__.py", "a package/da ta.csv")
    with open(os.fsencode(root) + b"/bad\xff.py", "w"):
        pass
    scan = scan_folder(root)
    assert shipped(scan) == {"my script 🎉.py", "mó.py", "a package/__init__.py", "a package/da ta.csv"}
    (problem,) = scan.problems
    assert problem.severity is Severity.ERROR
    assert "bad\\udcff.py is not valid Unicode" in problem.message


def test_names_that_differ_only_in_case(tmp_path: Path) -> None:
    """One of them can't be shipped, and is named, for a layer must mean the same on every file system."""
    write(tmp_path, "Utils.py", "utils.py")
    scan = scan_folder(tmp_path)
    assert len(shipped(scan)) == 1
    assert scan.problems[0].severity is Severity.ERROR
    assert "upper and lower case" in scan.problems[0].message


@contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """Be an ordinary user for a while, whom file modes concern."""
    if os.geteuid():
        yield
        return
    for above in [folder, *folder.parents]:
        if above.stat().st_uid == 0 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_module_that_cant_be_read_is_a_problem_that_names_it(tmp_path: Path) -> None:
    """The scan goes on without it; a folder that can't be opened is a note, for nothing is imported from it here."""
    write(tmp_path, "good.py", "locked.py", "closed/__init__.py")
    (tmp_path / "locked.py").chmod(0)
    (tmp_path / "closed").chmod(0)
    with nobody(tmp_path):
        scan = scan_folder(tmp_path)
    (tmp_path / "closed").chmod(0o755)
    assert shipped(scan) == {"good.py"}
    assert {(Path(p.subject).name, p.code, p.severity) for p in scan.problems} == {
        ("locked.py", "unreadable-code", Severity.ERROR),
        ("closed", "closed-folder", Severity.NOTE),
    }
    assert "Permission denied" in scan.problems[0].message


def test_too_many_bytes_name_the_biggest(tmp_path: Path) -> None:
    """The error names the root, the biggest folder and file, and the setting."""
    write(tmp_path, "small/__init__.py", "big/__init__.py")
    (tmp_path / "big" / "model.bin").write_bytes(b"\0" * 70_000)
    with pytest.raises(ScanError) as caught:
        scan_folder(tmp_path, limits=Limits(max_bytes=50_000))
    error = caught.value
    assert error.where == str(tmp_path)
    assert "big/ (70 KB), small/" in error.what
    assert "big/model.bin (70 KB)" in error.what
    assert "likewise.code.max-bytes" in error.todo
    assert error.details["folders"]["big"] == 70_006


def test_too_many_entries_name_the_fullest(tmp_path: Path) -> None:
    """A walk through somebody's home folder ends, and says where most of it lay."""
    write(tmp_path, "a.py", *(f"photos/y{year}/{n}.jpg" for year in range(5) for n in range(30)))
    with pytest.raises(ScanError) as caught:
        scan_folder(tmp_path, limits=Limits(max_entries=100))
    assert caught.value.where == str(tmp_path)
    assert "photos/ (" in caught.value.what
    assert "likewise.code.max-entries" in caught.value.todo
    assert len(shipped(scan_folder(tmp_path, limits=Limits(max_entries=200)))) == 1


def test_a_second_scan_reads_nothing(tmp_path: Path) -> None:
    """What was hashed once is known by its stat facts; an edit is noticed."""
    write(tmp_path, "a.py", "pkg/__init__.py", "pkg/data.csv")
    facts = Remembered()
    first = scan_folder(tmp_path, facts=facts)
    assert len(facts.hashed) == 3
    assert scan_folder(tmp_path, facts=facts) == first
    assert len(facts.hashed) == 3
    (tmp_path / "a.py").write_text("x = 22\n")
    assert scan_folder(tmp_path, facts=facts).roots[0].content != first.roots[0].content
    assert len(facts.hashed) == 4


def test_the_content_decides_the_digest_and_the_place_does_not(tmp_path: Path) -> None:
    """The same files elsewhere are the same layer; a changed executable bit is another one."""
    write(tmp_path / "x", "a.py", "pkg/__init__.py")
    write(tmp_path / "y", "a.py", "pkg/__init__.py")
    first, second = (scan_folder(tmp_path / name).roots[0].content for name in "xy")
    assert first == second
    (tmp_path / "y" / "a.py").chmod(0o755)
    assert scan_folder(tmp_path / "y").roots[0].content != first


def test_the_rest_of_an_editables_folder_is_loose_code(tmp_path: Path) -> None:
    """Somebody who works beside an editable package ships the scripts there; the package comes as its wheel."""
    write(tmp_path, "pyproject.toml", "pkg/__init__.py", "single.py", "analysis.py", "helpers/__init__.py")
    editable = Editable(name="pkg", version="1", path=str(tmp_path), roots=(str(tmp_path),), imports=("pkg", "single"))
    assert shipped(scan_folder(tmp_path, editables=[editable])) == {"analysis.py", "helpers/__init__.py"}


def test_a_hooked_editable_that_tells_no_place_keeps_its_sources_to_itself(tmp_path: Path) -> None:
    """meson-python's hook names packages alone: their sources, not compiled, must not hide the wheel's on the nodes."""
    write(tmp_path, "meson.build", "demo/__init__.py", "analysis.py")
    editable = Editable(name="demo", version="1", path=str(tmp_path), imports=("demo",))
    assert shipped(scan_folder(tmp_path, editables=[editable])) == {"analysis.py"}


def test_ten_thousand_files_are_walked_quickly(tmp_path: Path) -> None:
    """Data that stays costs a name in a listing; the scan of a large folder stays well below a second."""
    write(tmp_path, "a.py", ".gitignore", text="*.log\n__pycache__/\n")
    (tmp_path / "data").mkdir()
    for number in range(10_000):
        (tmp_path / "data" / f"{number}.csv").touch()
    started = time.perf_counter()
    assert shipped(scan_folder(tmp_path)) == {"a.py"}
    assert time.perf_counter() - started < 1, sys.version


def test_a_tagged_cache_is_no_code(tmp_path: Path) -> None:
    """A folder with a CACHEDIR.TAG is left out, whatever lies in it; the same folder without it is code."""
    write(tmp_path, "main.py", "cache/work/module.py")
    assert shipped(scan_folder(tmp_path)) == {"main.py", "cache/work/module.py"}
    write(tmp_path, "cache/CACHEDIR.TAG")
    assert shipped(scan_folder(tmp_path)) == {"main.py"}
