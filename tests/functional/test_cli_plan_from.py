"""``likewise plan --from`` and ``likewise export`` as processes, with indexes on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.canaries import canary, words_said
from support.commands import likewise
from support.indexes import IndexServer, offer, serve_index
from support.prefixes import UV, make_venv, run

LINUX = "cp311-cp311-manylinux_2_17_x86_64"
FREEZE = "pure==1.0\nbinary==1.2.0\nappnope==0.1.4\n"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexServer]:
    """An index that has `FREEZE` for Linux, but that one version is another one."""
    folder = tmp_path_factory.mktemp("index")
    offer(folder, "pure", "1.0")
    offer(folder, "binary", "1.2.0", tag="cp311-cp311-macosx_11_0_arm64")
    offer(folder, "binary", "1.2.1", tag=LINUX, requires=["linuxonly ; sys_platform == 'linux'"])
    offer(folder, "linuxonly", "3.0", tag=LINUX)
    with serve_index(folder) as server:
        yield server


def planned(
    tmp_path: Path, index: IndexServer, *arguments: str | Path, command: str = "plan"
) -> subprocess.CompletedProcess[str]:
    """Run the command in an empty folder with nothing but this index configured."""
    folder = tmp_path / "cwd"
    folder.mkdir(exist_ok=True)
    return likewise(
        command,
        *arguments,
        cwd=folder,
        HOME=str(tmp_path),
        LIKEWISE_CACHE=str(tmp_path / "cache"),
        UV_DEFAULT_INDEX=index.url,
        PIP_CONFIG_FILE="/dev/null",
        PIP_FIND_LINKS="",
    )


@pytest.fixture
def freeze(tmp_path: Path) -> Path:
    """A file with `FREEZE`."""
    path = tmp_path / "freeze.txt"
    path.write_text(FREEZE)
    return path


HOW = ("--client", "osx-arm64", "--python", "3.11.7", "--target", "linux-64")


def test_a_plan_from_a_pipe(tmp_path: Path, index: IndexServer) -> None:
    """What is read from a named pipe is read once: the plan is that of a file with the same content."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(pipe.write_text, FREEZE)
        done = planned(tmp_path, index, "--from", pipe, *HOW, "--json")
        writing.result(30)
    assert done.returncode == 0, done.stderr + done.stdout
    assert {d["name"] for d in json.loads(done.stdout)["decisions"]} == {"pure", "binary", "appnope", "linuxonly"}


