"""Editable installs of every style, made by the back ends themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.model.editable import Editable
from likewise.model.snapshot import OriginKind
from support.prefixes import UV, make_venv, run
from support.scanning import look, make_project, make_wheel, problems, site_of, versions, write_files

pytestmark = pytest.mark.registry


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run in an empty folder, so that no loose code is found by chance."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)


def editable_install(python: Path, tree: Path) -> Editable:
    """Install `tree` as editable without build isolation; what the scan makes of it."""
    run(UV, "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--python", python, "-e", tree)
    scanned = look(python)
    (editable,) = scanned.editables
    listed = scanned.snapshot.get(editable.name)
    assert listed is not None
    assert listed.origin.kind is OriginKind.EDITABLE
    assert listed.origin.path == editable.path == str(tree)
    assert listed.content is None
    assert listed.imports == editable.imports
    assert editable.name not in scanned.sources
    assert scanned.snapshot.code == (), "what an editable puts on sys.path is no loose code"
    assert "site-packages" not in scanned.sources, "nor are the files that it lies behind"
    return editable


PACKAGE = {"src/demo_pkg/__init__.py": '"""Demo."""\n', "src/demo_pkg/sub.py": ""}
FLAT = {"demo_pkg/__init__.py": '"""Demo."""\n', "tests/__init__.py": ""}


@pytest.mark.parametrize(
    ("backend", "requires", "files", "more", "root"),
    [
        ("setuptools.build_meta", "setuptools", PACKAGE, "", "src"),
        (
            "hatchling.build",
            "hatchling",
            PACKAGE,
            '[tool.hatch.build.targets.wheel]\npackages = ["src/demo_pkg"]',
            "src",
        ),
        ("hatchling.build", "hatchling", FLAT, "", "."),
        ("flit_core.buildapi", "flit_core", PACKAGE, '[tool.flit.module]\nname = "demo_pkg"', "src"),
        (
            "poetry.core.masonry.api",
            "poetry-core",
            PACKAGE,
            '[tool.poetry]\npackages = [{ include = "demo_pkg", from = "src" }]',
            "src",
        ),
        ("uv_build", "uv_build", PACKAGE, "", "src"),
        ("pdm.backend", "pdm-backend", PACKAGE, "", "src"),
    ],
)
def test_editables_with_a_plain_path(
    backend: str, requires: str, files: dict[str, str], more: str, root: str, tmp_path: Path
) -> None:
    """A .pth with the import root, as most back ends write it: the root and the package in it are known."""
    tree = make_project(tmp_path / "tree", "demo-pkg", backend=backend, requires=requires, files=files, more=more)
    editable = editable_install(make_venv(tmp_path / "venv", requires, "editables"), tree)
    assert editable.roots == (str((tree / root).resolve()),)
    assert editable.imports == ("demo_pkg",)
    assert editable.mapping == {}


def test_setuptools_finder_hook(tmp_path: Path) -> None:
    """setuptools' import hook for a flat layout is read, not run: its mapping says where each package is."""
    tree = make_project(
        tmp_path / "tree",
        "demo-pkg",
        backend="setuptools.build_meta",
        requires="setuptools",
        files={"demo_pkg/__init__.py": "", "lib/renamed/__init__.py": ""},
        more='[tool.setuptools]\npackages = ["demo_pkg", "other"]\npackage-dir = {other = "lib/renamed"}',
    )
    editable = editable_install(make_venv(tmp_path / "venv", "setuptools"), tree)
    assert editable.roots == ()
    assert editable.mapping == {"demo_pkg": str(tree / "demo_pkg"), "other": str(tree / "lib" / "renamed")}
    assert editable.imports == ("demo_pkg", "other")


def test_the_editables_library(tmp_path: Path) -> None:
    """hatchling's exact mode uses the ``editables`` library's redirector."""
    tree = make_project(
        tmp_path / "tree",
        "demo-pkg",
        backend="hatchling.build",
        requires="hatchling",
        files=FLAT,
        more="[tool.hatch.build]\ndev-mode-exact = true\n[tool.hatch.build.targets.wheel]\npackages = ['demo_pkg']",
    )
    editable = editable_install(make_venv(tmp_path / "venv", "hatchling", "editables"), tree)
    assert editable.mapping == {"demo_pkg": str(tree / "demo_pkg")}
    assert editable.imports == ("demo_pkg",)


