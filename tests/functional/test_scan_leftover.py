"""What lies in site-packages and belongs to nobody: loose modules are shipped, what the machine put there is not."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from likewise.errors import ScanError
from likewise.model.snapshot import CodePosition, Severity
from likewise.scanner import scan_prefix
from likewise.scanner.code import Limits
from likewise.scanner.probe import probe_python
from support.prefixes import UV, make_venv, run
from support.scanning import look, make_wheel, pip_list, problems, shipped, site_of, versions, write_files


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run in an empty folder, so that no loose code is found by chance."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A venv with one distribution."""
    return make_venv(tmp_path / "venv", make_wheel(tmp_path, "owner", "1.0", {"owned/__init__.py": ""}))


@pytest.fixture
def site(python: Path) -> Path:
    """Its site-packages."""
    return site_of(python)


def test_unowned_modules_and_packages_are_a_layer_of_their_own(python: Path, site: Path) -> None:
    """Modules, packages with their data, namespace folders and links to packages elsewhere are shipped together."""
    tree = write_files(
        site.parents[3] / "tree", {"linked/__init__.py": "", "linked/data.txt": "x", "linked/.git/x.py": ""}
    )
    write_files(
        site,
        {
            "single.py": "x = 1\n",
            "pack/__init__.py": "",
            "pack/data.json": "{}",
            "pack/.hidden": "",
            "pack/__pycache__/__init__.cpython-311.pyc": "",
            "space/inner/mod.py": "",
            "README.txt": "for people\n",
            "not-importable/x.py": "",
        },
    )
    (site / "linked").symlink_to(tree / "linked")
    scanned = look(python)
    assert set(shipped(scanned, "site-packages")) == {
        "purelib/single.py",
        "purelib/pack/__init__.py",
        "purelib/pack/data.json",
        "purelib/space/inner/mod.py",
        "purelib/linked/__init__.py",
        "purelib/linked/data.txt",
    }
    (root,) = scanned.snapshot.code
    assert (root.name, root.why, root.position, root.path) == (
        "site-packages",
        "site-packages",
        CodePosition.AFTER,
        str(site),
    )
    assert (root.files, root.content) == (6, scanned.sources["site-packages"].digest)


def test_a_file_dropped_into_a_package_goes_with_it(python: Path, site: Path) -> None:
    """What somebody put into an installed package is shipped with that package and no leftover."""
    (site / "owned" / "plugin.py").write_text("x = 1\n")
    scanned = look(python)
    assert "purelib/owned/plugin.py" in shipped(scanned, "owner")
    assert "site-packages" not in scanned.sources


def test_pth_files_with_code_stay_here(python: Path, site: Path) -> None:
    """A .pth that runs code and that nobody owns is the machine's: not shipped, and noted by name."""
    write_files(site, {"_virtualenv.pth": "import _virtualenv", "_virtualenv.py": "", "proxy_ca.pth": "import os; 1\n"})
    scanned = look(python)
    assert {p.subject for p in problems(scanned.snapshot, "machine-pth")} == {"_virtualenv.pth", "proxy_ca.pth"}
    assert {p.subject for p in problems(scanned.snapshot, "machine-module")} == {"_virtualenv.py"}
    assert all(p.severity is Severity.NOTE for p in scanned.snapshot.problems)
    assert "site-packages" not in scanned.sources


def test_sitecustomize_stays_here(python: Path, site: Path) -> None:
    """sitecustomize and usercustomize that nobody owns are the machine's; those of a distribution go with it."""
    write_files(site, {"usercustomize.py": ""})
    wheel = make_wheel(site.parents[3], "custom", "1.0", {"sitecustomize.py": ""})
    run(UV, "pip", "install", "--quiet", "--python", python, wheel)
    scanned = look(python)
    assert {p.subject for p in problems(scanned.snapshot, "machine-module")} == {"usercustomize.py"}
    assert "purelib/sitecustomize.py" in shipped(scanned, "custom")
    assert "site-packages" not in scanned.sources