def test_a_plan_from_a_file(tmp_path: Path, index: IndexServer, freeze: Path) -> None:
    """A Mac's freeze becomes a plan for Linux: exact, moved, dropped and added, each file with URL and hash."""
    done = planned(tmp_path, index, "--from", freeze, *HOW, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    plan = json.loads(done.stdout)
    found = {d["name"]: d for d in plan["decisions"]}
    assert {name: (d["action"], d["version"]) for name, d in found.items()} == {
        "pure": ("fetched", "1.0"),
        "binary": ("fetched", "1.2.1"),
        "appnope": ("dropped", "0.1.4"),
        "linuxonly": ("fetched", "3.0"),
    }
    assert found["binary"]["installed"] == "1.2.0" and found["linuxonly"]["new"]
    assert found["binary"]["file"]["url"].startswith(index.files_url)
    assert len(found["binary"]["file"]["sha256"]) == 64
    assert plan["target"]["python"] == "3.11.7"


def test_without_a_target_a_mac_is_planned_for_linux(tmp_path: Path, index: IndexServer, freeze: Path) -> None:
    """No node can be a Mac, so the default is linux-64; for people the move is named."""
    done = planned(tmp_path, index, "--from", freeze, *HOW[:4])
    assert done.returncode == 0, done.stderr
    assert "linux-x86_64" in done.stdout and "1.2.0 → 1.2.1" in done.stdout


def test_hashes_of_the_file_hold(tmp_path: Path, index: IndexServer, freeze: Path) -> None:
    """When the index offers another file for a version than the file's hashes allow, the plan refuses and names it."""
    freeze.write_text(f"pure==1.0 --hash=sha256:{'0' * 64}\n")
    done = planned(tmp_path, index, "--from", freeze, *HOW, "--json")
    assert done.returncode == 11, done.stdout
    error = json.loads(done.stdout)
    assert "pure 1.0 (pure-1.0-py3-none-any.whl)" in error["what"]


def test_a_requirements_file_may_name_a_private_index(tmp_path: Path) -> None:
    """Its credentials open the index, and stand in nothing that is said or written."""
    folder, password = tmp_path / "private", canary("requirements")
    offer(folder, "secretive", "1.0", tag=LINUX)
    with serve_index(folder, user="me", password=password) as private:
        path = tmp_path / "requirements.txt"
        path.write_text(f"--index-url {private.url_with_credentials}\nsecretive==1.0\n")
        done = planned(tmp_path, private, "--from", path, *HOW, "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        (decision,) = json.loads(done.stdout)["decisions"]
        assert decision["file"]["url"].startswith(private.files_url)
        written = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert words_said(done.stdout + done.stderr) == set()
    assert not [file for file in written if password.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "missing.txt"), "can't be read"),
        (("--from", "."), "folder"),
        (("--client", "osx-arm64"), "--from"),
        (("--from", "FREEZE", "--client", "atari"), "atari"),
        (("--from", "FREEZE", "--target", "linux-65"), "linux-64"),
        (("--from", "FREEZE", "--python", "three"), "three"),
    ],
)
def test_wrong_usage(tmp_path: Path, index: IndexServer, freeze: Path, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2 and one JSON document that says what is wrong."""
    given = [str(freeze) if one == "FREEZE" else one for one in arguments]
    done = planned(tmp_path, index, *given, "--json")
    assert done.returncode == 2, done.stderr
    error = json.loads(done.stdout)
    assert says in f"{error['what']} {error['todo']}"


def test_exported_requirements_are_installed_by_pip(tmp_path: Path, index: IndexServer, freeze: Path) -> None:
    """What export writes for this machine's kind installs with all hashes checked."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
    freeze.write_text("pure==1.0\n")
    done = planned(tmp_path, index, "--from", freeze, "--python", version, "--format", "requirements", command="export")
    assert done.returncode == 0, done.stderr
    (tmp_path / "requirements.txt").write_text(done.stdout)
    python = make_venv(tmp_path / "venv")
    install = (UV, "pip", "install", "-q", "--no-config", "--require-hashes", "--default-index", index.url)
    run(*install, "--python", python, "-r", tmp_path / "requirements.txt")
    assert run(python, "-c", "import pure; print(pure.VERSION)").strip() == "1.0"


@pytest.mark.parametrize("form", ["pylock", "requirements", "dockerfile"])
def test_every_format_names_each_file(tmp_path: Path, index: IndexServer, freeze: Path, form: str) -> None:
    """Versions and hashes of the plan, and nothing of what is dropped."""
    plan = json.loads(planned(tmp_path, index, "--from", freeze, *HOW, "--json").stdout)
    done = planned(tmp_path, index, "--from", freeze, *HOW, "--format", form, command="export")
    assert done.returncode == 0, done.stderr
    hashes = [d["file"]["sha256"] for d in plan["decisions"] if d["file"]]
    assert len(hashes) == 3 and all(digest in done.stdout for digest in hashes)
    assert "appnope" not in done.stdout


def test_an_exported_lock_can_be_planned_from(tmp_path: Path, index: IndexServer, freeze: Path) -> None:
    """From plan to pylock.toml and back: the same versions and files."""
    lock = tmp_path / "pylock.toml"
    lock.write_text(planned(tmp_path, index, "--from", freeze, *HOW, command="export").stdout)
    first = json.loads(planned(tmp_path, index, "--from", freeze, *HOW, "--json").stdout)
    done = planned(tmp_path, index, "--from", lock, "--client", "linux-64", "--python", "3.11.7", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    files = [
        {d["name"]: d["file"] for d in plan["decisions"] if d["file"]} for plan in (first, json.loads(done.stdout))
    ]
    assert {name: file["sha256"] for name, file in files[0].items()} == {
        name: file["sha256"] for name, file in files[1].items()
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "linux-65"], "Did you mean linux-64?"),
        (["--target", "linux-64", "--exclude-newer", "yesterday"], "2026-11-20"),
        (["--target", "linux-64", "--exclude-newer", "2026-02-30"], "2026-11-20"),
        (["--ignore", "numpy", "--only", "NumPy"], "not in both"),
        (["--extra", "cupy @ https://user:secret@h/x.whl"], "comes from an index"),
        (["--level", "dask=any"], "exact everywhere"),
    ],
)
def test_what_is_asked_for_is_looked_at_before_the_disk(tmp_path: Path, arguments: list[str], said: str) -> None:
    """A scan of this folder would fail; so whoever is told of the option is told before it."""
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("")
    done = likewise("plan", *arguments, cwd=tmp_path, DASK_LIKEWISE__CODE__MAX_ENTRIES="1", HOME=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "secret" not in done.stderr + done.stdout
    scanned = likewise("plan", cwd=tmp_path, DASK_LIKEWISE__CODE__MAX_ENTRIES="1", HOME=str(tmp_path))
    assert scanned.returncode == 10, scanned.stderr
