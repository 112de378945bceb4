"""Which directories of a process are loose code, decided from what it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.model.editable import Editable
from likewise.model.snapshot import CodePosition
from likewise.scanner.code_roots import candidates, package_parent, territory
from likewise.scanner.probe import MainModule, Probe
from support.code import make_probe


def roots(probe: Probe, *, skip: tuple[Path, ...] = (), pth: tuple[tuple[Path, str], ...] = (), editables=()):
    land = territory(probe, [str(p) for p in skip], editables)
    return candidates(probe, land=land, pth_dirs=[(str(path), name) for path, name in pth])


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("here", "first", "second", "added")]
    for folder in made:
        folder.mkdir()
    return made


def test_the_order_of_sys_path_is_kept_and_pth_directories_come_last(folders: list[Path], tmp_path: Path) -> None:
    """sys.path[0], PYTHONPATH, then what was inserted; what stands behind the library, and .pth lines, come after."""
    here, first, second, added = folders
    stdlib = "/nowhere/prefix/lib/python3.11"
    probe = make_probe([here, second, first, stdlib, added], pythonpath=[second, first])
    mine = tmp_path / "mine"
    mine.mkdir()
    found = [(Path(c.path).name, c.why, c.position.value) for c in roots(probe, pth=((mine, "mine.pth"),))]
    assert found == [
        ("here", "sys.path[0]", "before"),
        ("second", "PYTHONPATH", "before"),
        ("first", "PYTHONPATH", "before"),
        ("added", "sys.path", "after"),
        ("mine", "mine.pth", "after"),
    ]


def test_a_notebook_has_its_working_directory_even_when_sys_path_lost_it(folders: list[Path]) -> None:
    """Someone at a prompt imports from the working directory."""
    here, first, *_ = folders
    interactive = MainModule(interactive=True)
    assert [c.why for c in roots(make_probe([here], cwd=here, main=interactive))] == ["working directory"]
    lost = roots(make_probe([first], cwd=here, pythonpath=[first], main=interactive, safe_path=False))
    assert {c.path for c in lost} == {str(first), str(here)}
    safe = roots(make_probe([first], cwd=here, pythonpath=[first], main=interactive, safe_path=True))
    assert [c.path for c in safe] == [str(first)]


@pytest.mark.parametrize(
    ("main", "parent"),
    [
        (MainModule(file="/w/pkg/mod.py", spec_name="pkg.mod", package="pkg"), "/w"),
        (MainModule(file="/w/pkg/__main__.py", spec_name="pkg.__main__", package="pkg"), "/w"),
        (MainModule(file="/w/a/b/mod.py", package="a.b"), "/w"),
        (MainModule(file="/w/mod.py", spec_name="mod"), ""),
        (MainModule(file="/w/script.py"), ""),
        (MainModule(file="/w/elsewhere/mod.py", package="pkg"), ""),
        (MainModule(interactive=True), ""),
    ],
)
def test_package_parent(main: MainModule, parent: str) -> None:
    """The package's parent is known from the dotted name or `__package__`, when the folders bear those names."""
    assert package_parent(main) == parent


def test_a_module_of_a_package_brings_the_parent_of_the_package(folders: list[Path]) -> None:
    """A script that uses relative imports has its package's parent as a root, behind sys.path[0]."""
    here, first, *_ = folders
    (here / "pkg").mkdir()
    main = MainModule(file=str(here / "pkg" / "script.py"), package="pkg")
    found = roots(make_probe([here / "pkg", first], main=main, pythonpath=[first]))
    assert [(Path(c.path).name, c.why) for c in found] == [
        ("pkg", "sys.path[0]"),
        ("here", "package of __main__"),
        ("first", "PYTHONPATH"),
    ]


def test_a_console_script_has_no_root(tmp_path: Path) -> None:
    """sys.path[0] is the prefix's bin then, which holds no loose code; the site directories hold none either."""
    prefix = tmp_path / "prefix"
    site = prefix / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (prefix / "bin").mkdir()
    probe = make_probe(
        [prefix / "bin", prefix / "lib" / "python3.11", site, site / "extensions"],
        main=MainModule(file=str(prefix / "bin" / "tool")),
        prefix=prefix,
    )
    assert roots(probe, skip=(prefix, site)) == []


def test_a_folder_of_ones_own_beneath_the_prefix_is_loose_code(tmp_path: Path) -> None:
    """With Debian's Python the prefix is /usr, and images keep their application in /usr/src/app."""
    app = tmp_path / "usr" / "src" / "app"
    app.mkdir(parents=True)
    probe = make_probe([app], cwd=app, main=MainModule(interactive=True), prefix=tmp_path / "usr")
    assert [c.path for c in roots(probe, skip=(tmp_path / "usr",))] == [str(app)]


def test_hidden_folders_that_programs_put_on_sys_path_are_none(folders: list[Path], tmp_path: Path) -> None:
    """IPython appends ~/.ipython, where the history lies; a hidden folder that the user names is a root."""
    here, *_ = folders
    hidden = tmp_path / ".ipython"
    hidden.mkdir()
    assert [c.path for c in roots(make_probe([here, hidden]))] == [str(here)]
    assert len(roots(make_probe([here, hidden], pythonpath=[hidden]))) == 2


def test_one_directory_under_two_names_is_one_root(folders: list[Path], tmp_path: Path) -> None:
    """A link to a directory that is on sys.path already adds nothing; a directory inside another one does."""
    here, *_ = folders
    (tmp_path / "link").symlink_to(here)
    (here / "inner").mkdir()
    probe = make_probe([here, tmp_path / "link", here / "inner"], pythonpath=[tmp_path / "link", here / "inner"])
    assert [Path(c.path).name for c in roots(probe)] == ["here", "inner"]


def test_an_editable_root_is_loose_code_only_where_the_user_stands_in_it(folders: list[Path]) -> None:
    """The .pth line of an editable adds no root; working in its folder does, without what its wheel will have."""
    here, first, *_ = folders
    (here / "pkg").mkdir()
    editable = Editable(name="pkg", version="1", path=str(here), roots=(str(here),), imports=("pkg", "single"))
    behind = make_probe([first, "/nowhere/prefix/lib/python3.11", here])
    assert [c.path for c in roots(behind, skip=(here,), editables=[editable])] == [str(first)]
    inside = make_probe([here], cwd=here, main=MainModule(interactive=True))
    (found,) = roots(inside, skip=(here,), editables=[editable])
    assert {str(here / "pkg"), str(here / "single.py")} <= found.excluded


def test_files_and_missing_directories_on_sys_path_are_passed_over(folders: list[Path], tmp_path: Path) -> None:
    """A zip file, or an entry that does not exist, is no root."""
    (tmp_path / "code.zip").write_bytes(b"")
    found = roots(make_probe([folders[0], tmp_path / "code.zip", tmp_path / "gone"], pythonpath=[tmp_path / "gone"]))
    assert [(c.path, c.position) for c in found] == [(str(folders[0]), CodePosition.BEFORE)]