def test_pth_files_with_paths_are_loose_code(python: Path, site: Path, tmp_path: Path) -> None:
    """Directories that an unowned .pth adds are code roots after site-packages, in the order of sys.path."""
    first = write_files(tmp_path / "first", {"one.py": "", "data.csv": "1"})
    second = write_files(tmp_path / "second", {"two.py": ""})
    (site / "b.pth").write_text(f"{second}\n/nowhere/at/all\n")
    (site / "a.pth").write_text(f"# mine\n\n{first}\n")
    scanned = look(python)
    roots = [(r.path, r.why) for r in scanned.snapshot.code if r.position is CodePosition.AFTER]
    assert roots[-2:] == [(str(first), "a.pth"), (str(second), "b.pth")]
    assert {path.rpartition("/")[2] for r in scanned.snapshot.code for path in shipped(scanned, r.name)} >= {
        "one.py",
        "two.py",
    }
    assert problems(scanned.snapshot, "machine-pth") == []


def test_a_pth_into_its_own_site_directory_works_on_the_nodes_too(python: Path, site: Path, tmp_path: Path) -> None:
    """A folder of site-packages that a .pth adds is shipped in its place, with a .pth of that line alone."""
    write_files(site, {"with-in/three.py": "", "mine.pth": f"with-in\n{tmp_path}\n"})
    scanned = look(python)
    files = {file.entry.path: file for file in scanned.sources["site-packages"].files}
    assert set(files) == {"purelib/with-in/three.py", "purelib/mine.pth"}
    assert files["purelib/mine.pth"].data == b"with-in\n"


@pytest.mark.registry
@pytest.mark.parametrize("zipped", [False, True])
def test_an_egg_is_shipped_as_an_egg(zipped: bool, tmp_path: Path) -> None:
    """What ``setup.py install`` leaves is a distribution, and the .pth that puts the egg on sys.path goes along."""
    python = make_venv(tmp_path / "venv", "pip", "setuptools<80", "wheel")
    setup = f"name='yolk', version='1.0', py_modules=['yolk'], install_requires=['wheel'], zip_safe={zipped}"
    tree = write_files(
        tmp_path / "tree", {"setup.py": f"import setuptools\nsetuptools.setup({setup})", "yolk.py": "x = 1\n"}
    )
    run(python, "setup.py", "--quiet", "install", cwd=tree)
    (egg,) = site_of(python).glob("yolk*.egg")
    scanned = look(python)
    assert versions(scanned.snapshot) == pip_list(python, python)
    yolk = scanned.snapshot.get("yolk")
    assert yolk is not None
    assert (yolk.version, yolk.imports, yolk.requires) == ("1.0", ("yolk",), ("wheel",))
    assert f"purelib/{egg.name}" + ("" if zipped else "/yolk.py") in shipped(scanned, "yolk")
    assert f"purelib/{egg.name}" + ("" if zipped else "/EGG-INFO/PKG-INFO") in shipped(scanned, "yolk")
    (pth,) = scanned.sources["site-packages"].files
    assert (pth.entry.path, pth.data) == ("purelib/easy-install.pth", f"{egg.name}\n".encode())
    (root,) = scanned.snapshot.code
    assert root.name == "site-packages"


def test_easy_install_pth_is_no_code_of_anybodys(python: Path, site: Path, tmp_path: Path) -> None:
    """The lines that setuptools writes around its paths are not reported."""
    folder = write_files(tmp_path / "plain", {"plain.py": ""})
    (site / "easy-install.pth").write_text(
        f"import sys; sys.__plen = len(sys.path)\n{folder}\n"
        "import sys; new=sys.path[sys.__plen:]; del sys.path[sys.__plen:]; sys.path[0:0]=new\n"
    )
    scanned = look(python)
    assert [(r.path, r.why) for r in scanned.snapshot.code] == [(str(folder), "easy-install.pth")]
    assert problems(scanned.snapshot, "machine-pth") == []


