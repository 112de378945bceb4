"""Editables as the usual build back ends make them: installed, found by a scan, built, imported from their layer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from likewise.errors import BuildError
from likewise.layers.editable import Built, build_editables
from likewise.model.editable import Editable
from likewise.model.layer import LayerSource
from likewise.scanner.census import take_census
from likewise.scanner.probe import probe_python
from support.code import write
from support.prefixes import UV, clean_environ, make_venv, run
from support.trees import Notes

SETUPTOOLS = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "1.0"
"""

C_SOURCE = """
#include <Python.h>
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "{name}", NULL, -1, NULL}};
PyMODINIT_FUNC PyInit_{name}(void) {{
    PyObject *m = PyModule_Create(&module);
    PyModule_AddIntConstant(m, "answer", 42);
    return m;
}}
"""

SETUP_C = """
from setuptools import Extension, setup
setup(ext_modules=[Extension("demo.fast", ["csource/fast.c"])], packages=["demo"])
"""


def install(venv: Path, *trees: Path, isolated: bool = True, more: tuple[str, ...] = ()) -> Path:
    """A venv with `more` installed, and then each tree as an editable; its python executable."""
    python = make_venv(venv, *more)
    flags = [] if isolated else ["--no-build-isolation"]
    for tree in trees:
        run(UV, "pip", "install", "--quiet", "--no-deps", "--python", python, *flags, "-e", tree)
    return python


def build(python: Path, work: Path) -> tuple[Built, dict[str, Editable]]:
    editables = take_census(probe_python(python)).editables
    return build_editables(editables.values(), python=str(python), notes=Notes(), work=work), editables


