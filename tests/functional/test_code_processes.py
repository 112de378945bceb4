"""The loose code of real processes: scripts, modules, prompts, started as people start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.code import write
from support.prefixes import clean_environ

SOURCE = Path(__file__).parents[2] / "src"

TELL = """
import json
from likewise.events import Silent
from likewise.scanner.code import scan_code
from likewise.scanner.probe import probe_here
from support.code import Remembered

def tell():
    scan = scan_code(probe_here(), skip=SKIP, facts=Remembered(), reporter=Silent())
    files = {n: sorted(f.entry.path.split("/", 2)[2] for f in s.files) for n, s in scan.sources.items()}
    roots = [[r.path, r.why, r.position.value, files[r.name]] for r in scan.roots]
    print(json.dumps({"roots": roots, "problems": [p.code for p in scan.problems]}))
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder on PYTHONPATH, not counted as loose code, that has `tell`."""
    folder = tmp_path / "tools"
    skip = [str(folder), str(SOURCE), str(Path(__file__).parents[1])]
    write(folder, "telling.py", text=TELL.replace("SKIP", repr(skip)))
    return folder


def tell(tools: Path, *argv: str | Path, cwd: Path, path: tuple[Path, ...] = (), stdin: str = "") -> dict[str, Any]:
    """What a Python started with `argv` says of its loose code."""
    entries = [*path, tools, Path(__file__).parents[1]]
    done = subprocess.run(
        [sys.executable, *map(str, argv)],
        cwd=cwd,
        env=clean_environ(PYTHONPATH=os.pathsep.join(map(str, entries))),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


CALL = "from telling import tell; tell()\n"


def test_a_script_has_its_folder_whatever_the_working_directory(tools: Path, tmp_path: Path) -> None:
    """Python puts the script's folder on sys.path, and not the directory where it was started."""
    write(tmp_path / "jobs", "helper.py")
    write(tmp_path / "jobs", "main.py", text=CALL)
    write(tmp_path / "elsewhere", "other.py")
    told = tell(tools, tmp_path / "jobs" / "main.py", cwd=tmp_path / "elsewhere")
    assert told["roots"] == [[str(tmp_path / "jobs"), "sys.path[0]", "before", ["helper.py", "main.py"]]]


def test_a_module_of_a_package_run_with_m(tools: Path, tmp_path: Path) -> None:
    """`-m pkg.mod` with relative imports ships the package under its own name, from its parent."""
    write(tmp_path / "work", "pkg/__init__.py", "pkg/my_local_package/__init__.py", "pkg/data.csv")
    write(tmp_path / "work", "pkg/mod.py", text="from . import my_local_package\n" + CALL)
    told = tell(tools, "-m", "pkg.mod", cwd=tmp_path / "work")
    files = ["pkg/__init__.py", "pkg/data.csv", "pkg/mod.py", "pkg/my_local_package/__init__.py"]
    assert told["roots"] == [[str(tmp_path / "work"), "working directory", "before", files]]


def test_a_script_that_says_which_package_it_is_in(tools: Path, tmp_path: Path) -> None:
    """A script that sets `__package__` so that `from . import x` works brings the package's parent."""
    write(tmp_path / "work", "pkg/__init__.py", "pkg/local.py")
    text = "import sys\nsys.path.append(WORK)\n__package__ = 'pkg'\nfrom . import local\n"
    write(tmp_path / "work", "pkg/script.py", text=text.replace("WORK", repr(str(tmp_path / "work"))) + CALL)
    told = tell(tools, tmp_path / "work" / "pkg" / "script.py", cwd=tmp_path)
    assert [(Path(path).name, why) for path, why, *_ in told["roots"]] == [
        ("pkg", "sys.path[0]"),
        ("work", "package of __main__"),
    ]


def test_a_prompt_has_the_working_directory(tools: Path, tmp_path: Path) -> None:
    """Somebody types: what lies in the working directory can be imported."""
    write(tmp_path / "work", "helper.py", "data.csv")
    told = tell(tools, "-i", "-q", cwd=tmp_path / "work", stdin=CALL)
    assert told["roots"] == [[str(tmp_path / "work"), "working directory", "before", ["helper.py"]]]


def test_pythonpath_keeps_its_order(tools: Path, tmp_path: Path) -> None:
    """Two directories with one module name: the first wins here, and so it must there."""
    write(tmp_path, "one/mod.py", "two/mod.py", "jobs/unused.py")
    write(tmp_path, "jobs/main.py", text=CALL)
    told = tell(tools, tmp_path / "jobs" / "main.py", cwd=tmp_path, path=(tmp_path / "two", tmp_path / "one"))
    assert [(Path(path).name, why) for path, why, *_ in told["roots"]] == [
        ("jobs", "sys.path[0]"),
        ("two", "PYTHONPATH"),
        ("one", "PYTHONPATH"),
    ]


def test_an_imported_module_goes_along_though_it_is_ignored(tools: Path, tmp_path: Path) -> None:
    """What the process has loaded is what its functions will look for."""
    write(tmp_path / "work", ".gitignore", text="*_gen.py\n")
    write(tmp_path / "work", "used_gen.py", "unused_gen.py")
    write(tmp_path / "work", "main.py", text="import used_gen\n" + CALL)
    told = tell(tools, tmp_path / "work" / "main.py", cwd=tmp_path)
    assert told["roots"][0][3] == ["main.py", "used_gen.py"]


def test_a_deleted_working_directory_is_a_problem_and_no_crash(tools: Path, tmp_path: Path) -> None:
    """A prompt whose directory somebody removed."""
    (tmp_path / "gone").mkdir()
    told = tell(tools, "-i", "-q", cwd=tmp_path / "gone", stdin=f"import os; os.rmdir(os.getcwd()); {CALL}")
    assert told == {"roots": [], "problems": ["deleted-working-directory"]}
