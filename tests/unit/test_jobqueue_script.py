"""What jobs run: the scripts of all six batch systems, without any of them; the shell that would run them is real."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from likewise.cluster import jobqueue
from likewise.cluster.jobqueue.folder import JobFolder
from likewise.cluster.jobqueue.job import ReplicaJob
from likewise.cluster.jobqueue.script import (
    command_line,
    environ_text,
    merge_directives,
    note_line,
    parse_note,
    prologue_line,
    python_command,
)
from likewise.errors import ClusterError, UsageError
from likewise.model.digest import digest_bytes
from likewise.node.command import Launch
from support.nodes import SHELLS

SYSTEMS = ("SLURM", "PBS", "SGE", "LSF", "HTCondor", "OAR")
OPTIONS: dict[str, dict[str, Any]] = {
    "HTCondor": {"disk": "1GB"},
    "LSF": {"lsf_units": "mb"},
    "OAR": {"memory_per_core_property_name": "not_applicable"},
}
CLUSTER = "0123456789abcdef"
ODD = 'a folder of mine\'s & "others"; * $HOME `id` %d \\ é'
WORKER = ["-m", "distributed.cli.dask_worker", "tls://h:1", "--name", "w-0"]


def launch(folder: str) -> Launch:
    """How a node of a job starts."""
    digest = digest_bytes(b"x")
    return Launch(
        script=f"{folder}/bootstrap.sh", cache="auto", manifest=digest, kit=f"{folder}/kit", kit_id=digest,
        kit_sha256=digest, store=f"{folder}/store", cluster=CLUSTER, hub="tls://h:2", ask=True,
    )  # fmt: skip


def job(system: str, folder: str, **more: Any) -> Any:
    """A job as a cluster would make it."""
    options: dict[str, Any] = {
        "cores": 4, "memory": "8GB", "processes": 1, "protocol": "tls://", "note_script": f"{folder}/note.sh",
        "job_script_prologue": ["module load fast", prologue_line(f"{folder}/environ")],
        "python": python_command(launch(folder).argv()),
    }  # fmt: skip
    return getattr(jobqueue, f"{system}Cluster").job_cls(
        "tls://h:1", name="w-0", **{**options, **OPTIONS.get(system, {}), **more}
    )


def shell_text(system: str, made: Any) -> str:
    """The part of a job's script that a shell on the node reads."""
    text: str = made.job_script()
    if system != "HTCondor":
        return "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    # https://htcondor.readthedocs.io/en/latest/man-pages/condor_submit.html: the "new" syntax of arguments
    quoted = re.search(r'^Arguments = "(.*)"$', text, re.MULTILINE)
    assert quoted, text
    argument = re.fullmatch(r"-c '(.*)'", quoted[1].replace('""', '"'))
    assert argument, quoted[1]
    return argument[1].replace("''", "'")


@pytest.mark.parametrize("system", SYSTEMS)
def test_words_survive_every_system(system: str, tmp_path: Path) -> None:
    """Whatever the batch system makes of it, sh reads the very words of the command prefix, odd paths included."""
    folder = tmp_path / ODD
    folder.mkdir()
    (folder / "environ").write_text(environ_text({"FROM_FILE": "it's\nhere"}))
    show = 'module() { echo "module $*"; }; sh() { printf "%s\\0" "$FROM_FILE" sh "$@"; }\n'
    done = subprocess.run(
        ["sh", "-c", show + shell_text(system, job(system, str(folder)))],
        capture_output=True, text=True, check=False, env={"PATH": os.defpath},
    )  # fmt: skip
    first, *words = done.stdout.split("\0")
    assert (first, done.stderr, done.returncode) == ("module load fast\nit's\nhere", "", 0)
    expected = [*launch(str(folder)).argv(), *WORKER]
    assert words[: len(expected)] == expected
    assert words[len(expected) : -1] == ["--nthreads", "4", "--memory-limit", "7.45GiB", "--nanny", *OTHERS]


OTHERS = ["--death-timeout", "60", "--protocol", "tls://"]


def test_directives() -> None:
    """What dask-jobqueue says of resources stays, and SLURM is told to hand no variable on, unless the user says so."""
    text = job("SLURM", "/s", job_extra_directives=merge_directives(["--qos=high"], {"--export": "NONE"})).job_script()
    header = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --cpus-per-task=4", "#SBATCH --mem=8G", "#SBATCH --export=NONE", "#SBATCH --qos=high"} <= {*header}
    assert merge_directives(["--export ALL"], {"--export": "NONE"}) == ["--export ALL"]
    assert merge_directives(["--exclusive"], {"--export": "NONE"}) == ["--export=NONE", "--exclusive"]