def import_from(layer: LayerSource, python: Path, code: str) -> str:
    """Run `code` with the layer's files as the only thing on the path."""
    first = next(f for f in layer.files if f.entry.path.startswith("purelib/"))
    purelib = first.path[: -len(first.entry.path)] + "purelib"
    done = subprocess.run(
        [python, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {purelib!r})\n{code}"],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.registry
def test_setuptools_with_a_c_extension_and_an_import_hook(tmp_path: Path) -> None:
    """A flat layout gets a hook, the extension is built anew for the wheel, and generated modules come along."""
    tree = tmp_path / "demo"
    write(tree, "pyproject.toml", text=SETUPTOOLS.format(name="demo"))
    write(tree, "setup.py", text=SETUP_C)
    write(tree, "csource/fast.c", text=C_SOURCE.format(name="fast"))
    write(tree, "demo/__init__.py", text="from demo.fast import answer\nfrom demo._made import extra\n")
    write(tree, "demo/_made.py", text="extra = 1\n")
    write(tree, ".gitignore", text="*.so\n_made.py\nbuild/\n*.egg-info/\n")
    run("git", "init", "-q", tree)
    python = install(tmp_path / "venv", tree)
    assert list((tree / "demo").glob("fast.*.so")), "the editable install compiled in place"
    before = {str(p): p.stat().st_mtime_ns for p in tree.rglob("*") if ".git" not in p.parts}

    built, editables = build(python, tmp_path / "work")
    assert "demo" in editables["demo"].mapping, "this should be a hook"
    assert built.problems == ()
    answer = import_from(
        built.sources["demo"], python, "import demo; print(demo.answer, demo.extra, demo.fast.__file__)"
    )
    assert answer.startswith("42 1 ")
    assert str(tree) not in answer
    assert {str(p): p.stat().st_mtime_ns for p in tree.rglob("*") if ".git" not in p.parts} == before
    assert build(python, tmp_path / "work")[0].reused == 1


@pytest.mark.registry
def test_hatchling_in_src_layout_with_data_and_a_script(tmp_path: Path) -> None:
    """Data files and entry points come with the wheel; the script itself is left to the node."""
    tree = tmp_path / "demo"
    pyproject = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    pyproject += '[project]\nname = "demo"\nversion = "1.0"\nscripts = {tell = "demo:tell"}\n'
    write(tree, "pyproject.toml", text=pyproject)
    write(tree, "src/demo/__init__.py", "src/demo/data/table.csv", "tests/test_demo.py")
    python = install(tmp_path / "venv", tree)
    built, _ = build(python, tmp_path / "work")
    assert {f.entry.path for f in built.sources["demo"].files} == {
        "purelib/demo/__init__.py",
        "purelib/demo/data/table.csv",
        "purelib/demo-1.0.dist-info/METADATA",
        "purelib/demo-1.0.dist-info/WHEEL",
        "purelib/demo-1.0.dist-info/entry_points.txt",
    }
    assert built.problems == ()


@pytest.mark.registry
def test_a_version_from_git_is_the_installed_one_and_tracked_data_is_found(tmp_path: Path) -> None:
    """setuptools-scm asks git for files, too; later commits don't change what the environment calls the version."""
    tree = tmp_path / "demo"
    text = SETUPTOOLS.format(name="demo").replace('["setuptools"]', '["setuptools", "setuptools-scm"]')
    write(tree, "pyproject.toml", text=text.replace('version = "1.0"', 'dynamic = ["version"]\n[tool.setuptools_scm]'))
    write(tree, "src/demo/__init__.py", "src/demo/table.csv")
    git = ("git", "-C", tree, "-c", "user.name=x", "-c", "user.email=x@example.com")
    run("git", "init", "-q", tree)
    run(*git, "add", ".")
    run(*git, "commit", "-q", "-m", "first")
    run(*git, "tag", "v1.2")
    python = install(tmp_path / "venv", tree)
    write(tree, "README", text="more")
    run(*git, "add", "README")
    run(*git, "commit", "-q", "-m", "second")
    index = (tree / ".git" / "index").read_bytes()

    built, editables = build(python, tmp_path / "work")
    assert (editables["demo"].version, built.sources["demo"].version) == ("1.2", "1.2")
    assert "purelib/demo/table.csv" in {f.entry.path for f in built.sources["demo"].files}
    assert built.problems == ()
    assert (tree / ".git" / "index").read_bytes() == index


SETUP_UNDECLARED = """
import numerics  # as crick 0.0.3 needs numpy and Cython, without saying so
from setuptools import Extension, setup
setup(name="demo", version="1.0", packages=["demo"],
      ext_modules=[Extension("demo.fast", [numerics.write_source()])])
"""

NUMERICS = """
SOURCE = {source!r}
def write_source():
    open("fast.c", "w").write(SOURCE)
    return "fast.c"
"""


@pytest.mark.registry
def test_undeclared_build_requirements_are_found_in_the_environment(tmp_path: Path) -> None:
    """The isolated build fails, the second one uses what is installed; when that changes, it is built again."""
    helper = tmp_path / "numerics"
    write(helper, "pyproject.toml", text=SETUPTOOLS.format(name="numerics"))
    write(helper, "numerics.py", text=NUMERICS.format(source=C_SOURCE.format(name="fast")))
    tree = tmp_path / "demo"
    write(tree, "setup.py", text=SETUP_UNDECLARED)
    write(tree, "demo/__init__.py", text="from demo.fast import answer\n")
    python = install(tmp_path / "venv", tree, isolated=False, more=("setuptools", str(helper)))

    built, _ = build(python, tmp_path / "work")
    (note,) = built.problems
    assert (note.code, note.subject) == ("built-without-isolation", "demo")
    assert "numerics" in note.message
    assert import_from(built.sources["demo"], python, "import demo; print(demo.answer)") == "42"
    assert build(python, tmp_path / "work")[0].reused == 1
    write(Path(probe_python(python).paths["purelib"]), "numerics_plugin-1.dist-info/METADATA")
    assert build(python, tmp_path / "work")[0].built == 1


@pytest.mark.registry
def test_without_a_network_the_environments_own_back_end_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No index answers and nothing is cached: setuptools in the environment does it; without it, there are words."""
    tree = tmp_path / "demo"
    write(tree, "pyproject.toml", text=SETUPTOOLS.format(name="demo"))
    write(tree, "setup.py", text=SETUP_C)
    write(tree, "csource/fast.c", text=C_SOURCE.format(name="fast"))
    write(tree, "demo/__init__.py", text="from demo.fast import answer\n")
    python = install(tmp_path / "venv", tree, isolated=False, more=("setuptools",))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://someone:canary@127.0.0.1:9/simple")
    built, _ = build(python, tmp_path / "work")
    assert [p.code for p in built.problems] == ["built-without-isolation"]
    assert import_from(built.sources["demo"], python, "import demo; print(demo.answer)") == "42"

    run(UV, "pip", "uninstall", "--quiet", "--python", python, "setuptools")
    with pytest.raises(BuildError) as caught:
        build(python, tmp_path / "other work")
    assert "setuptools" in str(caught.value)
    assert "canary" not in str(caught.value) + repr(caught.value.details)
