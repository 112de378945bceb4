"""A first scan believes RECORD where nothing speaks against it, and whoever reads the files later has the last word."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from likewise.errors import LayerError
from likewise.layers.pack import write_archive
from likewise.model.layer import layer_digest
from likewise.model.snapshot import Distribution
from likewise.scanner import Scanned, facts, files, inventory
from likewise.scanner.files import dist_files, layout_for
from support.layers import read_archive
from support.prefixes import UV, make_venv, run
from support.replica import NoFacts
from support.scanning import look, make_wheel, python_like, site_of, venv_with_pip, write_files

OLD, NEW = "x = 1\n", "x = 2\n"
HOUR = 3600 * 10**9


def edit(path: Path) -> None:
    """As an editor that writes into the file."""
    path.write_text(NEW)


def lengthen(path: Path) -> None:
    path.write_text(OLD + NEW)


def sed(path: Path) -> None:
    run("sed", "-i", "s/1/2/", path)


def touch(path: Path) -> None:
    path.touch()


def keep_the_time(path: Path) -> None:
    """As ``rsync --times`` and ``tar`` do: another file in its place, of the same size and with the same times."""
    before = path.stat()
    path.with_suffix(".new").write_text(NEW)
    os.utime(path.with_suffix(".new"), ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(path.with_suffix(".new"), path)


def hide(path: Path) -> None:
    """As ``cp -p`` does: written in place, the times of an older file."""
    before = path.stat()
    path.write_text(NEW)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def link(path: Path) -> None:
    path.rename(path.with_suffix(".txt"))
    path.symlink_to(path.with_suffix(".txt").name)


CHANGES = (edit, lengthen, sed, touch, keep_the_time, hide, link)


@contextlib.contextmanager
def reading() -> Iterator[set[str]]:
    """The names of the files outside of metadata folders that are read to be hashed."""
    names: set[str] = set()
    real = files.hash_file

    def spy(path: str) -> str:
        folder, name = os.path.split(path)
        if not folder.endswith(".dist-info"):
            names.add(name)
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "hash_file", spy)
        yield names


def install(how: str, folder: Path, python: Path, *wheels: Path | str) -> None:
    """Install wheels with pip, or with uv, which copies from its cache or links to it."""
    if how == "pip":
        pip = venv_with_pip(folder)
        run(pip, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", *wheels)
    else:
        command = [UV, "pip", "install", "--quiet", "--link-mode", how, "--python", python, *wheels]
        run(*command, UV_CACHE_DIR=str(folder / "uv-cache"))  # which is changed by who writes into a linked file


def wheel_of(folder: Path, name: str, text: str = OLD) -> Path:
    return make_wheel(folder / "wheels", name, "1.0", {f"{name}.py": text})


def one(scanned: Scanned, name: str) -> Distribution:
    """The distribution with this name."""
    return next(d for d in scanned.snapshot.distributions if d.name == name.replace("_", "-"))


def packed(scanned: Scanned, name: str) -> dict[str, bytes]:
    """What a node would get."""
    out = io.BytesIO()
    write_archive(scanned.sources[name], out)
    return read_archive(out.getvalue())[1]


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no loose code, and what was installed just now is old enough to be remembered."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    now = time.time_ns
    monkeypatch.setattr(facts.time, "time_ns", lambda: now() + 10_000_000_000)


@pytest.fixture(scope="module", params=[pytest.param("pip", marks=pytest.mark.registry), "copy", "hardlink"])
def changed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """How the distributions of a venv were installed, and its python; one was left alone, all others changed."""
    folder = tmp_path_factory.mktemp("beliefs")
    python = make_venv(folder / "venv")
    names = ["untouched", *(change.__name__ for change in CHANGES)]
    install(request.param, folder, python, *(wheel_of(folder, name) for name in names))
    time.sleep(0.05)  # the resolution of time stamps
    for change in CHANGES:
        change(site_of(python) / f"{change.__name__}.py")
    return request.param, python


def test_only_what_was_changed_is_read(changed: tuple[str, Path], tmp_path: Path) -> None:
    """A file is read when anything shows that it was written or replaced; links into uv's cache show one thing less."""
    how, python = changed
    with reading() as read:
        scanned = look(python, tmp_path / "facts")
    unseen = {"hide"} if how == "hardlink" else set()
    assert read == {f"{change.__name__}.py" for change in CHANGES if change.__name__ not in unseen}
    contents = {d.name: bool(d.modified) for d in scanned.snapshot.distributions}
    assert contents == {
        "untouched": False, "touch": False, "link": False, "hide": not unseen,
        "edit": True, "lengthen": True, "sed": True, "keep-the-time": True,
    }  # fmt: skip


def test_what_is_believed_is_what_would_have_been_read(changed: tuple[str, Path], tmp_path: Path) -> None:
    """The layer of an unchanged distribution is the one that reading all of it gives, and it can be packed."""
    _, python = changed
    scanned, site = look(python, tmp_path / "facts"), site_of(python)
    layout = layout_for(str(site), python=f"python{sys.version_info[0]}.{sys.version_info[1]}")
    files_read = dist_files(site / "untouched-1.0.dist-info", layout=layout, facts=NoFacts()).files
    assert one(scanned, "untouched").content == layer_digest([file.entry for file in files_read])
    assert packed(scanned, "untouched")["purelib/untouched.py"] == OLD.encode()
    assert not (tmp_path / "facts" / "disbelieved").exists()


def linked(folder: Path) -> Path:
    """A venv with one distribution linked from uv's cache, whose module is another and does not show it."""
    python = make_venv(folder / "venv")
    install("hardlink", folder, python, wheel_of(folder, "one"))
    hide(site_of(python) / "one.py")
    return python