def test_a_site_directory_of_loose_files_alone(tmp_path: Path) -> None:
    """A site directory without any distribution is looked into as well."""
    python = make_venv(tmp_path / "bare")
    write_files(site_of(python), {"lonely.py": ""})
    assert set(shipped(look(python), "site-packages")) == {"purelib/lonely.py"}


def test_too_much_of_it_is_an_error_that_names_the_biggest(python: Path, site: Path, tmp_path: Path) -> None:
    """Unowned files beyond the limit stop the scan, and the error says which they are."""
    write_files(site, {"huge/__init__.py": "", "huge/blob.bin": "x" * 5000, "small.py": ""})
    with pytest.raises(ScanError, match="huge") as caught:
        scan_prefix(probe_python(python), facts_dir=tmp_path / "facts", limits=Limits(max_bytes=4000))
    assert caught.value.where == str(site)
    assert "max-bytes" in caught.value.todo


def test_a_link_that_leads_in_circles(python: Path, site: Path) -> None:
    """A symlink loop in an unowned package ends; its files are shipped once."""
    write_files(site, {"loop/__init__.py": ""})
    (site / "loop" / "again").symlink_to(site / "loop")
    (site / "selfish.py").symlink_to(site / "selfish.py")
    assert set(shipped(look(python), "site-packages")) == {"purelib/loop/__init__.py"}


def test_names_and_contents_that_must_not_travel(python: Path, site: Path) -> None:
    """In an unowned package, a name that is no Unicode is an error, a secret a note; the rest is shipped."""
    write_files(site, {"mine/__init__.py": "", "mine/prod.env": "PASSWORD=x", "mine/id_rsa": "key"})
    Path(os.fsdecode(os.fsencode(site) + b"/mine/\xff.py")).touch()
    scanned = look(python)
    assert set(shipped(scanned, "site-packages")) == {"purelib/mine/__init__.py"}
    assert {p.severity for p in problems(scanned.snapshot, "bad-path")} == {Severity.ERROR}
    assert len(problems(scanned.snapshot, "secret-left-out")) == 2
    msgspec.json.encode(scanned.snapshot)


def test_a_pth_where_python_reads_none(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .pth in a PYTHONPATH folder adds nothing here, and so nothing on the nodes."""
    extra = tmp_path / "extra"
    wheel = make_wheel(tmp_path, "more", "1.0", {"more.py": ""})
    run(UV, "pip", "install", "--quiet", "--target", extra, wheel)
    unseen = write_files(tmp_path / "unseen", {"unseen.py": ""})
    write_files(extra, {"idle.pth": f"{unseen}\nsub-dir\n", "sub-dir/x.py": ""})
    monkeypatch.setenv("PYTHONPATH", str(extra))
    scanned = look(python)
    assert scanned.snapshot.get("more") is not None
    assert scanned.snapshot.code == ()


def test_a_loose_module_before_a_distributions(python: Path, site: Path, tmp_path: Path) -> None:
    """Where an unowned module of an earlier site directory hides a distribution's file, it is the one shipped."""
    extra = tmp_path / "extra"
    run(UV, "pip", "install", "--quiet", "--target", extra, make_wheel(tmp_path, "more", "1.0", {"more.py": ""}))
    run(UV, "pip", "install", "--quiet", "--python", python, make_wheel(tmp_path, "late", "1.0", {"same.py": "late"}))
    write_files(extra, {"same.py": "early"})
    write_files(site, {f"{tmp_path.name}_overlay.pth": f"import site, sys; site.addsitedir({str(extra)!r}); "
                       f"sys.path.remove({str(extra)!r}); sys.path.insert(1, {str(extra)!r})\n"})  # fmt: skip
    scanned = look(python)
    assert shipped(scanned, "site-packages")["purelib/same.py"] == str(extra / "same.py")
    assert "purelib/same.py" not in shipped(scanned, "late")
    assert "same.py" in problems(scanned.snapshot, "hidden-path")[0].message
