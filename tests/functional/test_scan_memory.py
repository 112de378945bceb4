"""What a scan remembers of distributions changes how long it takes and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from likewise.model.snapshot import OriginKind
from likewise.scanner import Scanned, conda_records, facts, files, inventory, stats, walks
from likewise.scanner.listing import Listing
from likewise.scanner.unlisted import Trail
from support.prefixes import UV, make_venv, run
from support.scanning import look, make_wheel, problems, python_like, site_of, write_files


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A venv with two distributions, scanned from an empty folder by a clock that makes its files old enough."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    now = time.time_ns
    monkeypatch.setattr(facts.time, "time_ns", lambda: now() + 10_000_000_000)
    one = make_wheel(
        tmp_path,
        "one",
        "1.0",
        {"one/__init__.py": "", "one/mod.py": "x = 1\n", "one-1.0.data/scripts/tool": "#!python\nprint()\n"},
    )
    two = make_wheel(tmp_path, "two", "1.0", {"two.py": "x = 2\n"})
    python = make_venv(tmp_path / "venv")
    run(UV, "pip", "install", "--quiet", "--link-mode", "copy", "--python", python, one, two)
    return python


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The dist-info whose files were listed the long way."""
    names: list[str] = []
    real = inventory.list_files

    def spy(dist_info: Path, **rest: object) -> object:
        names.append(dist_info.name)
        return real(dist_info, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(inventory, "list_files", spy)
    return names


def outcome(scanned: Scanned, *, beliefs: bool = True) -> tuple[object, ...]:
    """All that a scan says, wherever its facts are kept; with or without what it believed rather than read."""
    sources = {
        name: replace(source, files=[replace(f, believed=os.path.basename(f.believed) * beliefs) for f in source.files])
        for name, source in scanned.sources.items()
    }
    return scanned.snapshot, sources, scanned.editables


def test_a_second_scan_lists_nothing_again(python: Path, tmp_path: Path, listed: list[str]) -> None:
    """Unchanged distributions are recalled, and the outcome is the same to the last file."""
    first = look(python, tmp_path / "facts")
    assert sorted(listed) == ["one-1.0.dist-info", "two-1.0.dist-info"]
    listed.clear()
    assert outcome(look(python, tmp_path / "facts")) == outcome(first)
    assert listed == []


def edit(site: Path) -> None:
    (site / "one" / "mod.py").write_text("x = 3\n")


def edit_and_hide_it(site: Path) -> None:
    before = (site / "one" / "mod.py").stat()
    (site / "one" / "mod.py").write_text("x = 3\n")
    os.utime(site / "one" / "mod.py", ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(site: Path) -> None:
    (site / "one" / "mod.py").unlink()


def make_executable(site: Path) -> None:
    (site / "one" / "mod.py").chmod(0o755)


def drop_a_file_in(site: Path) -> None:
    (site / "one" / "extra.py").touch()


def drop_a_module_beside(site: Path) -> None:
    (site / "loose.py").touch()


def change_the_script(site: Path) -> None:
    script = site.parents[2] / "bin" / "tool"
    script.write_text(script.read_text() + "print(2)\n")


def shorten_the_record(site: Path) -> None:
    record = site / "one-1.0.dist-info" / "RECORD"
    record.write_text("".join(line for line in record.read_text().splitlines(True) if "mod.py" not in line))


def claim_its_file(site: Path) -> None:
    wheel = make_wheel(site.parents[3] / "wheels", "three", "1.0", {"one/mod.py": "x = 3\n"})
    run(UV, "pip", "install", "--quiet", "--python", site.parents[2] / "bin" / "python", wheel)


def upgrade(site: Path) -> None:
    wheel = make_wheel(site.parents[3] / "wheels", "one", "2.0", {"one/__init__.py": "", "one/new.py": ""})
    run(UV, "pip", "install", "--quiet", "--python", site.parents[2] / "bin" / "python", wheel)


def uninstall(site: Path) -> None:
    run(UV, "pip", "uninstall", "--quiet", "--python", site.parents[2] / "bin" / "python", "one")


def put_another_in_its_place(site: Path) -> None:
    """Same name, size and times as what was there."""
    path = site / "one" / "mod.py"
    before = path.stat()
    (site / "one" / "new").write_text("x = 4\n")
    os.utime(site / "one" / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(site / "one" / "new", path)


def put_another_folder_in_its_place(site: Path) -> None:
    shutil.copytree(site / "one", site.parents[3] / "one")
    (site / "one").rename(site.parents[3] / "old")
    (site.parents[3] / "one" / "mod.py").write_text("x = 5\n")
    (site.parents[3] / "one").rename(site / "one")


def put_a_link_in_its_place(site: Path) -> None:
    shutil.copytree(site / "one", site.parents[3] / "one")
    (site.parents[3] / "one" / "mod.py").write_text("x = 5\n")
    shutil.rmtree(site / "one")
    (site / "one").symlink_to(site.parents[3] / "one")


def describe_it_anew(site: Path) -> None:
    with (site / "one-1.0.dist-info" / "METADATA").open("r+") as file:
        file.write("Metadata-Version: 2.2\n")


def require_something(site: Path) -> None:
    path = site / "one-1.0.dist-info" / "METADATA"
    path.write_text(path.read_text().replace("Version: 1.0", "Version: 1.0\nRequires-Dist: two"))


def tell_where_it_came_from(site: Path) -> None:
    (site / "one-1.0.dist-info" / "direct_url.json").write_text(
        '{"url": "https://host.test/a.whl", "archive_info": {}}'
    )


def let_another_have_installed_it(site: Path) -> None:
    (site / "one-1.0.dist-info" / "INSTALLER").write_text("me")


def ask_for_it(site: Path) -> None:
    marker = site / "two-1.0.dist-info" / "REQUESTED"
    marker.unlink() if marker.exists() else marker.touch()


def give_it_a_script(site: Path) -> None:
    (site / "one-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nx = one:x\n")


def damage_the_record(site: Path) -> None:
    (site / "one-1.0.dist-info" / "RECORD").write_text('one/__init__.py,"unfinished')


def lose_the_record(site: Path) -> None:
    (site / "one-1.0.dist-info" / "RECORD").unlink()


def add_a_folder_to_the_path(site: Path) -> None:
    write_files(site.parents[3] / "more", {"more.py": ""})
    (site / "mine.pth").write_text(f"{site.parents[3] / 'more'}\n")


def drop_a_file_in_a_folder_of_its_own(site: Path) -> None:
    write_files(site, {"one/deep/er/data.txt": "x"})


def drop_a_link_in(site: Path) -> None:
    (site / "one" / "linked.py").symlink_to("mod.py")


@pytest.mark.parametrize(
    "change",
    [
        edit,
        edit_and_hide_it,
        remove,
        make_executable,
        drop_a_file_in,
        drop_a_module_beside,
        change_the_script,
        shorten_the_record,
        claim_its_file,
        upgrade,
        uninstall,
        put_another_in_its_place,
        put_another_folder_in_its_place,
        put_a_link_in_its_place,
        describe_it_anew,
        require_something,
        tell_where_it_came_from,
        let_another_have_installed_it,
        ask_for_it,
        give_it_a_script,
        damage_the_record,
        lose_the_record,
        add_a_folder_to_the_path,
        drop_a_file_in_a_folder_of_its_own,
        drop_a_link_in,
    ],
)
def test_every_change_is_seen(change: Callable[[Path], None], python: Path, tmp_path: Path) -> None:
    """After any change a scan with a memory says what one without says, the first time and the next."""
    before = look(python, tmp_path / "facts")
    look(python, tmp_path / "facts")
    time.sleep(0.02)  # the resolution of time stamps
    change(site_of(python))
    without = look(python, tmp_path / "other")
    assert outcome(without) != outcome(before)
    for _ in range(2):
        assert outcome(look(python, tmp_path / "facts")) == outcome(without)


def test_young_distributions_are_not_remembered(
    python: Path, tmp_path: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was installed a moment ago may still change under the same time stamps."""
    now = time.time_ns() - 10_000_000_000
    monkeypatch.setattr(facts.time, "time_ns", lambda: now)
    for _ in range(2):
        listed.clear()
        look(python, tmp_path / "facts")
        assert len(listed) == 2


def test_a_new_release_of_likewise_forgets(
    python: Path, tmp_path: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the rules of identity are others, everything is listed anew."""
    look(python, tmp_path / "facts")
    listed.clear()
    monkeypatch.setattr("likewise.scanner.memory._rules", lambda: "others")
    look(python, tmp_path / "facts")
    assert len(listed) == 2


def test_a_damaged_memory_is_none(python: Path, tmp_path: Path) -> None:
    """Files cut short or overwritten cost time only."""
    first = look(python, tmp_path / "facts")
    for path in (tmp_path / "facts").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    assert outcome(look(python, tmp_path / "facts")) == outcome(first)


@pytest.mark.parametrize("ending", [".memory", ".walk"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"\x93\x01\x02\x03", b"\x81\xa5rules\xa5later"])
def test_a_memory_of_another_release_is_none(
    ending: str, content: bytes, python: Path, tmp_path: Path, listed: list[str]
) -> None:
    """What an older or newer likewise wrote is not understood, and replaced."""
    first = look(python, tmp_path / "facts")
    (kept,) = (path for path in (tmp_path / "facts").iterdir() if path.name.endswith(ending))
    good = kept.read_bytes()
    kept.write_bytes(content)
    for _ in range(2):
        listed.clear()
        assert outcome(look(python, tmp_path / "facts")) == outcome(first)
    assert listed == []
    assert len(kept.read_bytes()) == len(good)


def test_a_file_that_leaves_its_package_is_loose(python: Path, tmp_path: Path) -> None:
    """The folder of an uninstalled distribution that somebody left a module in is shipped as it is."""
    site = site_of(python)
    write_files(site, {"one/mine.py": ""})
    look(python, tmp_path / "facts")
    uninstall(site)
    scanned = look(python, tmp_path / "facts")
    assert {file.entry.path for file in scanned.sources["site-packages"].files} == {"purelib/one/mine.py"}


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories of distributions that were walked for files that no `RECORD` names."""
    folders: list[str] = []
    real = walks.find_unlisted

    def spy(listings: Sequence[Listing], trail: Trail) -> tuple[str, ...]:
        left = real(listings, trail)
        folders.extend(os.path.basename(folder) for folder in trail.folders)
        return left

    monkeypatch.setattr(walks, "find_unlisted", spy)
    return folders


def test_a_second_scan_walks_nowhere(python: Path, tmp_path: Path, walked: list[str]) -> None:
    """Directories that are as they were are only looked at; files that nobody lists are found all the same."""
    site = site_of(python)
    write_files(site, {"one/extra.py": "", "loose.py": "", "empty/folder/x.txt": ""})
    first = look(python, tmp_path / "facts")
    assert sorted(walked) == ["one", "one-1.0.dist-info", "site-packages", "two-1.0.dist-info"]
    walked.clear()
    assert outcome(look(python, tmp_path / "facts")) == outcome(first)
    assert walked == []
    assert {f.entry.path for f in first.sources["site-packages"].files} == {
        "purelib/loose.py",
        "purelib/empty/folder/x.txt",
    }
    assert "purelib/one/extra.py" in {f.entry.path for f in first.sources["one"].files}


def test_a_replaced_file_is_no_reason_to_walk(python: Path, tmp_path: Path, walked: list[str]) -> None:
    """Whose time changed is read, and has the names that it had; the next scan need not even do that. With another
    name, or a link in a file's place, all is walked."""
    site = site_of(python)
    write_files(site, {"one/extra.py": "before"})
    look(python, tmp_path / "facts")
    (tmp_path / "new.py").write_text("after")
    os.replace(tmp_path / "new.py", site / "one" / "extra.py")
    walked.clear()
    for _ in range(2):
        (found,) = [
            f for f in look(python, tmp_path / "facts").sources["one"].files if f.entry.path.endswith("/extra.py")
        ]
        assert found.entry.size == len("after")
    assert walked == []
    (site / "one" / "extra.py").rename(site / "one" / "other.py")
    assert "purelib/one/other.py" in {f.entry.path for f in look(python, tmp_path / "facts").sources["one"].files}
    assert walked
    look(python, tmp_path / "facts")
    walked.clear()
    (site / "one" / "other.py").unlink()
    (site / "one" / "other.py").symlink_to("mod.py")
    look(python, tmp_path / "facts")
    assert walked


def test_a_folder_that_nothing_is_in_is_watched(python: Path, tmp_path: Path) -> None:
    """A file in a directory of a distribution that was empty before is found."""
    (site_of(python) / "one" / "empty").mkdir()
    look(python, tmp_path / "facts")
    (site_of(python) / "one" / "empty" / "data.txt").touch()
    assert "purelib/one/empty/data.txt" in {f.entry.path for f in look(python, tmp_path / "facts").sources["one"].files}


def test_where_directories_keep_no_times_they_are_walked(
    python: Path, tmp_path: Path, walked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that may not note new names in a directory's times, every scan walks."""
    monkeypatch.setattr(stats, "file_system", lambda path: "fuse.bucket")
    for _ in range(2):
        walked.clear()
        look(python, tmp_path / "facts")
        assert sorted(walked) == ["one", "one-1.0.dist-info", "site-packages", "two-1.0.dist-info"]


def test_what_a_link_leads_to_may_change(python: Path, tmp_path: Path, walked: list[str]) -> None:
    """Where a link decides, the directories' times don't, so they are walked."""
    (site_of(python) / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    for _ in range(2):
        walked.clear()
        look(python, tmp_path / "facts")
        assert sorted(walked) == ["one", "one-1.0.dist-info", "site-packages", "two-1.0.dist-info"]


def test_touching_changes_nothing(python: Path, tmp_path: Path, listed: list[str]) -> None:
    """A file with new times and the old content is read again, once."""
    first = look(python, tmp_path / "facts")
    (site_of(python) / "one" / "mod.py").touch()
    for expected in (["one-1.0.dist-info"], []):
        listed.clear()
        assert outcome(look(python, tmp_path / "facts"), beliefs=False) == outcome(first, beliefs=False)
        assert listed == expected


def test_a_file_of_a_changed_distribution_is_read_alone(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a distribution with one edited file only that file is read again."""
    look(python, tmp_path / "facts")
    edit(site_of(python))
    read: list[str] = []
    real = files.hash_file
    monkeypatch.setattr(files, "hash_file", lambda path: read.append(os.path.basename(path)) or real(path))
    look(python, tmp_path / "facts")
    assert read == ["mod.py"]


def test_credentials_are_not_written_down(python: Path, tmp_path: Path) -> None:
    """A distribution whose metadata holds a password is looked at anew each time, and no kept file has it."""
    info = site_of(python) / "one-1.0.dist-info"
    (info / "direct_url.json").write_text('{"url": "https://me:s3cret@host.test/a.whl", "archive_info": {}}')
    (info / "METADATA").write_text("Name: one\nVersion: 1.0\nRequires-Dist: x @ https://me:s3cret@host.test/x.whl\n")
    for _ in range(2):
        scanned = look(python, tmp_path / "facts")
        assert scanned.snapshot.distributions[0].origin.url == "https://host.test/a.whl"
    assert not any(b"s3cret" in path.read_bytes() for path in (tmp_path / "facts").iterdir())


def test_an_editable_whose_tree_is_gone_is_told_of_each_time(python: Path, tmp_path: Path) -> None:
    """What makes a distribution an editable is no file of its own, so it is asked for each time."""
    gone = {"url": f"file://{tmp_path}/gone", "dir_info": {"editable": True}}
    (site_of(python) / "two-1.0.dist-info" / "direct_url.json").write_text(json.dumps(gone))
    for _ in range(2):
        assert len(problems(look(python, tmp_path / "facts").snapshot, "vanished-editable")) == 1


def test_conda_packages_are_remembered_too(tmp_path: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What conda owns and lists in a `RECORD` is recalled; its origin is that of conda's own record as it is now."""
    now = time.time_ns
    monkeypatch.setattr(facts.time, "time_ns", lambda: now() + 10_000_000_000)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    python = python_like(tmp_path / "conda")
    site = site_of(python)
    run(sys.executable, "-m", "zipfile", "-e", make_wheel(tmp_path, "one", "1.0", {"one.py": ""}), site)
    inside = site.relative_to(tmp_path / "conda")
    record = {
        "name": "one",
        "version": "1.0",
        "build": "py_0",
        "url": "https://conda.invalid/t/t0ken/forge/noarch/one-1.0-py_0.conda",
        "files": [f"{inside}/one.py", f"{inside}/one-1.0.dist-info/METADATA"],
    }
    write_files(tmp_path / "conda", {"conda-meta/one-1.0-py_0.json": json.dumps(record)})
    first = look(python, tmp_path / "facts")
    assert first.snapshot.distributions[0].origin.kind is OriginKind.CONDA
    listed.clear()
    read: list[str] = []
    real = conda_records._read
    monkeypatch.setattr(
        conda_records, "_read", lambda path, stat: read.append(os.path.basename(path)) or real(path, stat)
    )
    assert outcome(look(python, tmp_path / "facts")) == outcome(first)
    assert listed == read == []
    assert not any(b"t0ken" in path.read_bytes() for path in (tmp_path / "facts").iterdir())

    record["build"] = "py_1"
    write_files(tmp_path / "conda", {"conda-meta/one-1.0-py_0.json": json.dumps(record)})
    second = look(python, tmp_path / "facts")
    assert second.snapshot.distributions[0].origin.revision == "py_1"
    assert (listed, read) == ([], ["one-1.0-py_0.json"])
    (tmp_path / "conda" / "conda-meta" / "one-1.0-py_0.json").unlink()
    assert look(python, tmp_path / "facts").snapshot.distributions[0].origin.kind is not OriginKind.CONDA