def test_setup_py_develop(tmp_path: Path) -> None:
    """An egg-link is an editable; the path that easy-install.pth adds is its root and no loose code."""
    python = make_venv(tmp_path / "venv", "setuptools<80", "wheel")
    tree = write_files(
        tmp_path / "tree",
        {
            "setup.py": "import setuptools\nsetuptools.setup(name='demo-pkg', version='1.0', py_modules=['demo_mod'])",
            "demo_mod.py": "x = 1\n",
        },
    )
    run(python, "setup.py", "--quiet", "develop", cwd=tree)
    assert (site_of(python) / "demo-pkg.egg-link").exists() or (site_of(python) / "demo_pkg.egg-link").exists()
    scanned = look(python)
    (editable,) = scanned.editables
    assert (editable.name, editable.version, editable.path) == ("demo-pkg", "1.0", str(tree))
    assert editable.roots == (str(tree),)
    assert editable.imports == ("demo_mod",)
    assert scanned.snapshot.code == ()
    listed = scanned.snapshot.get("demo-pkg")
    assert listed is not None
    assert listed.origin.kind is OriginKind.EDITABLE
    assert problems(scanned.snapshot, "shadowed-dist-info") == []
    assert problems(scanned.snapshot, "machine-pth") == []


def test_a_dangling_egg_link(tmp_path: Path) -> None:
    """An egg-link whose source tree is gone is a problem, not a crash."""
    python = make_venv(tmp_path / "venv")
    (site_of(python) / "gone.egg-link").write_text(f"{tmp_path}/nowhere\n.")
    snapshot = look(python).snapshot
    assert snapshot.distributions == ()
    assert "nowhere" in problems(snapshot, "dangling-egg-link")[0].message


def test_an_editable_whose_tree_is_gone(tmp_path: Path) -> None:
    """It is listed, named in an error, and not given to the builder."""
    python = make_venv(tmp_path / "venv", "flit_core")
    files = {"demo_pkg.py": '"""Demo."""\n'}
    tree = make_project(tmp_path / "tree", "demo-pkg", backend="flit_core.buildapi", requires="flit_core", files=files)
    editable_install(python, tree)
    tree.rename(tmp_path / "moved")
    scanned = look(python)
    assert scanned.editables == ()
    assert versions(scanned.snapshot)["demo-pkg"] == "1.0"
    assert "not there" in problems(scanned.snapshot, "vanished-editable")[0].message


def test_editables_without_direct_url(tmp_path: Path) -> None:
    """A distribution of nothing but metadata and a .pth that leads elsewhere is an editable (old poetry's are)."""
    python = make_venv(tmp_path / "venv")
    tree = make_project(
        tmp_path / "tree", "oldie", backend="poetry.core.masonry.api", requires="poetry-core", files={"oldie.py": ""}
    )
    wheel = make_wheel(tmp_path, "oldie", "1.0", {"oldie.pth": f"{tree}\n"})
    run(UV, "pip", "install", "--quiet", "--python", python, wheel)
    (site_of(python) / "oldie-1.0.dist-info" / "direct_url.json").unlink()
    (editable,) = look(python).editables
    assert (editable.path, editable.roots, editable.imports) == (str(tree), (str(tree),), ("oldie",))


def test_a_pth_of_an_ordinary_distribution_is_shipped_with_it(tmp_path: Path) -> None:
    """A distribution with modules and a .pth into its own folders is no editable (pywin32, setuptools' distutils)."""
    python = make_venv(tmp_path / "venv")
    wheel = make_wheel(tmp_path, "ordinary", "1.0", {"ordinary.pth": "inner\n", "inner/deep.py": "", "ordinary.py": ""})
    run(UV, "pip", "install", "--quiet", "--python", python, wheel)
    scanned = look(python)
    assert scanned.editables == ()
    assert {"purelib/ordinary.pth", "purelib/inner/deep.py"} <= {
        file.entry.path for file in scanned.sources["ordinary"].files
    }
