"""What a scan remembers of distributions changes how long it takes and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from likewise.scan import Scanned, facts, inventory
from support.prefixes import UV, make_venv, run
from support.scanning import look, make_wheel, site_of, write_files


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


def outcome(scanned: Scanned) -> tuple[object, ...]:
    """All that a scan says."""
    return scanned.snapshot, scanned.sources, scanned.editables


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
    monkeypatch.setattr("likewise.scan.memory._rules", lambda: "others")
    look(python, tmp_path / "facts")
    assert len(listed) == 2


def test_a_damaged_memory_is_none(python: Path, tmp_path: Path) -> None:
    """Files cut short or overwritten cost time only."""
    first = look(python, tmp_path / "facts")
    for path in (tmp_path / "facts").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    assert outcome(look(python, tmp_path / "facts")) == outcome(first)


def test_a_file_that_leaves_its_package_is_loose(python: Path, tmp_path: Path) -> None:
    """The folder of an uninstalled distribution that somebody left a module in is shipped as it is."""
    site = site_of(python)
    write_files(site, {"one/mine.py": ""})
    look(python, tmp_path / "facts")
    uninstall(site)
    scanned = look(python, tmp_path / "facts")
    assert {file.entry.path for file in scanned.sources["site-packages"].files} == {"purelib/one/mine.py"}
