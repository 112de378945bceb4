"""What a build can see of a source tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from likewise.errors import BuildError
from likewise.layers import source_tree
from likewise.layers.source_tree import TreeChangedError, copy_tree, read_tree
from support.code import Remembered, write
from support.prefixes import make_venv, run


def paths(root: Path, **options: object) -> set[str]:
    return {f.path for f in read_tree(str(root), **options).files}  # type: ignore[arg-type]


def test_without_git_all_but_caches_outputs_prefixes_and_secrets(tmp_path: Path) -> None:
    """Dot-folders, build outputs and other prefixes don't count, and data in the package does."""
    root = tmp_path / "demo"
    write(root, "setup.py", "demo/__init__.py", "demo/t.csv", "demo/build/x.txt", "src/fast.c", ".env", "id_rsa")
    write(root, "build/lib/x.py", "dist/a.whl", "demo.egg-info/SOURCES.txt", ".tox/x.py", "demo/__pycache__/a.pyc")
    make_venv(root / "venv")
    assert paths(root) == {"setup.py", "demo/__init__.py", "demo/t.csv", "demo/build/x.txt", "src/fast.c"}


def test_with_git_what_is_tracked_what_is_not_ignored_and_what_lies_in_the_package(tmp_path: Path) -> None:
    """An ignored module in the import package is taken by back ends, an ignored data folder beside it is not."""
    root = tmp_path / "demo"
    write(root, ".gitignore", text="*.gen.py\n_made.py\ndata/\nbuild/\n.venv\n")
    write(root, "setup.py", "demo/__init__.py", "demo/_made.py", "data/big.csv", "new.py", "tests/certs/test.key")
    write(root, "build/lib/x.py", "demo/__pycache__/a.pyc", ".env")
    run("git", "init", "-q", root)
    run("git", "-C", root, "add", ".gitignore", "setup.py", "demo/__init__.py", "tests")
    seen = {".gitignore", "setup.py", "demo/__init__.py", "new.py", "tests/certs/test.key"}
    assert paths(root) == seen
    assert paths(root, packages=[str(root / "demo")]) == seen | {"demo/_made.py"}


def test_a_tree_that_an_outer_checkout_ignores_is_read_from_the_disk(tmp_path: Path) -> None:
    """An unpacked sdist in an ignored folder is a source tree all the same."""
    run("git", "init", "-q", tmp_path)
    write(tmp_path, ".gitignore", text="vendor/\n")
    write(tmp_path, "vendor/demo/setup.py", "vendor/demo/demo.py")
    assert paths(tmp_path / "vendor" / "demo") == {"setup.py", "demo.py"}


def test_a_build_that_reaches_above_its_folder_gets_the_whole_checkout(tmp_path: Path) -> None:
    """A project of a monorepo whose build names ``../`` is copied with what is there."""
    run("git", "init", "-q", tmp_path)
    write(tmp_path, "README.md", "cpp/core.c", "python/demo.py", "python/pyproject.toml")
    assert paths(tmp_path / "python") == {"demo.py", "pyproject.toml"}
    write(tmp_path, "python/pyproject.toml", text='readme = "../README.md"\n')
    tree = read_tree(str(tmp_path / "python"))
    assert {f.path for f in tree.files} == {"README.md", "cpp/core.c", "python/demo.py", "python/pyproject.toml"}
    project = copy_tree(tree, tmp_path / "copy")
    assert (project / "../cpp/core.c").read_text() == "x = 1\n"
    assert (project / "demo.py").exists()


def test_submodules_and_links_are_copied_as_what_they_lead_to(tmp_path: Path) -> None:
    """The copy stands alone: submodules, linked files; no key outside the tree, and no loop."""
    write(tmp_path, "sub/core.c", "away/id_rsa", "away/folder/x.py")
    run("git", "init", "-q", tmp_path / "sub")
    run("git", "-C", tmp_path / "sub", "add", ".")
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    run("git", "-C", tmp_path / "sub", *identity, "commit", "-q", "-m", "x")
    root = tmp_path / "demo"
    write(root, "setup.py", "shared/util.py")
    run("git", "init", "-q", root)
    run("git", "-C", root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", tmp_path / "sub", "core")
    (root / "util.py").symlink_to("shared/util.py")
    (root / "linked").symlink_to("shared")
    (root / "key.txt").symlink_to("../away/id_rsa")
    (root / "folder").symlink_to("../away/folder")
    (root / "shared" / "up").symlink_to("..")
    tree = read_tree(str(root))
    assert {f.path for f in tree.files} == {
        ".gitmodules",
        "setup.py",
        "core/core.c",
        "shared/util.py",
        "util.py",
        "linked/util.py",
    }
    copy_tree(tree, tmp_path / "copy")
    assert not any(path.is_symlink() for path in (tmp_path / "copy").rglob("*"))


def test_data_that_git_does_not_track_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gigabytes beside a package are neither read nor copied; a tree full of files ends with an error."""
    write(tmp_path, "setup.py", "demo.py")
    with open(tmp_path / "model.bin", "wb") as file:
        file.truncate(5 * 10**9)
    tree = read_tree(str(tmp_path))
    assert {f.path for f in tree.files} == {"setup.py", "demo.py"}
    assert tree.large == ("model.bin",)
    write(tmp_path, *(f"photos/{n}.jpg" for n in range(20)))
    monkeypatch.setattr(source_tree, "MAX_FILES", 10)
    with pytest.raises(BuildError, match="'photos'"):
        read_tree(str(tmp_path))


def test_the_digest_is_of_contents_names_and_executable_bits(tmp_path: Path) -> None:
    """Times and places don't count; each of the others does. Known stat facts save reading."""
    write(tmp_path / "a", "setup.py", "demo.py")
    write(tmp_path / "b", "setup.py", "demo.py")
    facts = Remembered()
    first = read_tree(str(tmp_path / "a"), facts=facts).digest
    assert read_tree(str(tmp_path / "b")).digest == first
    assert read_tree(str(tmp_path / "a"), facts=facts).digest == first
    assert len(facts.hashed) == 2
    (tmp_path / "b" / "demo.py").chmod(0o755)
    second = read_tree(str(tmp_path / "b")).digest
    os.rename(tmp_path / "b" / "demo.py", tmp_path / "b" / "other.py")
    third = read_tree(str(tmp_path / "b")).digest
    (tmp_path / "b" / "other.py").write_text("x = 2\n")
    assert len({first, second, third, read_tree(str(tmp_path / "b")).digest}) == 4


def test_a_file_that_changed_since_the_look_is_not_copied(tmp_path: Path) -> None:
    """What is built is what the digest says, or nothing."""
    write(tmp_path / "demo", "setup.py", "demo.py")
    tree = read_tree(str(tmp_path / "demo"))
    (tmp_path / "demo" / "demo.py").write_text("edited\n")
    with pytest.raises(TreeChangedError, match=r"demo\.py"):
        copy_tree(tree, tmp_path / "copy")
