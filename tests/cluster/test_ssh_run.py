"""``likewise run --host``: a script that knows nothing of likewise, with its workers on other machines."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.prefixes import clean_environ
from support.testbed import FakeHosts
from support.users import common_cache, make_user_venv

pytestmark = [pytest.mark.root, pytest.mark.registry]

PROGRAM = """
import json, socket, sys
import dask
from distributed import Client

def where(number):
    import beside
    return number + beside.ONE, socket.gethostname()

if __name__ == "__main__":
    with Client() as client:
        answers = client.run(where, 1)
    print(json.dumps({"computed": dask.compute(dask.delayed(where)(2))[0][0], "workers": sorted(answers.values())}))
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a user's venv."""
    return make_user_venv(tmp_path_factory.mktemp("run-hosts") / "venv", "asyncssh")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What other tests have packed need not be packed again."""
    return common_cache(tmp_path_factory)


def run_program(
    python: Path, cache: Path, folder: Path, *options: str, arguments: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """``likewise run`` of the program in `folder`, as a user types it there."""
    return subprocess.run(
        [str(python), "-m", "likewise", "run", *options, "program.py", *arguments],
        env=clean_environ(LIKEWISE_CACHE=str(cache)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_script_runs_on_hosts(tmp_path: Path, fake_hosts: FakeHosts, python: Path, cache: Path) -> None:
    """Each named host has a worker that knows the script's neighbours; the exit code is the script's own; -v says where
    layers came from."""
    bed = fake_hosts(2)
    (tmp_path / "beside.py").write_text("ONE = 1\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    hosts = [word for name in bed.names[:2] for word in ("--host", name)]
    options = (*hosts, "-F", str(bed.ssh_config), "--source", "client", "-v")
    done = run_program(python, cache, tmp_path, *options, arguments=("7",))
    assert done.returncode == 7, done.stderr
    told = {line.split()[0]: line.split()[-1] for line in done.stderr.splitlines() if line.strip()}
    assert told["tornado"] in ("kit", "cache") and told["asyncssh"] in ("client", "cache")
    assert json.loads(done.stdout) == {"computed": 3, "workers": [[2, name] for name in sorted(bed.names[:2])]}


def test_host_that_is_not_there_is_one_sentence(tmp_path: Path, python: Path, cache: Path) -> None:
    """A host that can't be reached ends the command with the error's exit code and a sentence that names it."""
    (tmp_path / "program.py").write_text("print('never')\n")
    done = run_program(python, cache, tmp_path, "--host", "nobody.invalid")
    assert (done.returncode, done.stdout) == (17, "")
    assert "nobody.invalid" in done.stderr and "Traceback" not in done.stderr, done.stderr
