"""The traps of installed distributions, each in a real prefix made for it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from likewise.model.snapshot import OriginKind, Severity
from likewise.scanner import scan_prefix
from likewise.scanner.probe import probe_python
from support.prefixes import UV, make_venv, run
from support.scanning import (
    look,
    make_project,
    make_wheel,
    metadata,
    pip_list,
    problems,
    shipped,
    site_of,
    venv_with_pip,
    versions,
    write_files,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests run in an empty folder, so that no loose code is found by chance."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A venv with nothing in it."""
    return make_venv(tmp_path / "venv")


@pytest.fixture
def site(python: Path) -> Path:
    """Its site-packages."""
    return site_of(python)


@pytest.fixture(scope="module")
def lister(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with a current pip, to list other prefixes with."""
    return venv_with_pip(tmp_path_factory.mktemp("lister"))


def install(python: Path, what: Path | str) -> None:
    """Install with uv, as copies: tests change the files."""
    run(UV, "pip", "install", "--quiet", "--link-mode", "copy", "--python", python, what)


def first_found(python: Path, name: str) -> str:
    """The version that importlib.metadata finds in the prefix itself."""
    return run(python, "-c", f"import importlib.metadata as m; print(m.version({name!r}))").strip()


def test_pip_leftovers_are_not_distributions(python: Path, site: Path) -> None:
    """Folders that pip renamed to ~ while uninstalling are neither listed nor shipped, and noted."""
    write_files(site, {"~umpy-1.0.dist-info/METADATA": metadata("numpy", "1.0"), "~umpy/__init__.py": ""})
    scanned = look(python)
    assert scanned.snapshot.distributions == ()
    assert scanned.sources == {}
    assert {p.subject for p in problems(scanned.snapshot, "pip-leftover")} == {"~umpy", "~umpy-1.0.dist-info"}


def test_of_two_dist_info_the_one_that_python_finds_wins(python: Path, site: Path, tmp_path: Path) -> None:
    """Two dist-info for one distribution: what importlib.metadata finds is listed, the other is named in a warning."""
    run(
        UV, "pip", "install", "--quiet", "--python", python, make_wheel(tmp_path, "twice", "1.0", {"twice.py": "v = 1"})
    )
    write_files(site, {"twice-2.0.dist-info/METADATA": metadata("twice", "2.0")})
    scanned = look(python)
    winner = first_found(python, "twice")
    assert versions(scanned.snapshot) == {"twice": winner}
    loser = ({"1.0", "2.0"} - {winner}).pop()
    (problem,) = problems(scanned.snapshot, "duplicate-dist-info")
    assert problem.severity is Severity.WARNING
    assert f"twice-{winner}.dist-info first" in problem.message
    assert f"twice-{loser}.dist-info" in problem.message
    everything = {**shipped(scanned, "twice"), **shipped(scanned, "site-packages")}
    assert "purelib/twice.py" in everything, "nothing that can be imported is lost"
    assert not any(f"twice-{loser}" in path for path in everything)


def test_an_interrupted_uninstall_does_not_hide_the_sound_one(python: Path, site: Path, tmp_path: Path) -> None:
    """A dist-info without METADATA and RECORD counts for nothing, wherever the file system lists it."""
    for version in ("0.1", "3.0"):
        (site / f"sound-{version}.dist-info").mkdir()
    install(python, make_wheel(tmp_path, "sound", "2.0", {"sound.py": ""}))
    for version in ("0.1", "3.0"):  # uv removed them
        (site / f"sound-{version}.dist-info").mkdir(exist_ok=True)
    snapshot = look(python).snapshot
    assert versions(snapshot) == {"sound": "2.0"}
    assert {p.subject for p in problems(snapshot, "no-metadata")} == {"sound-0.1.dist-info", "sound-3.0.dist-info"}


def test_without_metadata_the_folder_tells_the_name(python: Path, site: Path, tmp_path: Path) -> None:
    """A dist-info that lost its METADATA but has its RECORD is shipped under the name and version of its folder."""
    install(python, make_wheel(tmp_path, "lost", "1.0", {"lost.py": ""}))
    (site / "lost-1.0.dist-info" / "METADATA").unlink()
    scanned = look(python)
    assert versions(scanned.snapshot) == {"lost": "1.0"}
    assert "purelib/lost.py" in shipped(scanned, "lost")
    assert problems(scanned.snapshot, "no-metadata")[0].subject == "lost-1.0.dist-info"
    assert "METADATA" in problems(scanned.snapshot, "missing-files")[0].message


def test_nameless_metadata(python: Path, site: Path) -> None:
    """METADATA without a name takes it from the folder; UNKNOWN, setuptools' word for none, is listed and noted."""
    write_files(
        site,
        {
            "anon-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nVersion: 1.0\n\n",
            "UNKNOWN-0.0.0.dist-info/METADATA": metadata("UNKNOWN", "0.0.0"),
        },
    )
    snapshot = look(python).snapshot
    assert versions(snapshot) == {"anon": "1.0", "unknown": "0.0.0"}
    assert {p.subject for p in problems(snapshot, "nameless")} == {"anon-1.0.dist-info", "UNKNOWN-0.0.0.dist-info"}


def test_odd_characters_in_names(python: Path, site: Path, lister: Path) -> None:
    """Names are normalized; those that no distribution may have are a problem, and their modules are not lost."""
    write_files(
        site,
        {
            "Odd.Name_X-1.0.dist-info/METADATA": metadata("Odd.Name_X", "1.0"),
            "sp ace-1.0.dist-info/METADATA": metadata("sp ace", "1.0"),
            "na\u00efve-1.0.dist-info/METADATA": metadata("na\u00efve", "1.0"),
            "space_module.py": "",
            "\U0001f40d.py": "",
        },
    )
    scanned = look(python)
    assert versions(scanned.snapshot) == {"odd-name-x": "1.0"}
    assert pip_list(lister, python)["odd-name-x"] == "1.0"
    assert {p.subject for p in problems(scanned.snapshot, "invalid-name")} == {
        "sp ace-1.0.dist-info",
        "na\u00efve-1.0.dist-info",
    }
    assert set(shipped(scanned, "site-packages")) == {"purelib/space_module.py"}
    msgspec.json.encode(scanned.snapshot)


def test_a_file_name_that_is_no_unicode_is_named(python: Path, site: Path, tmp_path: Path) -> None:
    """A file whose name is no UTF-8 can't be in a layer: it is named, the rest is shipped, the snapshot stays JSON."""
    install(python, make_wheel(tmp_path, "bytey", "1.0", {"bytey/a.py": ""}))
    Path(os.fsdecode(os.fsencode(site) + b"/bytey/\xff.py")).touch()
    scanned = look(python)
    assert "purelib/bytey/a.py" in shipped(scanned, "bytey")
    assert any(p.severity is Severity.ERROR and "Unicode" in p.message for p in scanned.snapshot.problems)
    msgspec.json.encode(scanned.snapshot)


def test_bytes_that_are_no_utf8_in_metadata(python: Path, site: Path) -> None:
    """An author's name in Latin-1 does not stop the scan (it stops pip)."""
    folder = write_files(site, {"latin-1.0.dist-info/METADATA": ""}) / "latin-1.0.dist-info"
    (folder / "METADATA").write_bytes(b"Metadata-Version: 2.1\nName: latin\nVersion: 1.0\nAuthor: Andr\xe9\n\n")
    assert versions(look(python).snapshot) == {"latin": "1.0"}


def test_local_versions_are_kept_as_they_are(python: Path, site: Path, tmp_path: Path, lister: Path) -> None:
    """``2.1.0+cu126`` stays so."""
    run(
        UV, "pip", "install", "--quiet", "--python", python, make_wheel(tmp_path, "torchy", "2.1.0+cu126", {"t.py": ""})
    )
    assert versions(look(python).snapshot) == {"torchy": "2.1.0+cu126"} == pip_list(lister, python)


def test_egg_info_directories_and_files(python: Path, site: Path, lister: Path) -> None:
    """egg-info, as a directory with its requirements or as a single file, is a distribution with its modules."""
    write_files(
        site,
        {
            "eggy-1.0-py3.11.egg-info/PKG-INFO": metadata("eggy", "1.0"),
            "eggy-1.0-py3.11.egg-info/top_level.txt": "eggy\n",
            "eggy-1.0-py3.11.egg-info/requires.txt": "numpy>=1\n\n[plot]\nmatplotlib\n\n[:python_version < '3']\nsix\n",
            "eggy/__init__.py": "",
            "filed-2.0.egg-info": metadata("filed", "2.0"),
            "filed.py": "",
        },
    )
    scanned = look(python)
    assert versions(scanned.snapshot) == {"eggy": "1.0", "filed": "2.0"} == pip_list(lister, python)
    eggy = scanned.snapshot.get("eggy")
    assert eggy is not None
    assert eggy.requires == ("numpy>=1", 'matplotlib; extra == "plot"', "six; python_version < '3'")
    assert eggy.provides_extras == ("plot",)
    assert "purelib/eggy/__init__.py" in shipped(scanned, "eggy")
    everything = {**shipped(scanned, "filed"), **shipped(scanned, "site-packages")}
    assert {"purelib/filed.py", "purelib/filed-2.0.egg-info"} <= set(everything)


def test_missing_and_modified_files(python: Path, site: Path, tmp_path: Path) -> None:
    """What RECORD lists and is not there is missing, with a warning; what differs from RECORD is modified."""
    wheel = make_wheel(tmp_path, "patched", "1.0", {"patched/a.py": "a = 1\n", "patched/b.py": "b = 1\n"})
    install(python, wheel)
    (site / "patched" / "a.py").write_text("a = 2\n")
    (site / "patched" / "b.py").unlink()
    scanned = look(python)
    patched = scanned.snapshot.get("patched")
    assert patched is not None
    assert patched.modified == ("purelib/patched/a.py",)
    assert patched.missing == ("purelib/patched/b.py",)
    assert "patched/b.py" in problems(scanned.snapshot, "missing-files")[0].message
    assert "purelib/patched/b.py" not in shipped(scanned, "patched")


def test_a_path_claimed_twice_has_the_content_of_the_disk(python: Path, site: Path, tmp_path: Path) -> None:
    """Two distributions that own one path both ship what the disk has, and a note names them."""
    one = make_wheel(tmp_path, "cv-full", "1.0", {"cv/__init__.py": "kind = 'full'\n", "cv/gui.py": ""})
    two = make_wheel(tmp_path, "cv-headless", "1.0", {"cv/__init__.py": "kind = 'less'\n"})
    for wheel in (one, two):
        install(python, wheel)
    scanned = look(python)
    entries = {
        name: {file.entry.path: file.entry.sha256 for file in scanned.sources[name].files}
        for name in ("cv-full", "cv-headless")
    }
    assert entries["cv-full"]["purelib/cv/__init__.py"] == entries["cv-headless"]["purelib/cv/__init__.py"]
    full = scanned.snapshot.get("cv-full")
    assert full is not None
    assert full.modified == ("purelib/cv/__init__.py",)
    (problem,) = problems(scanned.snapshot, "shared-path")
    assert "cv_full" in problem.message
    assert "cv_headless" in problem.message


def test_names_that_differ_in_case_alone_are_refused(python: Path, tmp_path: Path) -> None:
    """A distribution whose files collide where case is ignored has no layer, and the error names it and them."""
    install(python, make_wheel(tmp_path, "cased", "1.0", {"cased/a.py": "", "cased/A.py": ""}))
    scanned = look(python)
    (problem,) = problems(scanned.snapshot, "unshippable")
    assert (problem.subject, problem.severity) == ("cased", Severity.ERROR)
    assert "cased/a.py" in problem.message
    cased = scanned.snapshot.get("cased")
    assert cased is not None
    assert cased.content is None
    assert "cased" not in scanned.sources


def test_a_record_that_escapes_is_refused_by_name(python: Path, site: Path, tmp_path: Path) -> None:
    """A RECORD that names a file outside the prefix does not ship it, and the problem names the distribution."""
    install(python, make_wheel(tmp_path, "thief", "1.0", {"thief.py": ""}))
    secret = tmp_path / "id_rsa"
    secret.write_text("secret")
    target = os.path.relpath(secret, site)
    with (site / "thief-1.0.dist-info" / "RECORD").open("a") as record:
        record.write(f"{target},,\n")
    scanned = look(python)
    assert str(secret) not in shipped(scanned, "thief").values()
    assert any(p.severity is Severity.ERROR and p.subject.startswith("thief") for p in scanned.snapshot.problems)


def test_namespace_packages_keep_their_parts_apart(python: Path, site: Path, tmp_path: Path) -> None:
    """Distributions that share a namespace package own their parts; a part that nobody owns is loose."""
    for part in ("one", "two"):
        wheel = make_wheel(tmp_path, f"ns-{part}", "1.0", {f"ns/{part}/__init__.py": ""})
        install(python, wheel)
    write_files(site, {"ns/three/__init__.py": ""})
    scanned = look(python)
    assert "purelib/ns/one/__init__.py" in shipped(scanned, "ns-one")
    assert not any("two" in path or "three" in path for path in shipped(scanned, "ns-one"))
    assert set(shipped(scanned, "site-packages")) == {"purelib/ns/three/__init__.py"}
    one = scanned.snapshot.get("ns-one")
    assert one is not None
    assert one.imports == ("ns",)


def test_pythonpath_with_installed_distributions(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lister: Path
) -> None:
    """A ``pip install --target`` folder on PYTHONPATH holds distributions, which come before those of the prefix."""
    extra = tmp_path / "extra"
    install(python, make_wheel(tmp_path, "both", "1.0", {"both.py": ""}))
    run(UV, "pip", "install", "--quiet", "--target", extra, make_wheel(tmp_path, "both", "2.0", {"both.py": "new = 1"}))
    (extra / "loose.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(extra))
    scanned = look(python)
    assert versions(scanned.snapshot) == {"both": "2.0"} == pip_list(lister, python, PYTHONPATH=str(extra))
    assert shipped(scanned, "both")["purelib/both.py"] == str(extra / "both.py")
    assert set(shipped(scanned, "site-packages")) == {"purelib/loose.py"}
    assert [root.name for root in scanned.snapshot.code] == ["site-packages"]


def test_a_source_tree_on_pythonpath_is_loose_code_with_metadata(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lister: Path
) -> None:
    """egg-info in a source tree on PYTHONPATH: the distribution is listed, its metadata shipped, its code loose."""
    tree = make_project(
        tmp_path / "tree", "treed", backend="setuptools.build_meta", requires="setuptools", files={"treed.py": ""}
    )
    write_files(tree, {"treed.egg-info/PKG-INFO": metadata("treed", "0.5"), "treed.egg-info/SOURCES.txt": "treed.py\n"})
    monkeypatch.setenv("PYTHONPATH", str(tree))
    scanned = look(python)
    assert versions(scanned.snapshot) == {"treed": "0.5"} == pip_list(lister, python, PYTHONPATH=str(tree))
    treed = scanned.snapshot.get("treed")
    assert treed is not None
    assert (treed.origin.kind, treed.origin.path) == (OriginKind.DIRECTORY, str(tree))
    assert all(path.startswith("purelib/treed.egg-info/") for path in shipped(scanned, "treed"))
    assert [(root.path, root.why) for root in scanned.snapshot.code] == [(str(tree), "PYTHONPATH")]


def test_stray_egg_info_in_the_working_directory(python: Path, elsewhere: Path, lister: Path) -> None:
    """egg-info that lies where one happens to stand is no distribution (pip agrees), and said so."""
    write_files(elsewhere, {"stray.egg-info/PKG-INFO": metadata("stray", "1.0"), "stray.py": ""})
    snapshot = look(python).snapshot
    assert versions(snapshot) == {} == pip_list(lister, python)
    (problem,) = problems(snapshot, "stray-egg-info")
    assert problem.subject == "stray"
    assert str(elsewhere) in problem.message


def test_a_deleted_working_directory(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan from a working directory that is gone finds the prefix all the same."""
    install(python, make_wheel(tmp_path, "here", "1.0", {"here.py": ""}))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    snapshot = look(python).snapshot
    assert versions(snapshot) == {"here": "1.0"}
    assert snapshot.code == ()


def test_a_deleted_working_directory_of_the_running_process(tmp_path: Path) -> None:
    """probe_here works, and says that there is no working directory, in a process whose own was deleted."""
    script = (
        "import os, sys, tempfile\n"
        "folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder); sys.path.insert(0, '')\n"
        "from likewise.scanner.probe import probe_here\n"
        "probe = probe_here(); print(repr(probe.cwd), '' in probe.sys_path)\n"
    )
    assert run(sys.executable, "-c", script).strip() == "'' False"


@pytest.mark.root
def test_files_that_cannot_be_read_are_named() -> None:
    """A module and a METADATA without read permission are errors that name the file; the rest is scanned."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        python = make_venv(Path(folder, "venv"), make_wheel(Path(folder), "open", "1.0", {"open_mod.py": ""}))
        site = site_of(python)
        write_files(site, {"closed.py": "x = 1", "shut-1.0.dist-info/METADATA": metadata("shut", "1.0")})
        (site / "shut-1.0.dist-info" / "RECORD").touch()
        for path in (site / "closed.py", site / "shut-1.0.dist-info" / "METADATA", site / "open_mod.py"):
            path.chmod(0)
        probe = probe_python(python)
        os.seteuid(65534)  # root may read everything
        try:
            snapshot = scan_prefix(probe, facts_dir=Path(folder, "facts")).snapshot
        finally:
            os.seteuid(0)
    errors = " ".join(p.message for p in snapshot.problems if p.severity is Severity.ERROR)
    for name in ("closed.py", "METADATA", "open_mod.py"):
        assert name in errors
    assert versions(snapshot) == {"open": "1.0", "shut": "1.0"}
