"""The command ``likewise`` as a process: values, talk, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import likewise as package
from support.commands import LIKEWISE, likewise, likewise_on_terminal
from support.prefixes import UV, clean_environ, make_venv, run


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a venv that has pip and nothing else (likewise is not installed there)."""
    venv = tmp_path_factory.mktemp("bare") / "venv"
    run(sys.executable, "-m", "venv", venv)
    return venv / "bin" / "python"


def test_help_is_quick_and_names_every_command() -> None:
    """``likewise --help`` lists the commands without importing dask, rich or any stage."""
    script = "import sys\nfrom likewise.cli.main import main\nmain(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in ("scan", "plan", "run", "demo", "cache", "doctor"))
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & {"dask", "distributed", "rich", "msgspec", "packaging", "uv"}


def test_version() -> None:
    """``--version`` tells the version."""
    assert likewise("--version").stdout == f"likewise {package.__version__}\n"


def test_scan_lists_what_pip_lists(bare: Path, tmp_path: Path) -> None:
    """``scan --python EXE --json`` is one JSON document with exactly the distributions that pip lists there."""
    done = likewise("scan", "--python", bare, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {d["name"]: d["version"] for d in json.loads(done.stdout)["distributions"]}
    listed = json.loads(run(bare, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"))
    assert found == {d["name"]: d["version"] for d in listed} != {}
    assert "scan" in done.stderr  # progress, in plain lines


def test_scan_sees_what_a_session_started_here_would(tmp_path: Path) -> None:
    """Loose code of the working directory is listed; the console script's own folder is not."""
    (tmp_path / "mine.py").write_text("x = 1\n")
    done = likewise("scan", "--json", cwd=tmp_path)
    assert [root["path"] for root in json.loads(done.stdout)["code"]] == [str(tmp_path)]


def test_scan_for_people(bare: Path, tmp_path: Path) -> None:
    """Without --json the value is text, and off a terminal it has no escape sequences."""
    done = likewise("scan", "--python", bare, "--quiet", cwd=tmp_path)
    assert "Python 3." in done.stdout and "\npip" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_plan_decides_about_everything_that_scan_finds(tmp_path: Path) -> None:
    """``plan --json`` has one decision with a reason for each distribution and code root, and ignoring shows."""
    (tmp_path / "mine.py").write_text("x = 1\n")
    snapshot = json.loads(likewise("scan", "--json", cwd=tmp_path).stdout)
    plan = json.loads(likewise("plan", "--json", "--ignore", "pytest", cwd=tmp_path).stdout)
    found = [d["name"] for d in snapshot["distributions"]] + [root["name"] for root in snapshot["code"]]
    assert [d["name"] for d in plan["decisions"]] == found
    assert all(d["reason"] for d in plan["decisions"])
    reasons = {d["name"]: d["reason"] for d in plan["decisions"]}
    assert "left out as asked" in reasons["pytest"] or "not left out" in reasons["pytest"]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["plan", "--only", "no-such-thing"], 2, "usage"),
        (["plan", "--bogus"], 2, "usage"),
        (["scan", "--python", "/no/such/python"], 10, "scan"),
        (["scan", "--python", "/bin/false"], 10, "scan"),
        (["cache", "prune", "--older-than", "soon"], 2, "usage"),
        (["cache", "prune", "--all", "--older-than", "1h"], 2, "usage"),
    ],
)
def test_an_error_is_one_document_with_its_own_exit_code(
    arguments: list[str], code: int, error: str, tmp_path: Path
) -> None:
    """With --json stdout is exactly one JSON document that names the kind of error, whatever went wrong."""
    done = likewise(*arguments, "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (code, error)
    plain = likewise(*arguments, cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (code, "")
    assert "error: " in plain.stderr and "Traceback" not in plain.stderr


@pytest.mark.parametrize(
    "arguments", [("bundle", "file/folder"), ("run", "--profile", "nowhere/page.html", "file")], ids=["bundle", "run"]
)
def test_what_can_not_be_written_is_told_before_anything_is_done(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """A place where nothing can be written at the end is wrong usage at the beginning: no stage has begun."""
    (tmp_path / "file").write_text("")
    done = likewise(*arguments, cwd=tmp_path, LIKEWISE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2 and "folder" in done.stderr and "scan" not in done.stderr
    assert not (tmp_path / "cache").exists()


def test_an_unknown_command_is_wrong_usage() -> None:
    """A misspelt command is refused with exit code 2."""
    done = likewise("scam")
    assert done.returncode == 2 and "No such command 'scam'" in done.stderr


def test_a_store_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    """A cache folder that is a file gives a store error that names it."""
    (tmp_path / "file").write_text("")
    done = likewise("cache", "info", "--json", LIKEWISE_CACHE=str(tmp_path / "file"))
    value = json.loads(done.stdout)
    assert (done.returncode, value["error"]) == (14, "store") and str(tmp_path / "file") in value["where"]


def test_the_cache_is_described_and_emptied(tmp_path: Path) -> None:
    """``cache info`` counts what store and node caches hold; ``cache prune --all`` removes it and says how much."""
    from likewise.node.cache import open_cache
    from likewise.store.local import LocalStore

    LocalStore(tmp_path / "store").put_bytes("notes/test/aa/" + "a" * 64, b"x" * 1000)
    node = open_cache(str(tmp_path / "node" / "node-0"))
    layer = Path(node.layer("b" * 64))
    layer.mkdir()
    (layer / "file").write_bytes(b"y" * 50_000)
    Path(node.listing("b" * 64)).write_bytes(b"")
    here = {"LIKEWISE_CACHE": str(tmp_path)}

    info = json.loads(likewise("cache", "info", "--json", **here).stdout)
    assert (info["store"]["items"], info["store"]["bytes"]) == (1, 1000)
    assert [(n["root"], n["layers"], n["in_use"]) for n in info["nodes"]] == [(node.root, 1, 0)]
    assert info["nodes"][0]["bytes"] >= 50_000
    text = likewise("cache", "info", **here).stdout
    assert "store: 1 item, 1.00 kB" in text and "node cache: 0 prefixes, 1 layer" in text

    kept = json.loads(likewise("cache", "prune", "--older-than", "1d", "--json", **here).stdout)
    assert (kept["store"]["removed"], kept["nodes"][0]["layers"]) == (0, 0)
    gone = json.loads(likewise("cache", "prune", "--all", "--json", **here).stdout)
    assert (gone["store"]["removed"], gone["store"]["freed_bytes"]) == (1, 1000)
    assert gone["nodes"][0]["layers"] == 1 and gone["nodes"][0]["freed_bytes"] >= 50_000
    assert not layer.exists()
    assert "removed 0 items" in likewise("cache", "prune", **here).stdout


def test_a_node_cache_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    """A node cache that everybody may write to is not touched; the error names it."""
    foreign = tmp_path / "node" / "node-0"
    foreign.mkdir(parents=True)
    foreign.chmod(0o777)
    done = likewise("cache", "prune", "--all", "--json", LIKEWISE_CACHE=str(tmp_path))
    assert (done.returncode, json.loads(done.stdout)["where"]) == (15, str(foreign))


def test_doctor_finds_this_machine_fit() -> None:
    """Where likewise is installed as it should be, every check answers and none is an error."""
    done = likewise("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, checks
    assert {"python", "platform", "distributions", "uv", "patchelf", "zstd", "cryptography"} <= checks.keys()
    assert {"cache folder", "cache exec", "cache space"} <= checks.keys()
    assert not [check for check in checks.values() if check["status"] == "error"]


def test_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    """A cache folder that can't be made is an error, with exit code 1; the other checks still answer."""
    (tmp_path / "file").write_text("")
    done = likewise("doctor", LIKEWISE_CACHE=str(tmp_path / "file"))
    assert done.returncode == 1
    first, *_ = [line for line in done.stdout.splitlines() if "cache folder" in line]
    assert first.startswith("error") and str(tmp_path / "file") in first
    assert "\nok " in done.stdout


@pytest.mark.registry
def test_doctor_finds_a_missing_requirement(tmp_path: Path) -> None:
    """A distribution that a node would need and that is not installed is named, with what requires it."""
    python = make_venv(tmp_path / "venv", "click", "msgspec", "packaging")
    run(UV, "pip", "install", "--quiet", "--python", python, "--no-deps", "--editable", package_source())
    done = subprocess.run(
        [python, "-m", "likewise", "doctor", "--json"], env=clean_environ(), capture_output=True, text=True
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 1
    assert checks["distributions"]["status"] == "error"
    assert "distributed (required by likewise)" in checks["distributions"]["message"]


def package_source() -> Path:
    """The checkout that likewise runs from."""
    return Path(package.__file__).parents[2]


def test_a_terminal_gets_colour_unless_refused(bare: Path, tmp_path: Path) -> None:
    """On a terminal there are a tick for each stage and colours; with NO_COLOR no colours at all."""
    colourful, code = likewise_on_terminal("scan", "--python", bare, cwd=tmp_path)
    assert code == 0 and "✓" in colourful and "\x1b[32m" in colourful
    plain, code = likewise_on_terminal("scan", "--python", bare, cwd=tmp_path, NO_COLOR="1")
    styles = [part.split("m", 1)[0] for part in plain.split("\x1b[")[1:] if "m" in part[:6]]
    assert code == 0 and "✓" in plain and not styles


def test_the_cursor_comes_back_when_a_stage_fails(tmp_path: Path) -> None:
    """After an error on a terminal the cursor is visible again."""
    shown, code = likewise_on_terminal("scan", "--python", "/bin/false", cwd=tmp_path)
    assert code == 10
    assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l")


def test_a_reader_that_leaves_ends_the_command_quietly(bare: Path, tmp_path: Path) -> None:
    """``likewise scan --json | head -0`` ends without a traceback, with the exit code of a closed pipe."""
    process = subprocess.Popen(
        [*LIKEWISE, "scan", "--python", bare, "--json", "--quiet"],
        cwd=tmp_path,
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (141, "")
    process.stderr.close()


def test_ctrl_c_is_told_and_has_its_exit_code(tmp_path: Path) -> None:
    """Ctrl-C while another interpreter is asked ends both; the value is one JSON document that says so."""
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    slow.chmod(0o755)
    argv = [*LIKEWISE, "scan", "--python", slow, "--json"]
    process = subprocess.Popen(argv, cwd=tmp_path, env=clean_environ(), stdout=subprocess.PIPE, start_new_session=True)
    pid = wait_for_text(tmp_path / "pid")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(out)["error"] == "interrupted"
    assert ends_soon(int(pid))


def wait_for_text(path: Path) -> str:
    """The first line of a file, once it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text().strip()
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def ends_soon(pid: int) -> bool:
    """Whether the process ends within some seconds; a zombie that nobody reaps has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
