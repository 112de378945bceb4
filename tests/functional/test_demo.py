"""The demos, run as users run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import likewise as package
from support.prefixes import clean_environ, make_venv

REPOSITORY = Path(package.__file__).parents[2]

pytestmark = pytest.mark.registry


def test_the_demo_holds(tmp_path: Path) -> None:
    """``make demo``'s program makes its environment from nothing and ends well only when every claim held."""
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "demo" / "make_env.py", tmp_path / "a demo"],
        cwd=tmp_path,
        env=clean_environ(HOME=str(tmp_path / "home")),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("All of it held.\n")
    assert done.stdout.count("✓") >= 10 and "✗" not in done.stdout
    assert "identical" in done.stdout and "nothing to pack" in done.stdout


def test_the_demo_fails_when_a_claim_does_not_hold(tmp_path: Path) -> None:
    """The program's check ends it with exit code 1 at the first claim that does not hold."""
    main = REPOSITORY / "examples" / "demo" / "main.py"
    check = main.read_text("utf-8").split("def check(")[1].split("\n\n\n")[0]
    code = f"import sys\ndef check({check}\ncheck('true', True)\ncheck('false', False, 42)\ncheck('never', True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "✓ true\n")
    assert done.stderr == "✗ false: does not hold. 42\n"


def test_the_packaged_demo_replicates_the_present_environment(tmp_path: Path) -> None:
    """``likewise demo --json`` in a venv of likewise alone: right result, verified, on two nodes, nothing shared."""
    python = make_venv(tmp_path / "venv", "--editable", REPOSITORY)
    done = subprocess.run(
        [python, "-m", "likewise", "demo", "--json"],
        cwd=tmp_path,
        env=clean_environ(LIKEWISE_CACHE=str(tmp_path / "cache")),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    value = json.loads(done.stdout)
    assert value["result"] == sum(n * n for n in range(100))
    assert [node["differences"] for node in value["verify"]["nodes"]] == [[], []]
    assert value["client"]["prefix"] == str(tmp_path / "venv")
    assert len({worker["prefix"] for worker in value["workers"]}) == 2
    assert all(worker["prefix"].startswith(str(tmp_path / "cache")) for worker in value["workers"])
