"""probe_here in real processes: how each was started is known, and what it has loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.prefixes import clean_environ
from support.scanning import write_files

TELL = (
    "import json, msgspec; from likewise.scanner.probe import probe_here; p = probe_here();"
    "print(json.dumps({'main': msgspec.to_builtins(p.main), 'path': p.sys_path, 'cwd': p.cwd,"
    " 'pythonpath': p.pythonpath, 'modules': p.modules, 'safe': p.safe_path}))\n"
)


def told(*argv: str, cwd: Path, stdin: str = "", **environ: str) -> dict[str, Any]:
    """What a Python started so says of itself."""
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=cwd,
        env=clean_environ(**environ),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_script(tmp_path: Path) -> None:
    """A script started with a relative path from elsewhere has an absolute file, and its folder comes first."""
    write_files(tmp_path, {"proj/job.py": "import helper\n" + TELL, "proj/helper.py": ""})
    found = told("proj/job.py", cwd=tmp_path)
    assert found["main"] == {
        "file": str(tmp_path / "proj" / "job.py"),
        "package": "",
        "spec_name": "",
        "interactive": False,
    }
    assert found["path"][0] == str(tmp_path / "proj")
    assert found["modules"]["helper"] == str(tmp_path / "proj" / "helper.py")


@pytest.mark.parametrize(
    ("target", "file", "spec"),
    [("pkg.job", "pkg/job.py", "pkg.job"), ("pkg", "pkg/__main__.py", "pkg.__main__")],
)
def test_a_module_run_with_m(target: str, file: str, spec: str, tmp_path: Path) -> None:
    """``-m pkg.mod`` and ``-m pkg`` tell their package and dotted name."""
    write_files(
        tmp_path,
        {
            "pkg/__init__.py": "",
            "pkg/job.py": "from . import part\n" + TELL,
            "pkg/__main__.py": TELL,
            "pkg/part.py": "",
        },
    )
    found = told("-m", target, cwd=tmp_path)
    assert found["main"] == {"file": str(tmp_path / file), "package": "pkg", "spec_name": spec, "interactive": False}
    assert found["path"][0] == str(tmp_path)
    if target == "pkg.job":
        assert found["modules"]["pkg.part"] == str(tmp_path / "pkg" / "part.py")


def test_somebody_typing(tmp_path: Path) -> None:
    """A prompt (or a notebook, or -c) has no file; the working directory comes first."""
    for found in (told("-c", TELL, cwd=tmp_path), told("-", cwd=tmp_path, stdin=TELL)):
        assert found["main"]["interactive"]
        assert found["main"]["file"] == ""
        assert found["path"][0] == found["cwd"] == str(tmp_path)


def test_pythonpath_in_order(tmp_path: Path) -> None:
    """Relative entries of PYTHONPATH count from the working directory; -E ignores them all."""
    (tmp_path / "one").mkdir()
    value = os.pathsep.join(["one", "/two"])
    found = told("-c", TELL, cwd=tmp_path, PYTHONPATH=value)
    assert found["pythonpath"] == [str(tmp_path / "one"), "/two"]
    assert told("-E", "-c", TELL, cwd=tmp_path, PYTHONPATH=value)["pythonpath"] == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is new in Python 3.11")
def test_the_safe_path(tmp_path: Path) -> None:
    """With -P nothing is put before PYTHONPATH, and the probe says so."""
    found = told("-P", "-c", TELL, cwd=tmp_path)
    assert found["safe"]
    assert str(tmp_path) not in found["path"]


def test_modules_that_misbehave_are_passed_over(tmp_path: Path) -> None:
    """Objects in sys.modules that raise when looked at do not stop the probe."""
    rude = (
        "import sys, types\n"
        "class Rude(types.ModuleType):\n"
        "    def __getattribute__(self, name): raise RuntimeError(name)\n"
        "sys.modules['rude'] = Rude('rude'); sys.modules['nothing'] = None\n"
    )
    found = told("-c", rude + TELL, cwd=tmp_path)
    assert "rude" not in found["modules"]
    assert "json" in found["modules"]