def lying(folder: Path) -> Path:
    """A venv with a distribution whose wheel has a wrong hash in its RECORD."""
    wheel = wheel_of(folder, "one")
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, NEW if name == "one.py" else data)
    python = make_venv(folder / "venv")
    install("copy", folder, python, wheel)
    return python


@pytest.mark.parametrize("scans", [1, 2])
@pytest.mark.parametrize("make", [linked, lying])
def test_a_wrong_belief_ends_when_the_file_is_packed(make: Callable[[Path], Path], scans: int, tmp_path: Path) -> None:
    """The first launch fails and says why; from the next on the file is shipped as it is, and reported as modified."""
    python = make(tmp_path)
    for _ in range(scans):  # it is believed again when it is remembered
        with reading() as read:
            scanned = look(python, tmp_path / "facts")
        assert read == set()
    assert one(scanned, "one").modified == ()
    with pytest.raises(LayerError, match="does not hold what its distribution's RECORD says") as caught:
        packed(scanned, "one")
    assert caught.value.todo.startswith("Start again")
    assert caught.value.details["path"] == str(site_of(python) / "one.py")

    with reading() as read:
        scanned = look(python, tmp_path / "facts")
    assert read == {"one.py"}
    assert one(scanned, "one").modified == ("purelib/one.py",)
    assert packed(scanned, "one")["purelib/one.py"] == NEW.encode()


def test_what_was_read_after_a_wrong_belief_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that was doubted costs later scans no more than any other."""
    python = lying(tmp_path)
    with pytest.raises(LayerError):
        packed(look(python, tmp_path / "facts"), "one")
    expected = look(python, tmp_path / "facts")
    monkeypatch.setattr(inventory, "list_files", None)  # would fail
    assert look(python, tmp_path / "facts") == expected


def test_another_installation_is_believed_again(tmp_path: Path) -> None:
    """The note is about one RECORD, not about a name."""
    python = linked(tmp_path)
    with pytest.raises(LayerError):
        packed(look(python, tmp_path / "facts"), "one")
    shutil.rmtree(tmp_path / "uv-cache")
    install("hardlink", tmp_path, python, "--reinstall", wheel_of(tmp_path, "one"))
    with reading() as read:
        scanned = look(python, tmp_path / "facts")
    assert read == set()
    assert packed(scanned, "one")["purelib/one.py"] == OLD.encode()


def test_a_file_that_was_changed_through_another_prefix_is_read(tmp_path: Path) -> None:
    """Who edits a file that uv linked edits uv's cache; a prefix that is linked to it later has a younger RECORD."""
    first, second = make_venv(tmp_path / "first"), make_venv(tmp_path / "second")
    install("hardlink", tmp_path, first, wheel_of(tmp_path, "one"))
    site = site_of(first)
    for path in (site / "one.py", *(site / "one-1.0.dist-info").iterdir()):
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns - HOUR, stat.st_mtime_ns - HOUR))
    edit(site / "one.py")
    install("hardlink", tmp_path, second, tmp_path / "wheels" / "one-1.0-py3-none-any.whl")
    with reading() as read:
        scanned = look(second, tmp_path / "facts")
    assert read == {"one.py"}
    assert one(scanned, "one").modified == ("purelib/one.py",)


def test_what_two_claim_differently_is_read(tmp_path: Path) -> None:
    """One file that two RECORDs name with two hashes and one size is what it is."""
    python = make_venv(tmp_path / "venv")
    same = {"both.py": OLD, "same.py": OLD}
    wheels = [make_wheel(tmp_path / "wheels", name, "1.0", same | {"both.py": text})
              for name, text in (("one", OLD), ("two", NEW))]  # fmt: skip
    install("hardlink", tmp_path, python, *wheels)
    with reading() as read:
        scanned = look(python, tmp_path / "facts")
    assert read == {"both.py"}
    text = (site_of(python) / "both.py").read_bytes()
    assert packed(scanned, "one")["purelib/both.py"] == packed(scanned, "two")["purelib/both.py"] == text


def from_the_future(info: Path) -> None:
    later = time.time_ns() + HOUR
    os.utime(info / "RECORD", ns=(later, later))


def without_a_wheel_file(info: Path) -> None:
    (info / "WHEEL").unlink()


def without_sizes(info: Path) -> None:
    lines = (info / "RECORD").read_text().splitlines()
    (info / "RECORD").write_text("".join(f"{line.rpartition(',')[0]},\n" for line in lines))


@pytest.mark.parametrize("damage", [from_the_future, without_a_wheel_file, without_sizes])
def test_a_strange_record_is_not_believed(damage: Callable[[Path], None], tmp_path: Path) -> None:
    """Where a RECORD can't say when or how large, its files are read."""
    python = make_venv(tmp_path / "venv")
    install("copy", tmp_path, python, wheel_of(tmp_path, "one"))
    damage(site_of(python) / "one-1.0.dist-info")
    with reading() as read:
        look(python, tmp_path / "facts")
    assert read == {"one.py"}


@pytest.mark.parametrize("owned", [False, True])
def test_what_conda_installed_is_read(owned: bool, tmp_path: Path) -> None:
    """conda rewrites files that it installs, and not their RECORD; what pip put beside them is believed."""
    python = python_like(tmp_path / "conda")
    site = site_of(python)
    run(sys.executable, "-m", "zipfile", "-e", wheel_of(tmp_path, "one"), site)
    inside = site.relative_to(tmp_path / "conda")
    record = {"name": "one", "version": "1.0", "files": [f"{inside}/one-1.0.dist-info/METADATA"] if owned else []}
    write_files(tmp_path / "conda", {"conda-meta/one-1.0-0.json": json.dumps(record)})
    with reading() as read:
        look(python, tmp_path / "facts")
    assert read == ({"one.py"} if owned else set())
