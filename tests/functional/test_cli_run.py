"""``likewise run``: the user's script, unchanged, with a replica of this environment behind it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import html5lib
import psutil
import pytest

import likewise as package
from support.commands import likewise
from support.prefixes import clean_environ, make_venv

PROGRAM = """
import json, os, sys
import dask
from distributed import Client, get_client

def where(number):
    import beside
    return number + beside.ONE, sys.prefix

if __name__ == "__main__":
    answers = {
        "compute": dask.compute(dask.delayed(where)(1))[0],
        "get_client": get_client().submit(where, 2).result(),
    }
    with Client() as client:
        answers["Client()"] = client.submit(where, 3).result()
    answers |= {"argv": sys.argv, "path": sys.path[0], "file": __file__, "prefix": sys.prefix}
    print(json.dumps(answers))
    sys.exit(7)
"""


pytestmark = pytest.mark.registry


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for all of this module: the environment is packed once."""
    return tmp_path_factory.mktemp("run-cache")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a venv that has likewise (editable) with what it requires, and nothing else."""
    source = Path(package.__file__).parents[2]
    return make_venv(tmp_path_factory.mktemp("run-env") / "venv", "--editable", source)


def command(python: Path, *arguments: str | Path) -> list[str]:
    """``likewise run`` with one worker, in the environment of `python`."""
    return [str(python), "-m", "likewise", "run", "--workers", "1", *map(str, arguments)]


def run_command(
    python: Path, *arguments: str | Path, cache: Path, cwd: Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end."""
    return subprocess.run(
        command(python, *arguments),
        cwd=cwd,
        env=clean_environ(LIKEWISE_CACHE=str(cache), **environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def script(folder: Path, text: str) -> Path:
    """A script with a loose module beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "beside.py").write_text("ONE = 1\n")
    path = folder / "program.py"
    path.write_text(text)
    return path


def nodes_of(cache: Path) -> list[psutil.Process]:
    """The living processes that run from a node cache below `cache`."""
    found = []
    for process in psutil.process_iter(["exe"]):
        if (process.info["exe"] or "").startswith(str(cache)):
            found.append(process)
    return found


@pytest.fixture(autouse=True)
def nothing_left_running(cache: Path) -> Iterator[None]:
    """However a command ended, no process of its cluster outlives it for long."""
    yield
    left = nodes_of(cache)
    assert psutil.wait_procs(left, timeout=20)[1] == []


def test_a_script_runs_as_python_would_run_it_with_a_cluster(python: Path, cache: Path, tmp_path: Path) -> None:
    """dask.compute(), get_client() and a plain Client() use the replica; argv, path and exit code are Python's."""
    program = script(tmp_path / "project", PROGRAM)
    done = run_command(python, "project/program.py", "--json", "-w", cache=cache, cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    answers = json.loads(done.stdout)  # nothing but the script's own output is on stdout
    for number, way in enumerate(("compute", "get_client", "Client()"), start=2):
        result, prefix = answers[way]
        assert result == number
        assert prefix.startswith(str(cache)) and prefix != answers["prefix"]
    assert answers["argv"] == ["project/program.py", "--json", "-w"]
    assert (answers["path"], answers["file"]) == (str(tmp_path / "project"), str(program))


def test_profile_leaves_a_page_of_the_launch(python: Path, cache: Path, tmp_path: Path) -> None:
    """With ``--profile`` the run ends as ever; stderr names the page, which has stages, processes and layers."""
    shutil.rmtree(cache / "node", ignore_errors=True)
    program = script(tmp_path, "import dask, sys\nprint(dask.compute(dask.delayed(sum)([1, 2]))[0])\nsys.exit(5)\n")
    done = run_command(python, "--profile", "program.py", cache=cache, cwd=tmp_path, DASK_LIKEWISE__STREAMING="true")
    assert (done.returncode, done.stdout) == (5, "3\n"), done.stderr
    page = tmp_path / "likewise-profile.html"
    assert str(page) in done.stderr
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page.read_text("utf-8"))
    shown = [element.text or "" for element in document.iter() if element.tag.rpartition("}")[2] == "text"]
    for expected in ("scan", "plan", "pack", "kit", "start", "scheduler", "worker 0", "the script begins", "tornado"):
        assert expected in shown
    assert "never seen joining" not in shown and "did not end" not in shown
    assert program.read_text().startswith("import dask")  # it was never taken for the page


def test_a_script_that_fails_shows_its_own_traceback(python: Path, cache: Path, tmp_path: Path) -> None:
    """The traceback begins in the script, the exit code is 1, and --quiet leaves nothing else on stderr."""
    program = script(tmp_path, "def f():\n    return 1 / 0\n\nf()\n")
    done = run_command(python, "--quiet", program, cache=cache, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{program}", line 4, in <module>'
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "likewise" not in done.stderr.replace(str(program), "")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("def f(:\n", 1, "SyntaxError"),
        ("import sys; sys.exit('no luck')\n", 1, "no luck"),
        ("import sys; sys.exit()\n", 0, ""),
        ("raise KeyboardInterrupt\n", 130, "KeyboardInterrupt"),
    ],
)
def test_exit_codes_are_what_python_makes_of_them(
    text: str, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A syntax error, a message given to sys.exit, a bare sys.exit and Ctrl-C end as Python ends them."""
    from likewise.cli.perspective import as_script
    from likewise.cli.run import run_script

    with as_script(script(tmp_path, text)) as main:
        assert run_script(main, ["program.py"]) == code
    assert words in capsys.readouterr().err


def test_a_script_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    """A missing script is named before anything is scanned or started."""
    done = likewise("run", "missing.py", cwd=tmp_path)
    assert done.returncode == 2 and "missing.py" in done.stderr and "scan" not in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_the_script_and_its_cluster(
    sent: signal.Signals, code: int, python: Path, cache: Path, tmp_path: Path
) -> None:
    """Ctrl-C, SIGTERM and even kill -9 leave no process of the cluster behind."""
    program = script(tmp_path, "import time\nprint('started', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        command(python, "-q", program),
        env=clean_environ(LIKEWISE_CACHE=str(cache)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    assert len(nodes_of(cache)) >= 2  # scheduler and worker
    process.send_signal(sent)
    assert process.wait(timeout=30) == code
    process.stdout.close()