@pytest.mark.parametrize("path", ["/a\nb", "/a\tb", "/x$(id)", "/x$$(Machine)", "/\x7f"])
def test_what_no_quoting_protects(path: str) -> None:
    """A path that some batch system would not pass on unchanged is refused by name."""
    with pytest.raises(UsageError) as raised:
        command_line(["sh", path])
    assert repr(path) in raised.value.what


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_a_failed_job_leaves_a_note(shell: list[str], tmp_path: Path) -> None:
    """However a job ends in error, the client finds its exit code, host and last words; of a good one, nothing."""
    folder = JobFolder(tmp_path / ODD, CLUSTER)
    first = note_line(str(folder.note_script), "My cluster/é-1")
    ends = {"sh -c 'exit 3'": 3, "exit 4": 4, "true": 0}
    for script, code in ends.items():
        with (tmp_path / "out").open("wb") as out:
            done = subprocess.run(
                [*shell, "-c", f"{first}\necho first >&2; printf 'likewise: last words.\\n' >&2\n{script}"],
                stdout=out, stderr=out, check=False,
            )  # fmt: skip
        assert done.returncode == code
        host = Path("/proc/sys/kernel/hostname").read_text().strip()
        found = [("My_cluster__-1", code, host, ["first", "likewise: last words."])] if code else []
        assert folder.take_notes() == found
        assert folder.take_notes() == []


def test_a_job_of_a_closed_cluster(tmp_path: Path) -> None:
    """A job that starts when its cluster is gone says so and ends at once, and no worker is started without its key."""
    for system in SYSTEMS:
        script = "module() { :; }\n" + shell_text(system, job(system, f"{tmp_path}/gone"))
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 15
        assert "likewise: The cluster of this job is closed, or" in done.stderr
        assert "bootstrap.sh" not in done.stderr


def test_notes_that_are_odd() -> None:
    """A note that was cut short or is no note of ours is no crash."""
    assert parse_note("") == (1, "unknown", [])
    assert parse_note("137 node-7\n\n  \nKilled\n") == (137, "node-7", ["Killed"])
    assert parse_note("x" * 5000 + "\n" + "y" * 5000)[2] == ["y" * 1000]


def test_variables_come_back_from_their_file(tmp_path: Path) -> None:
    """Whatever is in a variable, the shell reads the same; a name that it can't take is refused."""
    values = {"KEY": "-----BEGIN\nx'y\"z\\$HOME`id`\n-----END\n", "EMPTY": "", "_a": ODD}
    file = tmp_path / "environ"
    file.write_text(environ_text(values))
    show = f"import json, os; print(json.dumps({{k: os.environ[k] for k in {list(values)!r}}}))"
    script = f". {shlex.quote(str(file))}; exec {shlex.quote(sys.executable)} -c {shlex.quote(show)}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == values
    for name in ("A-B", "1A", "A B", "A;B", ""):
        with pytest.raises(UsageError):
            environ_text({name: "x"})


def test_the_folder_is_private_and_goes(tmp_path: Path) -> None:
    """Only the owner can enter the jobs' folder, whatever the umask; `remove` leaves nothing."""
    old = os.umask(0)
    try:
        folder = JobFolder(tmp_path / "shared", CLUSTER)
        folder.write("environ", b"secret")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder.path, *folder.path.iterdir()]}
    assert modes == {folder.path.name: 0o700, "notes": 0o700, "note.sh": 0o600, "owner": 0o600, "environ": 0o600}
    folder.remove()
    folder.remove()
    assert list((tmp_path / "shared").iterdir()) == []


def test_folders_of_killed_clients_are_swept(tmp_path: Path) -> None:
    """The next cluster removes what a killed client has left; nothing of a living one, of another machine, or else."""
    make = "import sys; from pathlib import Path; from likewise.cluster.jobqueue.folder import JobFolder; "
    make += "JobFolder(Path(sys.argv[1]), 'f' * 16)"
    subprocess.run([sys.executable, "-c", make, str(tmp_path)], check=True)
    assert (tmp_path / f"likewise-{'f' * 16}").is_dir()
    living = JobFolder(tmp_path, "1" * 16)
    assert not (tmp_path / f"likewise-{'f' * 16}").exists()
    elsewhere = JobFolder(tmp_path, "2" * 16)
    elsewhere.write("owner", b"another-machine 1 1.0")
    (tmp_path / "likewise-results").mkdir()
    (tmp_path / f"likewise-{'e' * 16}").symlink_to(tmp_path / "likewise-results")
    JobFolder(tmp_path, "3" * 16)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        living.path.name, elsewhere.path.name, f"likewise-{'3' * 16}", "likewise-results", f"likewise-{'e' * 16}",
    }  # fmt: skip


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Where nothing can be written the error names the folder and the argument that chooses another."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterError, match="shared_folder") as raised:
        JobFolder(tmp_path / "file", CLUSTER)
    assert raised.value.where == str(tmp_path / "file")


def test_every_class_is_one_of_ours() -> None:
    """All six clusters submit jobs with the mixin, under dask-jobqueue's own section of the configuration."""
    for system in SYSTEMS:
        job_cls = getattr(jobqueue, f"{system}Cluster").job_cls
        assert issubclass(job_cls, ReplicaJob)
        assert job_cls.default_config_name() == system.lower()
